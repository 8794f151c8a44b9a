"""SMOKE=1: rows from nothing to the filled-in table and the figure, on moving shapes."""

import json
import os
import signal
import subprocess

import numpy as np
import pytest
from dry_runs import SCRIPTS, VARIABLES, run_script
from PIL import Image
from tats.engines.tables import main, read_entries
from warm_python import interpreter

pytestmark = pytest.mark.slow
COLUMNS = ("videomae", "adamae", "tats", "random", "videomae_published", "adamae_published")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """`smoke(OUTPUT_ROOT)`: variables of a smoke run. All read the same videos, which the first makes."""
    videos = tmp_path_factory.mktemp("moving_shapes")
    with interpreter(tmp_path_factory.mktemp("python")) as python:
        def world(folder):
            folder.mkdir(exist_ok=True)
            if not (folder / "moving_shapes").exists():
                (folder / "moving_shapes").symlink_to(videos)
            return {"SMOKE": "1", "PYTHON": python, "OMP_NUM_THREADS": "1", "OUTPUT_ROOT": str(folder)}

        yield world


def assert_has_result(folder):
    result = json.loads((folder / "result.json").read_text())
    assert result["num_expected"] == result["num_evaluated"] == 16
    assert 0 <= result["top1"] <= result["top5"] <= 100


def test_a_row_from_its_lists_to_its_figure_in_one_command(smoke, tmp_path, request):
    """All columns with --long; else one of each kind, and VideoMAE's own masks in the transfer below."""
    columns = COLUMNS if request.config.getoption("--long") else COLUMNS[1:5]
    done = run_script("row.sh", "ucf101_r095", **smoke(tmp_path), METHODS=" ".join(columns), ROWS="0 5")
    assert done.returncode == 0, done.stderr[-3000:]
    for column in columns:
        assert_has_result(tmp_path / column / "finetune_ucf101_r095")
        assert len((tmp_path / column / "pretrain_ucf101_r095/log.txt").read_text().splitlines()) == 2
    assert sum(entry.ours is not None for entry in read_entries(tmp_path, ["1"])) == 2 * len(columns)
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("UCF101 0.95")]
    assert row.count("not run") == 2 * (len(COLUMNS) - len(columns))
    assert row.count("|") == 2 * (len(COLUMNS) - 1)   # no difference to the paper; none in random's
    assert row.count(" SMOKE") == 2 * len(columns)
    assert "our numbers below mean nothing" in done.stdout
    sheets = sorted(path.name for path in (tmp_path / "figures/figure_10").iterdir())
    assert sheets == ["000000-tats-r0.95.png", "000005-tats-r0.95.png"]
    width, height = Image.open(tmp_path / "figures/figure_10" / sheets[0]).size
    assert width > height > 6 * 120   # six rows of pictures: frames, reconstruction, error, probability, two masks
    first, second = (np.asarray(Image.open(tmp_path / "figures/figure_10" / name)) for name in sheets)
    assert (first != second).any()


def test_transfer_and_ablation_make_the_checkpoint_that_they_lack(smoke, tmp_path):
    done = run_script("transfer_ssv2_to_hmdb51_r090.sh", METHOD="videomae", **smoke(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "videomae/pretrain_ssv2_r090/finished").exists()
    assert_has_result(tmp_path / "videomae/transfer_ssv2_to_hmdb51_r090")
    assert run_script("ablation_3e.sh", "2", **smoke(tmp_path)).returncode == 0
    settings = json.loads((tmp_path / "tats/pretrain_3e_2/settings.json").read_text())["settings"]
    assert settings["sampler"]["tats_depth"] == 2
    assert_has_result(tmp_path / "tats/finetune_3e_2")


def test_table_5_stopped_in_the_middle_and_again(smoke, tmp_path):
    """SIGTERM in the second case; then the first is passed over, the second goes on, and both stand in the table."""
    world = {**{name: value for name, value in os.environ.items() if name not in VARIABLES}, **smoke(tmp_path)}
    command = [SCRIPTS / "table5.sh", "5_0,1", "5_1,1", "--epochs", "8", "--save_ckpt_freq", "1"]
    with subprocess.Popen(command, env=world, stderr=subprocess.PIPE, text=True) as table:
        for line in table.stderr:
            if "epoch 1/8" in line and (tmp_path / "tats/pretrain_5_0_1__epochs=8/finished").exists():
                table.send_signal(signal.SIGTERM)
        assert table.wait() == 143
    first = (tmp_path / "tats/pretrain_5_0_1__epochs=8/log.txt").read_text()
    assert first.count("\n") == 8
    done = subprocess.run(command, env=world, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "finished before: " in done.stderr and "resumed from" in done.stderr
    assert (tmp_path / "tats/pretrain_5_0_1__epochs=8/log.txt").read_text() == first
    epochs = [json.loads(line)["epoch"] for line in open(tmp_path / "tats/pretrain_5_1_1__epochs=8/log.txt")]
    assert epochs == list(range(8))
    assert "tats/pretrain_5_1_1__epochs=8" in done.stdout


def test_table_9(smoke, tmp_path, request):
    if not request.config.getoption("--long"):
        pytest.skip("the programs of Table 1 once more: --long")
    assert run_script("table9.sh", METHOD="tats", **smoke(tmp_path)).returncode == 0
    assert_has_result(tmp_path / "tats/finetune_ssv2full_r095")


def test_a_row_that_was_not_run_is_named(tmp_path, capsys):
    assert main([str(tmp_path), "--tables", "9", "--require"]) == 1
    assert "videomae/finetune_ssv2full_r095" in capsys.readouterr().err
