"""The plugin in real codebases: `pytest tests/test_real_fork.py --fork NAME=PATH`, PATH a clone; see docs/fork.md."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fork_edits import SECTIONS, apply_page
from tats.datasets.moving_shapes import ShapesConfig, write_moving_shapes
from tats.models import create_model, load_encoder, load_pretraining

pytestmark = pytest.mark.slow
SHIMS = Path(__file__).with_name("fork_shims.py")
SMALL = ["--model", "pretrain_videomae_small_patch16_224", "--decoder_depth", "1"]
# Program, its flags, a mask of its own, and the most lines that may change.
PROGRAMS = {
    "videomae": ("run_mae_pretraining.py", SMALL, "tube", 12),
    "adamae": ("pretrain_mae_vit.py", ["--model", "pretrain_videomae_base_patch16_224", "--decoder_depth", "1"],
               "learnable", 12),
    "videomaev2": ("run_mae_pretraining.py", [*SMALL, "--decoder_mask_type", "run_cell", "--decoder_mask_ratio", ".5"],
                   "tube", 18),
    "mae_dfer": ("run_mae_pretraining.py", [
        "--model", "pretrain_videomae_base_dim512_no_depth_patch16_160", "--encoder_depth", "1", "--decoder_depth", "1",
        "--input_size", "160", "--use_frame_diff_as_target", "--target_diff_weight", ".5"], "part_window", 12),
    "mae_st": (str(Path(__file__).with_name("mae_st_run.py")), [], "own", 18),
}
MODEL_CODE = re.compile(r"^class \w+\((torch\.)?nn\.Module\)", re.MULTILINE)
OURS = ["--mae_only_epochs", "1", "--policy_head_init", "xavier", "--sampler_lr", "1e-3"]


@pytest.fixture(scope="module", params=SECTIONS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def clone(request, name):
    given = dict(text.split("=", 1) if "=" in text else ("videomae", text)
                 for text in request.config.getoption("--fork"))
    assert not given.keys() - SECTIONS.keys(), f"--fork knows {', '.join(SECTIONS)}"
    if name not in given:
        pytest.skip(f"no clone of it (--fork {name}=PATH)")
    return Path(given[name])


@pytest.fixture(scope="module")
def copies(clone, name, tmp_path_factory):
    """Two copies of the clone's files: as they are, and with our lines in them."""
    plain, fork = (tmp_path_factory.mktemp(kind) / name for kind in ("plain", "fork"))
    for folder in (plain, fork):
        shutil.copytree(clone, folder, ignore=shutil.ignore_patterns(".git", "figs"))
    apply_page(name, fork)
    return plain, fork


@pytest.fixture(scope="module")
def fork(copies):
    return copies[1]


@pytest.fixture
def note(request, name):
    """`note(column=value)`: a cell of the table that stands at the end of the run."""
    return lambda **cells: request.node.user_properties.append(("fork", {"codebase": name, **cells}))


@pytest.fixture(scope="module")
def flags(name, tmp_path_factory):
    """What the fork's program is run with, but for --output_dir and --epochs."""
    folder = tmp_path_factory.mktemp("data")
    write_moving_shapes(ShapesConfig(folder / "shapes", (4, 1, 1), frames=20, render_size=224), workers=1,
                        progress=False)
    videos = sorted((folder / "shapes").rglob("*.mp4"))[:4]
    label = " 0 -1 0\n" if name == "videomaev2" else " 0\n"
    (folder / "train.csv").write_text("".join(f"{path}{label}" for path in videos))
    return ["--data_path", str(folder / "train.csv"), "--sampling_rate", "1", "--batch_size", "2", "--num_workers",
            "1" if name == "videomaev2" else "0", "--device", "cpu", "--no_pin_mem", "--warmup_epochs", "1",
            "--save_ckpt_freq", "1", "--mask_ratio", "0.95", "--lr", "1e-2"]


def start(name, folder, flags, out, epochs=2, launcher=()):
    program, own, *_ = PROGRAMS[name]
    out.mkdir(exist_ok=True)
    done = subprocess.run([sys.executable, *launcher, str(SHIMS), program, *own, *flags, "--output_dir", str(out),
                           "--epochs", str(epochs)], cwd=folder, capture_output=True, text=True,
                          env=os.environ | {"LOCAL_RANK": "0", "TORCHDYNAMO_DISABLE": "1"})
    assert done.returncode == 0, done.stderr[-3000:]


def losses_in(out):
    return [json.loads(line)["train_loss"] for line in (out / "log.txt").read_text().splitlines()]


def saved_in(out):
    paths = sorted(out.glob("checkpoint-*.pth"), key=lambda path: int(path.stem.split("-")[1]))
    return [torch.load(path, weights_only=False) for path in paths]


@pytest.fixture(scope="module")
def trained(name, fork, flags, tmp_path_factory):
    """Two epochs of TATS, the first with random masks, then a third after a resume; two steps each."""
    out = tmp_path_factory.mktemp("run") / "out"
    for epochs in (2, 3):
        start(name, fork, [*flags, "--mask_type", "tats", *OURS], out, epochs)
    return out


def test_lines_changed_and_none_in_a_model(name, copies, note):
    done = subprocess.run(["git", "diff", "--no-index", "--numstat", *map(str, copies)], capture_output=True, text=True)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    lines, paths = sum(int(row[0]) + int(row[1]) for row in rows), [row[2].split("=> ")[-1] for row in rows]
    files = [next(copies[1].rglob(Path(path.rstrip("}")).name)) for path in paths]
    touched = [path.name for path in files if MODEL_CODE.search(path.read_text())]
    note(lines=lines, files=len(files), **{"model code touched": "yes" if touched else "no"})
    assert rows and lines <= PROGRAMS[name][3] and not touched


def test_its_own_loss_is_unchanged_to_the_digit(name, copies, flags, tmp_path, note):
    """Under a mask of its own: against the clone as it is."""
    own = [*flags, "--mask_type", PROGRAMS[name][2], "--save_ckpt_freq", "2"]
    for folder, arguments, out in zip(copies, (own, own + OURS), ("plain", "fork"), strict=True):
        start(name, folder, arguments, tmp_path / out)
    plain, fork = (losses_in(tmp_path / out) for out in ("plain", "fork"))
    weights = [saved_in(tmp_path / out)[-1]["model"] for out in ("plain", "fork")]
    note(**{"own mask": PROGRAMS[name][2], "own loss, untouched clone": " ".join(map(repr, plain)),
            "own loss, with the lines": " ".join(map(repr, fork))})
    assert plain == fork and plain[0] != plain[1]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())


def test_phases_checkpoint_and_resume(trained, note):
    saved = saved_in(trained)
    samplers = [state["scaler"]["sampling"] for state in saved]
    assert [state["optimizer"]["steps"] for state in samplers] == [0, 2, 4]
    for states in ([state["model"] for state in saved], [state["sampler"] for state in samplers]):
        for first, second in ((0, 1), (1, 2)):
            assert any(not torch.equal(value, states[second][name]) for name, value in states[first].items())
    records = [json.loads(line) for line in (trained / "log.txt").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [0, 1, 2] and all(record["train_loss"] > 0 for record in records)
    assert "train_sampling_loss" not in records[0] and "train_sampling_loss" in records[1]
    note(**{"two epochs, m_o = 1": "yes", "resume": "yes"})


def test_two_processes(name, fork, flags, tmp_path, note):
    start(name, fork, [*flags, "--mask_type", "tats", *OURS, "--batch_size", "1"], tmp_path / "out", 2,
          ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"))
    states = saved_in(tmp_path / "out")
    assert [state["scaler"]["sampling"]["optimizer"]["steps"] for state in states] == [0, 2]
    note(**{"DDP, two processes": "yes"})


def test_its_checkpoint_loads_here(name, trained):
    if name != "videomae":
        pytest.skip("another model")
    mae = create_model("pretrain_videomae_small_patch16_224", decoder_depth=1)
    report, sampler = load_pretraining(mae, trained / "checkpoint-2.pth", trust=True)
    assert report.whole and sampler
    classifier = create_model("vit_small_patch16_224", num_classes=5)
    report = load_encoder(classifier, trained / "checkpoint-2.pth", trust=True)
    assert report.share(("fc_norm.", "head.")) == 1


def test_our_checkpoint_loads_in_its_fine_tuning_classes(name, fork, tmp_path):
    """Strictly, both networks: the state dictionaries of our models are those of theirs."""
    if name != "videomae":
        pytest.skip("another model")
    for model, options in (("pretrain_videomae_small_patch16_224", {"decoder_depth": 2}),
                          ("vit_small_patch16_224", {"num_classes": 5})):
        torch.save(create_model(model, **options).state_dict(), tmp_path / f"{model}.pth")
        code = (f"import fork_shims, sys, torch\nsys.path.insert(0, {str(fork)!r})\n"
                "import modeling_finetune, modeling_pretrain\n"
                f"model = fork_shims.old_create_model({model!r}, **{options})\n"
                f"model.load_state_dict(torch.load({str(tmp_path / f'{model}.pth')!r}))")
        subprocess.run([sys.executable, "-c", code], cwd=SHIMS.parent, check=True)
