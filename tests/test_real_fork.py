"""The plugin in VideoMAE itself: `pytest tests/test_real_fork.py --fork PATH`, PATH a clone of MCG-NJU/VideoMAE."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fork_edits import apply_edits
from tats.datasets.moving_shapes import ShapesConfig, write_moving_shapes
from tats.models import create_model, load_encoder, load_pretraining

pytestmark = pytest.mark.slow
SHIMS = Path(__file__).with_name("fork_shims.py")


@pytest.fixture(scope="module")
def clone(request):
    path = request.config.getoption("--fork")
    if path is None:
        pytest.skip("no clone of VideoMAE (--fork PATH)")
    return Path(path)


@pytest.fixture(scope="module")
def fork(clone, tmp_path_factory):
    """A copy of the clone's files with our lines in it."""
    folder = tmp_path_factory.mktemp("fork") / "VideoMAE"
    shutil.copytree(clone, folder, ignore=shutil.ignore_patterns(".git", "figs"))
    apply_edits(folder)
    return folder


@pytest.fixture(scope="module")
def trained(fork, tmp_path_factory):
    """Two epochs of TATS, the first with random masks, then a third after a resume; two steps each."""
    folder = tmp_path_factory.mktemp("run")
    write_moving_shapes(ShapesConfig(folder / "shapes", (4, 1, 1), frames=20, render_size=224), workers=1,
                        progress=False)
    videos = sorted((folder / "shapes").rglob("*.mp4"))[:4]
    (folder / "train.csv").write_text("".join(f"{path} 0\n" for path in videos))
    options = ["--model", "pretrain_videomae_small_patch16_224", "--decoder_depth", "1", "--data_path",
               str(folder / "train.csv"), "--sampling_rate", "1", "--output_dir", str(folder / "out"), "--batch_size",
               "2", "--num_workers", "0", "--device", "cpu", "--no_pin_mem", "--warmup_epochs", "1", "--save_ckpt_freq",
               "1", "--mask_type", "tats", "--mask_ratio", "0.95", "--mae_only_epochs", "1", "--policy_head_init",
               "xavier", "--sampler_lr", "1e-3", "--lr", "1e-2"]
    for epochs in ("2", "3"):
        subprocess.run([sys.executable, str(SHIMS), "run_mae_pretraining.py", *options, "--epochs", epochs], cwd=fork,
                       check=True)
    return folder / "out"


def test_lines_changed(clone, fork):
    changed = {}
    for name in sorted(path.name for path in clone.glob("*.py")):
        done = subprocess.run(["git", "diff", "--no-index", "--numstat", str(clone / name), str(fork / name)],
                              capture_output=True, text=True)
        if done.stdout:
            added, removed, _ = done.stdout.split(maxsplit=2)
            changed[name] = int(added) + int(removed)
    assert set(changed) == {"run_mae_pretraining.py", "datasets.py"} and sum(changed.values()) <= 12


def test_phases_checkpoint_and_resume(trained):
    saved = [torch.load(trained / f"checkpoint-{epoch}.pth", weights_only=False) for epoch in range(3)]
    samplers = [state["scaler"]["sampling"] for state in saved]
    assert [state["optimizer"]["steps"] for state in samplers] == [0, 2, 4]
    for states in ([state["model"] for state in saved], [state["sampler"] for state in samplers]):
        for first, second in ((0, 1), (1, 2)):
            assert any(not torch.equal(value, states[second][name]) for name, value in states[first].items())
    records = [json.loads(line) for line in (trained / "log.txt").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [0, 1, 2]
    assert "train_sampling_loss" not in records[0] and "train_sampling_loss" in records[1]


def test_its_checkpoint_loads_here(trained):
    mae = create_model("pretrain_videomae_small_patch16_224", decoder_depth=1)
    report, sampler = load_pretraining(mae, trained / "checkpoint-2.pth", trust=True)
    assert report.whole and sampler
    classifier = create_model("vit_small_patch16_224", num_classes=5)
    report = load_encoder(classifier, trained / "checkpoint-2.pth", trust=True)
    assert report.share(("fc_norm.", "head.")) == 1


def test_our_checkpoint_loads_in_its_fine_tuning_classes(fork, tmp_path):
    """Strictly, both networks: the state dictionaries of our models are those of theirs."""
    for name, options in (("pretrain_videomae_small_patch16_224", {"decoder_depth": 2}),
                          ("vit_small_patch16_224", {"num_classes": 5})):
        torch.save(create_model(name, **options).state_dict(), tmp_path / f"{name}.pth")
        code = (f"import fork_shims, sys, torch\nsys.path.insert(0, {str(fork)!r})\n"
                "import modeling_finetune, modeling_pretrain\n"
                f"model = fork_shims.old_create_model({name!r}, **{options})\n"
                f"model.load_state_dict(torch.load({str(tmp_path / f'{name}.pth')!r}))")
        subprocess.run([sys.executable, "-c", code], cwd=SHIMS.parent, check=True)
