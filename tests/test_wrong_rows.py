"""What a reproducer gets wrong, or leaves half done: one line and exit code 2, or the right thing."""

import os
import re
import sys
from pathlib import Path

import pytest
from dry_runs import SCRIPTS, dry_run, run_script
from script_world import FAKE_PYTHON, assert_ends_with_one_line, calls, make_program, make_world


@pytest.fixture
def world(tmp_path):
    """Variables of a machine on which everything is in place, and nothing runs."""
    return make_world(tmp_path)


@pytest.mark.parametrize(("script", "words", "environment", "said"), [
    ("pretrain_ucf101_r095.sh", [], {"METHOD": "tats2"}, "METHOD"),
    ("pretrain_ucf101_r095.sh", ["--mask_type", "tubes"], {}, "--mask_type"),
    ("finetune_ucf101_r095.sh", [], {"METHOD": "random_published"}, "random_published"),
    ("pretrain_ucf101_r095.sh", [], {"BASELINES": "publised"}, "BASELINES"),
    ("pretrain_ucf101_r095.sh", [], {"TATS_RECIPE": "papers"}, "TATS_RECIPE"),
    ("pretrain_ucf101_r095.sh", [], {"SEED": "1,2"}, "SEED"),
    ("pretrain_ucf101_r095.sh", ["--seed", "one"], {}, "--seed"),
    ("table1.sh", ["ucf101_r095"], {"METHODS": "videomae,tats"}, "'videomae,tats'"),
    ("table1.sh", ["ucf101_r095"], {"METHODS": "videomae tast"}, "'tast'"),
    ("table1.sh", ["ucf101_r095"], {"SEEDS": "0,1,2"}, "spaces between"),
    ("table1.sh", ["ucf101_r095"], {"BASELINES": "publised"}, "BASELINES"),
    ("table1.sh", ["ucf101_r059"], {}, "its rows: ucf101_r085"),
    ("table5.sh", [], {"SEEDS": "0,1"}, "SEED"),
    ("ablation_5.sh", ["10,2"], {}, "has the cases"),
    ("ablation_5.sh", ["10,1"], {"METHOD": "tats", "TATS_RECIPE": "papers"}, "TATS_RECIPE"),
    ("figures.sh", ["1"], {}, "2 to 15"),
    ("figures.sh", ["10"], {"ROWS": "0,1"}, "ROWS"),
    ("figures.sh", ["10"], {"COMPARE": "adame"}, "'adame'"),
    ("row.sh", ["ssv2full_r095"], {}, "a row of Table 1"),
    ("row.sh", ["ucf101_r095"], {"METHODS": "tast"}, "'tast'"),
    ("rehearse.sh", ["k400"], {}, "a row of Table 1 or 9"),
])
def test_misspelt_settings_are_named_once_and_nothing_runs(world, script, words, environment, said):
    assert_ends_with_one_line(run_script(script, *words, **{**world, **environment}), said)
    assert calls(world) == []


def test_the_strategies_that_the_scripts_know_are_those_of_the_registry(world):
    """--plugin may bring in others."""
    source = (SCRIPTS.parent / "masking/registry.py").read_text()   # other tests add rows to the table itself
    names = re.findall(r'^    "(\w+)": Masking\(', source, re.MULTILINE)
    assert {"tube", "tats"} < set(names)
    for name in names:
        assert dry_run("pretrain_ucf101_r095.sh", "--mask_type", name)[0].args.mask_type == name
    done = run_script("pretrain_ucf101_r095.sh", "--plugin", "mine.py", METHOD="mine", DRY_RUN="1", **world)
    assert done.returncode == 0 and "--mask_type mine " in done.stdout


@pytest.mark.parametrize(("column", "mask_type", "recipe", "batch"), [
    ("videomae_published", "tube", "ours", 24), ("adamae_published", "adamae", "ours", 32),
    ("tats_ours", "tats", "ours", 32)])
def test_columns_by_their_name(column, mask_type, recipe, batch):
    (command,) = dry_run("pretrain_ucf101_r095.sh", METHOD=column)
    assert command.args.output_dir == f"/out/{column}/pretrain_ucf101_r095"
    assert (command.args.mask_type, command.args.tats_recipe, command.args.batch_size) == (mask_type, recipe, batch)


def test_table_2_without_its_pretraining(world):
    done = run_script("transfer_ssv2_to_ucf101_r095.sh", **world)
    assert_ends_with_one_line(done, "no finished pre-training", "tats/pretrain_ssv2_r095", "pretrain_ssv2_r095.sh")
    done = run_script("table2.sh", "ssv2_to_ucf101_r095", **world)
    assert done.returncode == 1 and done.stderr.count("no finished pre-training") == 3
    assert done.stderr.splitlines()[-1].startswith("error: 3 of 3 rows failed: METHOD=videomae transfer_ssv2_to_ucf101")
    assert calls(world) == [("tables", "")]   # which says "not run"


def finish(world, *runs):
    for run in runs:
        folder = Path(world["OUTPUT_ROOT"]) / run
        folder.mkdir(parents=True)
        for name in ("finished", "checkpoint-399.pth"):
            (folder / name).touch()


def test_figures_without_a_checkpoint_of_that_ratio(world):
    finish(world, "tats/pretrain_ucf101_r095", "adamae/pretrain_ucf101_r095", "tats/pretrain_ucf101_r090")
    done = run_script("figures.sh", "11", **world)
    assert_ends_with_one_line(done, "adamae/pretrain_ucf101_r090", "METHOD=adamae", "pretrain_ucf101_r090.sh")
    assert_ends_with_one_line(run_script("figures.sh", "12", COMPARE="random", **world), "METHOD=tats",
                              "pretrain_ucf101_r085.sh")
    assert calls(world) == []
    done = run_script("figures.sh", "11", "10", "2", **world)   # what is there is drawn
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("error: 4 of 6 sheets were not drawn: "
                                                                            "figure 11, ucf101; figure 2, k400; ")
    drawn = Path(world["CALLS"]).read_text().splitlines()
    assert [line.split("--out ")[1].split()[0] for line in drawn] == [
        f"{world['OUTPUT_ROOT']}/figures/figure_{name}" for name in ("10", "02/ucf101")]


def test_figures_of_another_seed_and_of_other_columns(world):
    finish(world, "tats/pretrain_hmdb51_r085__seed=2", "adamae_published/pretrain_hmdb51_r085__seed=2",
           "adamae/pretrain_hmdb51_r085__seed=2")
    done = run_script("figures.sh", "15", SEED="2", COMPARE="adamae_published adamae videomae random", **world)
    assert done.returncode == 0, done.stderr
    (line,) = Path(world["CALLS"]).read_text().splitlines()
    root = world["OUTPUT_ROOT"]
    assert f"--checkpoint {root}/tats/pretrain_hmdb51_r085__seed=2/checkpoint-399.pth" in line
    assert line.endswith(f"--compare {root}/adamae_published/pretrain_hmdb51_r085__seed=2/checkpoint-399.pth "
                         f"{root}/adamae/pretrain_hmdb51_r085__seed=2/checkpoint-399.pth tube random")


def test_a_row_with_all_columns_and_its_figure():
    commands = dry_run("row.sh", "hmdb51_r090", "--epochs", "3")
    columns = ("videomae", "adamae", "tats", "random", "videomae_published", "adamae_published")
    pairs, drawing = commands[:-1], commands[-1].args
    assert [command.args.output_dir for command in pairs] == [
        f"/out/{column}/{run}__epochs=3" for column in columns
        for run in ("pretrain_hmdb51_r090", "finetune_hmdb51_r090__from_epochs=3")]
    assert str(drawing.out) == "/out/figures/figure_14" and drawing.data_path == "/data/hmdb51/test.csv"
    assert str(drawing.checkpoint) == "/out/tats/pretrain_hmdb51_r090__epochs=3/checkpoint-399.pth"
    assert drawing.compare == ["/out/adamae/pretrain_hmdb51_r090__epochs=3/checkpoint-399.pth"]


def test_table_5_stopped_in_the_middle_goes_on(world):
    """The second case is stopped, saved; the next start passes over the first and goes on with the second."""
    stopping = 'case $output in *_5_1_1) if mkdir "$CALLS.once" 2>/dev/null; then touch "$output/stopped"; fi ;; esac'
    make_program(Path(world["PYTHON"]), f"{FAKE_PYTHON}\n{stopping}\n")
    done = run_script("table5.sh", "5_0,1", "5_1,1", "5_5,1", **world)
    first = calls(world)
    assert done.returncode == 143 and "the same command goes on" in done.stderr
    assert first == [("run_mae_pretraining", f"tats/pretrain_5_{case}_1") for case in (0, 1)]
    done = run_script("table5.sh", "5_0,1", "5_1,1", "5_5,1", **world)
    assert done.returncode == 0, done.stderr
    assert calls(world)[len(first):] == [*(("run_mae_pretraining", f"tats/pretrain_5_{case}_1") for case in (1, 5)),
                                         ("tables", "")]
    assert "finished before" in done.stderr


@pytest.mark.parametrize(("script", "words", "module"), [
    ("pretrain_k400_r095.sh", ["--tats_approx", "none"], "run_mae_pretraining"),
    ("finetune_k400_r095.sh", [], "run_class_finetuning")])
def test_explain_of_a_row_starts_one_process_and_leaves_nothing(world, script, words, module):
    """No data, no checkpoint, no launcher of eight processes."""
    done = run_script(script, *words, "--explain", **{**world, "DATA_ROOT": ""})
    assert done.returncode == 0, done.stderr
    (line,) = Path(world["CALLS"]).read_text().splitlines()
    assert line.startswith(f"-m tats.engines.{module} @{SCRIPTS}/settings/") and line.endswith("--explain")
    run_script("table1.sh", "k400_r095", "--explain", METHOD="tats", **world)
    assert [name for name, _ in calls(world)[1:]] == ["run_mae_pretraining", "run_class_finetuning"]
    assert not os.path.exists(f"{world['OUTPUT_ROOT']}/tats/{script[:-3]}/finished")


@pytest.mark.parametrize(("value", "smokes"), [("0", False), ("false", False), ("no", False), ("Off", False),
                                               ("", False), ("1", True), ("true", True), ("Yes", True)])
def test_a_switch_is_on_or_off_by_its_word(value, smokes):
    done = run_script("pretrain_ucf101_r095.sh", SMOKE=value, DRY_RUN="yes", DATA_ROOT="/data", GPUS="8")
    assert done.returncode == 0, done.stderr
    assert ("pretrain_smoke.args" in done.stdout) == smokes


@pytest.mark.parametrize("name", ["SMOKE", "DRY_RUN", "ANY_SIZE", "DEEPSPEED"])
def test_a_switch_of_another_word_is_refused(name):
    for script in (["pretrain_ucf101_r095.sh"], ["table1.sh"], ["slurm.sh", "table1.sh"]):
        assert_ends_with_one_line(run_script(*script, **{name: "2"}), f"{name} is on", "'2'")


@pytest.mark.parametrize("word", ["--help", "-h", "--version"])
def test_a_question_marks_no_run_as_finished(tmp_path, word):
    """The program ends well when it has printed its help: its half a run would be taken for a whole one."""
    world = make_world(tmp_path)
    half = tmp_path / "out/tats/pretrain_ucf101_r095"
    half.mkdir(parents=True)
    (half / "checkpoint-3.pth").touch()
    for script, row in (("pretrain_ucf101_r095.sh", []), ("table1.sh", ["ucf101_r095"]), ("row.sh", ["ucf101_r095"]),
                        ("figures.sh", ["10"])):
        done = run_script(script, *row, word, **world)
        assert done.returncode == (2 if word == "--version" else 0)
        assert not (half / "finished").exists() and calls(world) == []
        assert word == "--version" or done.stdout.strip()


def test_extras_and_help_of_the_setup_are_looked_at_before_anything_is_installed(tmp_path):
    where = {"VENV": str(tmp_path / "venv")}
    done = run_script("setup_env.sh", "deepspeeed", **where)
    assert done.returncode == 2 and "no extras 'deepspeeed'" in done.stderr
    for script in ("setup_env.sh", "check_gpu.sh", "demo.sh", "test.sh", "test_floors.sh"):
        done = run_script(script, "--help", **where)
        assert done.returncode == 0 and f"run_scripts/{script}" in done.stdout
    for words in (["--seed"], ["--long", "--mask_type"]):
        done = run_script("demo.sh", *words, **where)
        assert done.returncode == 2 and done.stderr == f"demo.sh: {words[-1]} needs a value\n"
    assert not (tmp_path / "venv").exists()


def test_the_demo_without_transformers_says_so_in_one_line(tmp_path):
    (tmp_path / "transformers.py").write_text("raise ImportError('a part of it is missing')")
    done = run_script("demo_transformers.sh", "--seed", "1", PYTHON=sys.executable, PYTHONPATH=str(tmp_path))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "(ImportError: a part of it is missing): pip install" in done.stderr


def test_commands_in_errors_can_be_copied(tmp_path):
    """Also where a folder's name has a space."""
    world = make_world(tmp_path) | {"DATA_ROOT": str(tmp_path / "my data")}
    done = run_script("pretrain_ucf101_r095.sh", **world)
    assert_ends_with_one_line(done, f"--out {tmp_path}/my\\ data/ucf101")


def test_a_missing_list_is_said_once_before_anything_runs(tmp_path):
    """Not once a column; the rows of other data sets run all the same."""
    world = make_world(tmp_path)
    (tmp_path / "data/ucf101/val.csv").unlink()
    done = run_script("row.sh", "ucf101_r095", **world)
    assert_ends_with_one_line(done, "ucf101/val.csv", "DATA_ROOT")
    assert calls(world) == []
    done = run_script("table1.sh", "r095", METHODS="tats random", **world)
    assert done.returncode == 1 and done.stderr.count("no list") == 1
    assert "2 of 8 rows failed: METHOD=tats pretrain_ucf101_r095 METHOD=random pretrain_ucf101_r095" in done.stderr
    ran = {folder for _, folder in calls(world) if folder}
    assert {"tats/pretrain_k400_r095", "random/finetune_ssv2_r095"} <= ran and not any("ucf101" in one for one in ran)
    (tmp_path / "data/hmdb51/train.csv").unlink()
    done = run_script("table5.sh", "5_hmdb51", **world)
    assert_ends_with_one_line(done, "hmdb51/train.csv")
    (tmp_path / "data/k400/test.csv").unlink()
    done = run_script("figures.sh", "4", "5", "10", **world)
    assert done.returncode == 1 and done.stderr.count("no list") == 1
    assert "figure 4, k400; figure 5, k400" in done.stderr
