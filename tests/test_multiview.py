"""The test: every video counts once, whatever the number of processes, the names, and what is broken."""

import hashlib
import json
import subprocess
import sys

import pytest
import torch
from tats.engines import engine_for_finetuning
from tats.engines.core.runtime import Runtime
from tats.engines.engine_for_finetuning import EvaluationSetup
from tats.engines.finetune.evaluation import RowTable, accuracies, evaluation_rows, file_hash, merge
from tats.engines.finetune.frozen import knn_scores
from tats.engines.run_class_finetuning import main
from tats.engines.training.batches import Normalizer
from tats.models import create_model
from videos import write_seven

ALONE = Runtime(torch.device("cpu"))
MODEL = {"num_classes": 6, "img_size": 16, "all_frames": 4, "init_scale": 1.0}


def test_accuracies_by_hand():
    values = torch.tensor([[.5, .2, .1, .1, .06, .04], [.1, .2, .3, .2, .15, .05], [.3, .25, .2, .15, .06, .04],
                           [0, 0, 0, 0, 0, 0], [.1, .2, .3, .2, .15, .05]], dtype=torch.float64)
    table = RowTable(values, torch.tensor([0, 1, 5, 0, 2]), {3: "gone"})
    # right; second; last of six; unreadable although zeros would rank class 0 first; right
    assert accuracies(table) == {"top1": 40.0, "top5": 60.0, "num_expected": 5, "num_evaluated": 4,
                                 "per_class": [50.0, 0.0, 100.0, None, None, 0.0]}
    few = accuracies(RowTable(values[:2, :3], torch.tensor([0, 1]), {}))
    assert (few["top1"], few["top5"]) == (50.0, 100.0)


@pytest.mark.parametrize("length", [1, 5, 6, 7])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_rows_are_shared_out_evenly_and_merged_exactly(length, world_size):
    parts = [evaluation_rows(length, rank, world_size) for rank in range(world_size)]
    assert len({len(part) for part in parts}) == 1
    rows = torch.tensor(sum(parts, []))
    assert set(rows.tolist()) == set(range(length)) and len(rows) < length + world_size
    table = merge(rows, rows[:, None] * torch.ones(1, 2, dtype=torch.float64), 10 + rows, {0: "bad"}, ALONE, length)
    assert table.labels.tolist() == [10 + row for row in range(length)]
    assert table.values[:, 1].tolist() == list(range(length))
    assert table.readable.tolist() == [row != 0 for row in range(length)]


def test_a_row_that_nobody_evaluated_is_an_error():
    with pytest.raises(RuntimeError, match=r"\[1\]"):
        rows = torch.tensor([0, 2])
        merge(rows, torch.ones(2, 2, dtype=torch.float64), torch.zeros_like(rows), {}, ALONE, 3)


def test_broken_weights_are_no_unreadable_video():
    values = torch.tensor([[1.0, float("nan")]], dtype=torch.float64)
    with pytest.raises(FloatingPointError):
        merge(torch.tensor([0]), values, torch.tensor([0]), {}, ALONE, 1)


def test_the_hash_of_a_file_is_that_of_all_its_bytes(tmp_path):
    content = bytes(range(256)) * 5000   # more than is read at once
    (tmp_path / "weights").write_bytes(content)
    assert file_hash(tmp_path / "weights") == hashlib.sha256(content).hexdigest()


def test_probabilities_are_averaged_over_views():
    """Two videos of three views, in pieces of two clips; against a loop."""
    views = torch.randint(0, 256, (2, 3, 3, 1, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    setup = EvaluationSetup(Normalizer(torch.device("cpu")), ALONE, clips=2)
    seen = []

    def net(clips):
        seen.append(len(clips))
        return 3 * clips.mean(dim=(2, 3, 4))

    loader = [(torch.tensor([1, 0]), torch.tensor([2, 0]), views, ["", ""])]
    table = engine_for_finetuning.test_views(loader, net, setup, 2)
    assert seen == [2, 2, 2] and table.labels.tolist() == [0, 2]
    for row, video in ((1, views[0]), (0, views[1])):
        expected = sum(net(setup.normalizer.clips(view[None])).double().softmax(dim=1)[0] for view in video) / 3
        torch.testing.assert_close(table.values[row], expected)


def test_validation_counts_the_unreadable_as_wrong():
    views = torch.randint(0, 256, (4, 1, 3, 1, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    loader = [(torch.arange(4), torch.tensor([0, 1, 0, 0]), views, ["", "", "gone", ""])]
    net = lambda clips: torch.tensor([[1.0, 0.0]]).expand(len(clips), 2)  # noqa: E731
    found = engine_for_finetuning.validate(loader, net, EvaluationSetup(Normalizer(torch.device("cpu")), ALONE), 4)
    assert (found["acc1"], found["acc5"], found["unreadable"]) == (50.0, 75.0, 1)
    near, far = torch.tensor([1.0, 0.0]).log_softmax(0).neg().tolist()
    assert found["loss"] == pytest.approx((2 * near + far) / 3)


def test_nearest_neighbours_by_hand():
    train = RowTable(torch.tensor([[1.0, 0], [0, 2.0], [3.0, 3.0], [9.0, 9.0]], dtype=torch.float64),
                     torch.tensor([0, 1, 2, 1]), {3: "unreadable: does not vote"})
    test = RowTable(torch.tensor([[5.0, 0.0]], dtype=torch.float64), torch.tensor([0]), {})
    scores = knn_scores(train, test, 3, k=2, temperature=.5).values[0]
    votes = (torch.tensor([1.0, 2**-.5], dtype=torch.float64) / .5).softmax(dim=0)   # the axis, then the diagonal
    torch.testing.assert_close(scores, torch.stack([votes[0], torch.zeros((), dtype=torch.float64), votes[1]]))


@pytest.fixture(scope="module")
def seven_videos(tmp_path_factory):
    """Seven videos, which neither two nor three divide, and a checkpoint."""
    folder = tmp_path_factory.mktemp("lists")
    write_seven(folder)
    torch.manual_seed(0)
    torch.save({"model": create_model("vit_tats_tiny", **MODEL).state_dict()}, folder / "weights.pth")
    return folder


def flags(folder, out):
    return ["--eval", "--model", "vit_tats_tiny", "--finetune", str(folder / "weights.pth"), "--data_path", str(folder),
            "--nb_classes", "6", "--input_size", "16", "--num_frames", "4", "--sampling_rate", "1", "--batch_size", "8",
            "--test_num_segment", "2", "--test_num_crop", "3", "--num_workers", "0", "--device", "cpu", "--dist_eval",
            "--output_dir", str(out)]


_LAUNCH = """
import json, multiprocessing, os, sys
from tats.engines.run_class_finetuning import main

def process(rank, world_size, arguments):
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world_size), LOCAL_RANK=str(rank))
    main(arguments)

for world_size, arguments in json.loads(sys.argv[1]):
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=process, args=(rank, world_size, arguments)) for rank in range(world_size)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    if any(child.exitcode for child in children):
        sys.exit(1)
"""


def run_on(world_sizes, folder, out):
    """The program on each number of processes, as a launcher starts it.

    They are forks (nothing is imported again) of a process of their own: one that runs tests has threads.
    """
    runs = [(size, [*flags(folder, out / str(size)), "--dist_url", f"file://{out}/{size}.meeting"])
            for size in world_sizes]
    result = subprocess.run([sys.executable, "-c", _LAUNCH, json.dumps(runs)], capture_output=True, text=True,
                            timeout=300)
    assert result.returncode == 0, result.stderr


def test_one_two_and_three_processes_write_the_same_result(seven_videos, tmp_path):
    run_on((1, 2, 3), seven_videos, tmp_path)
    results = [(tmp_path / name / "result.json").read_text() for name in "123"]
    assert results[0] == results[1] == results[2]
    result = json.loads(results[0])
    assert (result["num_expected"], result["num_evaluated"]) == (7, 5)
    assert [(entry["line"], entry["path"]) for entry in result["unreadable"]] == [
        (3, str(seven_videos / "cut.mp4")), (5, str(seven_videos / "missing.mp4"))]
    assert result["per_class"][1] == result["per_class"][3] == 0.0
    assert result["views"] == {"segments": 2, "crops": 3}
    assert result["checkpoint_sha256"] == file_hash(seven_videos / "weights.pth")


def test_one_view_works(seven_videos, tmp_path):
    result = main(flags(seven_videos, tmp_path) + ["--test_num_segment", "1", "--test_num_crop", "1"])
    assert (result["num_expected"], result["num_evaluated"]) == (7, 5) and result["views"]["crops"] == 1
