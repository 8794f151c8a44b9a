"""The answer for each video: predict, predictions.csv of every test, and class names on their way to both."""

import csv
import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from PIL import Image
from tats.datasets.inputs import videos_named
from tats.datasets.labelled import Sampling
from tats.datasets.lists.class_names import agreed_names, read_class_names
from tats.datasets.program import run_program
from tats.engines import predict
from tats.engines.config.finetuning import LabelledDataConfig
from tats.engines.figures.answers import draw_answers, draw_confusion
from tats.engines.finetune.answers import answers, confusion, most_confused, write_confusion, write_predictions
from tats.engines.finetune.evaluation import RowTable, accuracies
from tats.engines.run_class_finetuning import get_parser, main
from tats.engines.runs.finetuning_build import resolve_task
from tats.models import create_model, export_hf, import_hf
from videos import write_seven

NAMES = ['right, "up"', "=SUM(A1)", "$x_1$ and $", "<b>left</b>", "猫 cat", "5"]
MODEL = {"num_classes": 6, "img_size": 16, "all_frames": 4, "init_scale": 1.0}


def table_by_hand():
    values = torch.tensor([[.5, .3, .2], [.1, .2, .7], [0, 0, 0], [.3, .6, .1], [.1, .8, .1]], dtype=torch.float64)
    return RowTable(values, torch.tensor([0, 1, 2, 0, -1]), {2: "c.mp4: gone"})


def read_csv(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_of_equal_scores_every_table_takes_the_same_class():
    """As nearest neighbours leave them, and a network whose features have collapsed."""
    values = torch.full((3, 12), 1 / 12, dtype=torch.float64)
    values[1] = torch.arange(12) // 10 / 2   # the last two classes
    table = RowTable(values, torch.tensor([0, 10, 11]), {})
    for k in (1, 3, 12):
        assert [row["predicted"] for row in answers(table, "abc", None, k)] == [0, 10, 0]
    assert accuracies(table)["top1"] == pytest.approx(200 / 3, abs=1e-4)
    assert confusion(table).nonzero().tolist() == [[0, 0], [10, 10], [11, 0]]


def test_answers_by_hand(tmp_path):
    rows = list(answers(table_by_hand(), [f"{name}.mp4" for name in "abcde"], ["x", "y, z", "w"], 2))
    assert rows[0] == {"path": "a.mp4", "label": 0, "label_name": "x", "predicted": 0, "predicted_name": "x",
                       "correct": True, "note": "", "top": [{"class": 0, "name": "x", "probability": .5},
                                                            {"class": 1, "name": "y, z", "probability": .3}]}
    assert [row["correct"] for row in rows] == [True, False, False, False, None]
    assert (rows[2]["predicted"], rows[2]["top"], rows[2]["note"]) == (None, [], "c.mp4: gone")
    assert (rows[4]["label"], rows[4]["predicted_name"]) == (None, "y, z")
    write_predictions(tmp_path / "p.csv", rows, 2)
    read = read_csv(tmp_path / "p.csv")
    assert [row["correct"] for row in read] == ["1", "0", "0", "0", ""]
    assert [row["predicted"] for row in read] == ["0", "2", "", "1", "1"]
    assert (read[1]["class_2"], read[1]["name_2"], read[1]["probability_2"]) == ("1", "y, z", "0.2")
    assert read[2]["note"] == "c.mp4: gone" and read[2]["probability_1"] == ""


def test_confusion_by_hand(tmp_path):
    """Class 0: one right, one taken for 1. Class 1: taken for 2. Class 2: unreadable. The last row has no label."""
    matrix = confusion(table_by_hand())
    assert matrix.tolist() == [[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert most_confused(matrix, None) == [
        {"label": 0, "label_name": "0", "predicted": 1, "predicted_name": "1", "count": 1, "share": .5},
        {"label": 1, "label_name": "1", "predicted": 2, "predicted_name": "2", "count": 1, "share": 1.0}]
    more = torch.tensor([[0, 1, 3, 0], [2, 0, 0, 0], [0, 0, 9, 0]])
    assert [(one["label"], one["predicted"], one["count"]) for one in most_confused(more, None, 2)] == [
        (0, 2, 3), (1, 0, 2)]
    write_confusion(tmp_path / "c.csv", matrix, ["x", "y, z", "w"])
    assert (tmp_path / "c.csv").read_text().splitlines() == [
        'true class,x,"y, z",w,unreadable', "x,1,1,0,0", '"y, z",0,0,1,0', "w,0,0,0,1"]


def test_pictures_take_any_name_and_size(tmp_path):
    rows = list(answers(table_by_hand(), ["$a.mp4", *"bcde"], ["$x_$", "\t", "猫" * 90], 5))
    clips = [torch.zeros(3, 8, 8, 3, dtype=torch.uint8).numpy()] * 5
    clips[2] = None
    draw_answers(rows, clips, tmp_path / "sheet.png")
    assert min(Image.open(tmp_path / "sheet.png").size) > 300
    assert draw_confusion(torch.eye(3, 4, dtype=torch.int64), ["$", "b", "c"], tmp_path / "few.png")
    assert draw_confusion(torch.eye(174, 175, dtype=torch.int64), None, tmp_path / "many.png")
    assert not draw_confusion(torch.eye(700, 701, dtype=torch.int64), None, tmp_path / "none.png")
    assert Image.open(tmp_path / "many.png").size > (800, 800) and not (tmp_path / "none.png").exists()


@pytest.mark.parametrize(("text", "message"), [
    ("a\nb\n", "names 2 classes, but there are 3"), ("a\n\nc\n", "class 1 is empty"), ("a\nb\na\n", "same name"),
    (b"\xff\xfe\n\n", "not UTF-8")])
def test_class_names_that_cannot_be_are_refused(text, message, tmp_path):
    (tmp_path / "classes.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        read_class_names(tmp_path, 3)


def test_class_names_are_lines(tmp_path):
    assert read_class_names(tmp_path, 3) is None
    (tmp_path / "classes.txt").write_text("a b\r\n x\u2028y \nc, d\n\n", encoding="utf-8-sig")
    assert read_class_names(tmp_path, 3) == ["a b", "x\u2028y", "c, d"]
    with pytest.raises(ValueError, match="label 1 is 'b' .* 'z'"):
        agreed_names(["a", "b"], ["a", "z"], "list")


@pytest.fixture(scope="module")
def seven_videos(tmp_path_factory):
    """Seven videos of oddly named classes, and a checkpoint of them."""
    folder = tmp_path_factory.mktemp("answers")
    write_seven(folder)
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in NAMES), encoding="utf-8")
    torch.manual_seed(0)
    data = {"nb_classes": 6, "sampling_rate": 1, "test_num_segment": 2, "test_num_crop": 3, "data_set": "",
            "short_side_size": None}
    torch.save({"model": create_model("vit_tats_tiny", **MODEL).state_dict(), "class_names": NAMES,
                "config": {"name": "vit_tats_tiny", "kwargs": MODEL}, "settings": {"data": data}},
               folder / "weights.pth")
    return folder


def predicted(folder, out, *more, videos=("test.csv",)):
    names = [name if name.startswith("/") else str(folder / name) for name in videos]
    return predict.main([str(folder / "weights.pth"), *names, "--out", str(out), "--num_workers", "0", "--device",
                         "cpu", "--batch_size", "8", *more])


def flags(folder, out, *more):
    return ["--eval", "--model", "vit_tats_tiny", "--finetune", str(folder / "weights.pth"), "--data_path", str(folder),
            "--nb_classes", "6", "--input_size", "16", "--num_frames", "4", "--sampling_rate", "1", "--batch_size", "8",
            "--test_num_segment", "2", "--test_num_crop", "3", "--num_workers", "0", "--device", "cpu", "--output_dir",
            str(out), *more]


def test_predict_repeats_the_test(seven_videos, tmp_path, caplog):
    """The same probabilities as predictions.csv of the test, to the last digit, and the same accuracy."""
    result = main(flags(seven_videos, tmp_path / "test"))
    with caplog.at_level("INFO"):
        rows = predicted(seven_videos, tmp_path / "predict", "--top_k", "5")
    assert (tmp_path / "test" / "predictions.csv").read_text() == (tmp_path / "predict" / "predictions.csv").read_text()
    assert json.loads((tmp_path / "predict" / "predictions.json").read_text()) == rows
    assert f"top-1 {result['top1']:.2f}, top-5 {result['top5']:.2f} on 7 labelled videos; 2 of them" in caplog.text
    assert sum(row["correct"] for row in rows) == round(result["top1"] * 7 / 100)
    unreadable = [row["path"] for row in rows if row["note"]]
    assert unreadable == [entry["path"] for entry in result["unreadable"]] and len(unreadable) == 2
    assert [row["label_name"] for row in rows] == [NAMES[label] for label in (0, 5, 1, 2, 3, 4, 0)]
    lines = read_csv(tmp_path / "test" / "confusion.csv")
    assert [line["true class"] for line in lines] == NAMES
    assert sum(int(line["unreadable"]) for line in lines) == 2
    assert sum(pair["count"] for pair in result["most_confused"]) == 5 - sum(row["correct"] for row in rows)
    assert Image.open(tmp_path / "test" / "confusion.png").size > (200, 200)
    assert Image.open(tmp_path / "predict" / "predictions.png").size > (400, 400)


_LAUNCH = """
import json, multiprocessing, os, sys
from tats.engines.predict import main

def process(rank, world_size, arguments):
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world_size), LOCAL_RANK=str(rank))
    main(arguments)

fork = multiprocessing.get_context("fork")
children = [fork.Process(target=process, args=(rank, 2, json.loads(sys.argv[1]))) for rank in range(2)]
for child in children:
    child.start()
for child in children:
    child.join()
sys.exit(any(child.exitcode for child in children))
"""


def test_two_processes_answer_as_one(seven_videos, tmp_path):
    arguments = [str(seven_videos / "weights.pth"), str(seven_videos / "test.csv"), "--out", str(tmp_path / "two"),
                 "--num_workers", "0", "--device", "cpu", "--batch_size", "8", "--dist_url", f"file://{tmp_path}/meet"]
    done = subprocess.run([sys.executable, "-c", _LAUNCH, json.dumps(arguments)], capture_output=True, text=True,
                          timeout=300)
    assert done.returncode == 0, done.stderr
    one, two = predicted(seven_videos, tmp_path / "one"), json.loads((tmp_path / "two/predictions.json").read_text())
    assert [(row["path"], row["predicted"], row["note"]) for row in one] == [
        (row["path"], row["predicted"], row["note"]) for row in two]
    for first, second in zip(one, two, strict=True):
        assert [hit["probability"] for hit in first["top"]] == pytest.approx(
            [hit["probability"] for hit in second["top"]], abs=2e-6)


def test_a_video_a_folder_and_a_list_without_labels(seven_videos, tmp_path, caplog):
    whole = {row["path"]: row["top"] for row in predicted(seven_videos, tmp_path / "a")}
    one = predicted(seven_videos, tmp_path / "b", videos=("two/0001.mp4",))
    path = str(seven_videos / "two" / "0001.mp4")
    assert [(row["path"], row["label"], row["correct"]) for row in one] == [(path, None, None)]
    assert [hit["probability"] for hit in one[0]["top"]] == pytest.approx(
        [hit["probability"] for hit in whole[path]], abs=2e-6)
    (tmp_path / "names.txt").write_text(f"{path}\n{seven_videos}/pictures\n")
    with caplog.at_level("INFO"):
        rows = predicted(seven_videos, tmp_path / "c", videos=(str(tmp_path / "names.txt"),))
    assert [row["predicted"] is not None for row in rows] == [True, True] and "accuracy" not in caplog.text
    found = list(videos_named([str(seven_videos)]).paths)
    assert found == [str(seven_videos / name) for name in
                     ("c.mp4", "cut.mp4", "d.mp4", "whole.mp4", "one/0001.mp4", "pictures", "two/0001.mp4")]


def test_a_checkpoint_without_names_takes_those_beside_the_list(seven_videos, tmp_path):
    state = torch.load(seven_videos / "weights.pth", weights_only=True)
    torch.save({name: value for name, value in state.items() if name != "class_names"}, tmp_path / "weights.pth")
    (tmp_path / "list.txt").write_text(f"{seven_videos}/c.mp4\n")
    assert predicted(tmp_path, tmp_path / "a", videos=("list.txt",))[0]["predicted_name"] in set("012345")
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\ne\nf\n")
    assert predicted(tmp_path, tmp_path / "b", videos=("list.txt",))[0]["predicted_name"] in set("abcdef")


def one_line(capsys, call):
    with pytest.raises(SystemExit) as end:
        run_program(call)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert end.value.code == 2 and len(lines) == 1
    return lines[0]


def test_what_predict_refuses(seven_videos, tmp_path, capsys):
    line = one_line(capsys, lambda: predicted(seven_videos, tmp_path, videos=(str(tmp_path / "gone.mp4"),)))
    assert "none of the 1 videos" in line and "gone.mp4" in line
    assert "gone.mp4" in (tmp_path / "predictions.csv").read_text()
    (tmp_path / "empty").mkdir()
    assert "no videos" in one_line(capsys, lambda: predicted(seven_videos, tmp_path, videos=(str(tmp_path / "empty"),)))
    (tmp_path / "l.csv").write_text(f"{seven_videos}/c.mp4 6\n")
    line = one_line(capsys, lambda: predicted(seven_videos, tmp_path, videos=(str(tmp_path / "l.csv"),)))
    assert "label 6" in line and "--ignore_labels" in line
    assert predicted(seven_videos, tmp_path, "--ignore_labels", videos=(str(tmp_path / "l.csv"),))[0]["label"] is None
    (tmp_path / "l.csv").write_text(f"{seven_videos}/c.mp4 1\n")
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\ne\nf\n")
    line = one_line(capsys, lambda: predicted(seven_videos, tmp_path, videos=(str(tmp_path / "l.csv"),)))
    assert "label 0 is 'a'" in line
    torch.save({"model": create_model("pretrain_tats_tiny").state_dict(),
                "config": {"name": "pretrain_tats_tiny", "kwargs": {}}}, tmp_path / "mae.pth")
    line = one_line(capsys, lambda: predict.main([str(tmp_path / "mae.pth"), str(tmp_path / "l.csv")]))
    assert "fine-tune" in line


def test_predict_looks_first_whether_it_can_answer(seven_videos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(predict, "Evaluator", lambda *_: pytest.fail("worked"))
    (tmp_path / "file").write_text("")
    line = one_line(capsys, lambda: predicted(seven_videos, tmp_path / "file"))
    assert f"{tmp_path}/file is no folder" in line and "--out" in line
    line = one_line(capsys, lambda: predicted(seven_videos, tmp_path, "--num_frames", "8"))
    assert "--num_frames" in line and "--model" in line
    line = one_line(capsys, lambda: predicted(seven_videos, tmp_path, "--data_set", "SSV2"))
    assert "--data_set SSV2 has 174 classes" in line and "--sampling" in line and "--nb_classes" not in line


def test_a_second_prediction_leaves_nothing_of_the_first(seven_videos, tmp_path, caplog):
    predicted(seven_videos, tmp_path, videos=("one/0001.mp4",))
    assert (tmp_path / "predictions.png").exists() and "replaced" not in caplog.text
    with caplog.at_level("INFO"):
        predicted(seven_videos, tmp_path, "--sheet", "0", videos=("two/0001.mp4",))
    assert not (tmp_path / "predictions.png").exists() and "replaced" in caplog.text
    with pytest.raises(ValueError, match="none of the 1 videos"):
        predicted(seven_videos, tmp_path, videos=(str(tmp_path / "gone.mp4"),))
    assert "two/0001.mp4" in (tmp_path / "predictions.csv").read_text()


def test_names_of_labels_that_are_ignored_are_ignored_too(seven_videos, tmp_path):
    """A list in another numbering: its classes.txt would put wrong names to the checkpoint's classes."""
    checkpoint = torch.load(seven_videos / "weights.pth", weights_only=True)
    del checkpoint["class_names"]
    torch.save(checkpoint, tmp_path / "weights.pth")
    (tmp_path / "list.csv").write_text(f"{seven_videos}/c.mp4\n")
    for names in ("a\nb\nc\nd\ne\nf\n", "a\nb\n"):
        (tmp_path / "classes.txt").write_text(names)
        row, = predicted(tmp_path, tmp_path / "a", "--ignore_labels", videos=("list.csv",))
        assert row["predicted_name"] == str(row["predicted"])


def test_a_test_of_videos_without_labels_names_predict(seven_videos, tmp_path, capsys):
    (tmp_path / "test.csv").write_text(f"{seven_videos}/c.mp4\n{seven_videos}/d.mp4\n")
    line = one_line(capsys, lambda: main([*flags(seven_videos, tmp_path), "--data_path", str(tmp_path)]))
    assert f"tats.engines.predict CHECKPOINT {tmp_path}/test.csv" in line


def test_a_test_under_other_names_is_refused(seven_videos, tmp_path, capsys):
    (tmp_path / "test.csv").write_text((seven_videos / "test.csv").read_text())
    (tmp_path / "classes.txt").write_text("".join(f"{name}\n" for name in reversed(NAMES)))
    line = one_line(capsys, lambda: main([*flags(seven_videos, tmp_path), "--data_path", str(tmp_path)]))
    assert "label 0 is '5'" in line


def test_class_names_travel_through_training_and_exports(shapes, tmp_path):
    """classes.txt -> checkpoints (the best one, too) -> Hugging Face folder and back -> .safetensors -> predict."""
    names = [*NAMES[:5], "f", "g\u2028h", "LABEL_7"]
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.csv").write_text((shapes / f"{split}.csv").read_text())
    (tmp_path / "classes.txt").write_text("\n".join(names), encoding="utf-8")
    main(["--model", "vit_tats_tiny", "--data_set", "moving-shapes", "--batch_size", "8", "--num_sample", "1",
          "--num_workers", "0", "--device", "cpu", "--epochs", "1", "--data_path", str(tmp_path), "--output_dir",
          str(tmp_path / "run"), "--pos_embed", "sincos1d"])
    best = tmp_path / "run" / "checkpoint-best.pth"
    assert torch.load(tmp_path / "run" / "checkpoint-0.pth", weights_only=True)["class_names"] == names
    assert torch.load(best, weights_only=True)["class_names"] == names
    export_hf.main([str(best), str(tmp_path / "w.safetensors"), "--format", "safetensors"])
    for weights in (best, tmp_path / "w.safetensors"):
        rows = predict.main([str(weights), str(tmp_path / "test.csv"), "--out", str(tmp_path / "p"), "--sheet", "0",
                             "--num_workers", "0", "--device", "cpu", "--data_set", "moving-shapes"])
        assert {hit["name"] for row in rows for hit in row["top"]} <= set(names) and len(rows) == 8
        assert rows[6]["label_name"] == names[rows[6]["label"]]
    config = {"architectures": ["VideoMAEForVideoClassification"]}
    net = create_model("vit_tats_tiny", num_classes=8, pos_base=10000.0, pos_embed="sincos1d")
    export_hf.write_folder(tmp_path / "hf", net, class_names=names)
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["id2label"] == {str(label): name for label, name in enumerate(names)}
    assert config["label2id"] == {name: label for label, name in enumerate(names)}
    assert import_hf.import_folder(tmp_path / "hf")["class_names"] == names
    export_hf.write_folder(tmp_path / "plain", net)
    assert "class_names" not in import_hf.import_folder(tmp_path / "plain")


def test_lists_of_ones_own_choose_sampling_and_flips():
    own = LabelledDataConfig(data_path=".", nb_classes=5)
    assert resolve_task(own, 16)[1:3] == (Sampling("dense", 16, 4), True)
    chosen = replace(own, sampling="segments", flip=False)
    assert resolve_task(chosen, 16)[1:3] == (Sampling("segments", 16, 4), False)
    ssv2 = LabelledDataConfig(data_path=".", data_set="SSV2")
    assert resolve_task(ssv2, 16)[1:3] == (Sampling("segments", 16, 2), False)   # a data set's own word stands
    assert resolve_task(replace(ssv2, sampling="dense"), 16).sampling.style == "dense"
    args = get_parser().parse_args(["--no_flip", "--sampling", "segments"])
    assert (args.flip, args.sampling) == (False, "segments")
