"""SMOKE=1: rows from nothing to the filled-in table, on moving shapes."""

import json
import subprocess
import sys

import pytest
from dry_runs import run_script
from tats.engines.tables import read_entries

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """An OUTPUT_ROOT that the tests below fill one after the other."""
    return tmp_path_factory.mktemp("smoke")


def smoke(out, name, *arguments, **environment):
    done = run_script(name, *arguments, SMOKE="1", OUTPUT_ROOT=str(out), PYTHON=sys.executable, OMP_NUM_THREADS="1",
                      **environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def assert_has_result(folder):
    result = json.loads((folder / "result.json").read_text())
    assert result["num_expected"] == result["num_evaluated"] == 16
    assert 0 <= result["top1"] <= result["top5"] <= 100


def test_table_1_in_one_command(out):
    done = smoke(out, "table1.sh", "ucf101_r095")
    for method in ("videomae", "adamae", "tats"):
        assert_has_result(out / method / "finetune_ucf101_r095")
        assert len((out / method / "pretrain_ucf101_r095/log.txt").read_text().splitlines()) == 2
    assert sum(entry.ours is not None for entry in read_entries(out, ["1"])) == 6
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("UCF101 0.95")]
    assert "not run" not in row and row.count("|") == 12


def test_transfer_makes_the_checkpoint_that_it_lacks(out):
    smoke(out, "transfer_ssv2_to_hmdb51_r090.sh", METHOD="videomae")
    assert (out / "videomae/pretrain_ssv2_r090/finished").exists()
    assert_has_result(out / "videomae/transfer_ssv2_to_hmdb51_r090")


def test_ablation(out):
    smoke(out, "ablation_3e.sh", "2")
    settings = json.loads((out / "tats/pretrain_3e_2/settings.json").read_text())["settings"]
    assert settings["sampler"]["tats_depth"] == 2
    assert_has_result(out / "tats/finetune_3e_2")


def test_table_9(out, request):
    if not request.config.getoption("--long"):
        pytest.skip("the programs of Table 1 once more: --long")
    smoke(out, "table9.sh", METHOD="tats")
    assert_has_result(out / "tats/finetune_ssv2full_r095")


def test_a_row_that_was_not_run_is_named(out):
    (out / "tats").mkdir(exist_ok=True)
    done = subprocess.run([sys.executable, "-m", "tats.engines.tables", out, "--tables", "9", "--require"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "videomae/finetune_ssv2full_r095" in done.stderr
