"""SMOKE=1: rows from nothing to the filled-in table, on moving shapes."""

import json
import subprocess
import sys

import pytest
from dry_runs import run_script
from tats.engines.tables import read_entries

pytestmark = pytest.mark.slow


def smoke(out, name, *arguments, **environment):
    done = run_script(name, *arguments, SMOKE="1", OUTPUT_ROOT=str(out), PYTHON=sys.executable, OMP_NUM_THREADS="1",
                      **environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def assert_has_result(folder):
    result = json.loads((folder / "result.json").read_text())
    assert result["num_expected"] == result["num_evaluated"] == 16
    assert 0 <= result["top1"] <= result["top5"] <= 100


def test_table_1_in_one_command(tmp_path):
    done = smoke(tmp_path, "table1.sh", "ucf101_r095", METHODS="adamae tats")   # videomae: see the transfer below
    for method in ("adamae", "tats"):
        assert_has_result(tmp_path / method / "finetune_ucf101_r095")
        assert len((tmp_path / method / "pretrain_ucf101_r095/log.txt").read_text().splitlines()) == 2
    assert sum(entry.ours is not None for entry in read_entries(tmp_path, ["1"])) == 4
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("UCF101 0.95")]
    assert (row.count("not run"), row.count("|")) == (8, 14)   # the baselines' own scripts and random, too


def test_transfer_makes_the_checkpoint_that_it_lacks(tmp_path):
    smoke(tmp_path, "transfer_ssv2_to_hmdb51_r090.sh", METHOD="videomae")
    assert (tmp_path / "videomae/pretrain_ssv2_r090/finished").exists()
    assert_has_result(tmp_path / "videomae/transfer_ssv2_to_hmdb51_r090")


def test_ablation(tmp_path):
    smoke(tmp_path, "ablation_3e.sh", "2")
    settings = json.loads((tmp_path / "tats/pretrain_3e_2/settings.json").read_text())["settings"]
    assert settings["sampler"]["tats_depth"] == 2
    assert_has_result(tmp_path / "tats/finetune_3e_2")


def test_table_9(tmp_path, request):
    if not request.config.getoption("--long"):
        pytest.skip("the programs of Table 1 once more: --long")
    smoke(tmp_path, "table9.sh", METHOD="tats")
    assert_has_result(tmp_path / "tats/finetune_ssv2full_r095")


def test_a_row_that_was_not_run_is_named(tmp_path):
    (tmp_path / "tats").mkdir(exist_ok=True)
    done = subprocess.run([sys.executable, "-m", "tats.engines.tables", tmp_path, "--tables", "9", "--require"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "videomae/finetune_ssv2full_r095" in done.stderr
