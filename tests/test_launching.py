"""What the scripts do around a program: launchers, columns, missing things, tables that go on, SLURM."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from dry_runs import SCRIPTS, dry_run, run_script
from script_world import FAKE_PYTHON, assert_ends_with_one_line, calls, make_program, make_world

ROW = "pretrain_ucf101_r095.sh"

# Saves for a while when it is told to end, as the programs do.
SLOW_PYTHON = r"""#!/usr/bin/env bash
[ "$1" != -c ] || exit 0
while [ $# -gt 0 ]; do if [ "$1" = --output_dir ]; then output=$2; fi; shift; done
end() { trap '' TERM USR1 INT; echo "saving $1" >>"$LOG"; sleep 1; mkdir -p "$output"; touch "$output/stopped";
    echo saved >>"$LOG"; exit 0; }
for name in TERM USR1 INT; do trap "end $name" $name; done
echo up >>"$LOG"
while :; do sleep .05; done
"""


@pytest.fixture
def world(tmp_path):
    """Variables of a machine on which everything is in place, and nothing runs."""
    return make_world(tmp_path)


@pytest.mark.parametrize(("environment", "launcher"), [
    ({"GPUS": "0"}, "python"),
    ({"GPUS": "1"}, "python"),
    ({"GPUS": "4"}, "python -m torch.distributed.run --nnodes=1 --nproc_per_node=4 --standalone"),
    ({"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "n0"},
     "python -m torch.distributed.run --nnodes=2 --nproc_per_node=8 --node_rank=1 --master_addr=n0 "
     "--master_port=29500"),
    ({"NNODES": "2", "SRUN": "srun", "MASTER_ADDR": "n0", "MASTER_PORT": "21000", "SLURM_JOB_ID": "7"},
     "srun python -m torch.distributed.run --nnodes=2 --nproc_per_node=8 --rdzv_backend=c10d --rdzv_endpoint=n0:21000 "
     "--rdzv_id=7"),
])
def test_launchers(environment, launcher):
    (command,) = dry_run(ROW, **environment)
    assert " ".join(command.launcher) == launcher
    assert (command.args.device == "cpu") == (environment.get("GPUS") == "0")


@pytest.mark.parametrize(("gpus", "nodes", "steps"), [
    ("0", "1", 8), ("1", "1", 8), ("2", "1", 4), ("8", "1", 1), ("4", "2", 1), ("8", "2", 1), ("3", "1", 3)])
def test_fewer_gpus_accumulate_to_the_same_batch(gpus, nodes, steps):
    (command,) = dry_run(ROW, GPUS=gpus, NNODES=nodes, MASTER_ADDR="n0")
    assert command.args.update_freq == steps


@pytest.mark.parametrize(("environment", "arguments", "mask_type", "column"), [
    ({}, [], "tats", "tats"),
    ({"METHOD": "videomae"}, [], "tube", "videomae"),
    ({"METHOD": "adamae"}, [], "adamae", "adamae"),
    ({"METHOD": "random"}, [], "random", "random"),
    ({}, ["--mask_type", "tube"], "tube", "videomae"),
    ({"METHOD": "adamae"}, ["--mask_type=learnable"], "adamae", "adamae"),
    ({"TATS_RECIPE": "ours"}, [], "tats", "tats_ours"),
])
def test_columns(environment, arguments, mask_type, column):
    (command,) = dry_run(ROW, *arguments, **environment)
    assert command.args.mask_type == mask_type
    assert command.args.output_dir == f"/out/{column}/{ROW[:-3]}"
    assert ("--tats_recipe" in command.words) == (mask_type == "tats")


def test_own_arguments_come_last_and_win():
    (command,) = dry_run(ROW, "--epochs", "1", "--output_dir", "/elsewhere", "--seed", "5")
    assert (command.args.epochs, command.args.output_dir, command.args.seed) == (1, "/elsewhere", 5)


def test_our_recipe_is_left_to_the_program():
    (command,) = dry_run(ROW, TATS_RECIPE="ours")
    assert (command.args.tats_recipe, command.args.sampler_lr, command.args.entropy_coef) == ("ours", None, None)


def test_smoke_is_tiny_and_needs_nothing():
    (command,) = dry_run(ROW, SMOKE="1", DATA_ROOT="")
    assert (command.args.model, command.args.data_set) == ("pretrain_tats_tiny", "moving-shapes")
    assert (command.args.epochs, command.args.device, command.args.update_freq) == (2, "cpu", 1)
    assert command.launcher == ["python"]


def test_missing_data_root(world):
    del world["DATA_ROOT"]
    assert_ends_with_one_line(run_script(ROW, **world), "set DATA_ROOT", "ucf101/train.csv")
    assert calls(world) == []


def test_missing_list(world):
    os.unlink(f"{world['DATA_ROOT']}/ssv2full/train.csv")
    done = run_script("pretrain_ssv2full_r095.sh", **world)
    assert_ends_with_one_line(done, "ssv2full/train.csv", "DATA_ROOT", "build_lists ssv2 ")
    os.unlink(f"{world['DATA_ROOT']}/ssv2/train.csv")
    assert_ends_with_one_line(run_script("pretrain_ssv2_r095.sh", **world), "build_lists ssv2 ", "--fraction val")
    assert calls(world) == []


def test_missing_checkpoint(world):
    done = run_script("transfer_k400_to_ucf101_r090.sh", METHOD="adamae", **world)
    assert_ends_with_one_line(done, "out/adamae/pretrain_k400_r090", "METHOD=adamae", "pretrain_k400_r090.sh",
                              "CHECKPOINT")
    done = run_script("finetune_ucf101_r095.sh", CHECKPOINT="/no.pth", **world)
    assert_ends_with_one_line(done, "CHECKPOINT=/no.pth")
    assert calls(world) == []


def test_unfinished_pretraining_is_no_checkpoint(world):
    folder = f"{world['OUTPUT_ROOT']}/tats/pretrain_ucf101_r095"
    os.makedirs(folder)
    open(f"{folder}/checkpoint-49.pth", "w").close()
    assert_ends_with_one_line(run_script("finetune_ucf101_r095.sh", **world), "no finished pre-training")


def test_missing_package(world, tmp_path):
    world["PYTHON"] = make_program(tmp_path / "bin/bare", "#!/bin/sh\nexit 1\n")
    assert_ends_with_one_line(run_script(ROW, **world), "tats is not installed", "setup_env.sh", "PYTHON")


@pytest.mark.parametrize("environment", [{"GPUS": "all"}, {"NNODES": "0"}, {"NNODES": "2"}])
def test_bad_machine(world, environment):
    assert_ends_with_one_line(run_script(ROW, **{**world, **environment}), *list(environment))


@pytest.mark.parametrize("words", [["--output_dir", "{}/own"], ["--output_dir={}/own"]])
def test_the_note_of_a_finished_run_goes_where_the_run_goes(world, words, tmp_path):
    (tmp_path / "own").mkdir()
    assert run_script(ROW, *(word.format(tmp_path) for word in words), **world).returncode == 0
    assert (tmp_path / "own/finished").exists()
    assert not os.path.exists(f"{world['OUTPUT_ROOT']}/tats/pretrain_ucf101_r095/finished")


@pytest.mark.parametrize(("visible", "launcher"), [("", 1), ("-1", 1), ("3", 1), ("0,2", 6)])
def test_visible_gpus_are_counted(visible, launcher):
    (command,) = dry_run(ROW, GPUS="", CUDA_VISIBLE_DEVICES=visible)
    assert len(command.launcher) == launcher and (command.args.device == "cpu") == (visible in ("", "-1"))


def test_a_failed_run_is_not_finished_any_more(world):
    folder = f"{world['OUTPUT_ROOT']}/adamae/pretrain_ucf101_r085"   # the one that fails here
    os.makedirs(folder)
    open(f"{folder}/finished", "w").close()
    assert run_script("pretrain_ucf101_r085.sh", METHOD="adamae", **world).returncode == 1
    assert not os.path.exists(f"{folder}/finished")


def test_a_run_that_a_signal_ended_is_not_finished_and_ends_a_table(world):
    make_program(Path(world["PYTHON"]), FAKE_PYTHON.replace("touch", 'touch "$output/stopped"'))
    done = run_script("table1.sh", "ucf101_r095", METHOD="tats", **world)
    assert done.returncode == 143 and "goes on" in done.stderr and len(calls(world)) == 1
    assert not os.path.exists(f"{world['OUTPUT_ROOT']}/tats/pretrain_ucf101_r095/finished")


def test_finetuning_takes_the_last_checkpoint_of_the_finished_run(world):
    assert run_script(ROW, **world).returncode == 0
    assert run_script("finetune_ucf101_r095.sh", **world).returncode == 0
    line = open(world["CALLS"]).read().splitlines()[-1]
    assert f"--finetune {world['OUTPUT_ROOT']}/tats/pretrain_ucf101_r095/checkpoint-399.pth" in line


def test_a_table_goes_on_after_a_failed_row_and_passes_over_what_is_finished(world):
    done = run_script("table1.sh", "ucf101_r085", "ucf101_r090", **world)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: 1 of 6 rows failed: METHOD=adamae pretrain_ucf101_r085"
    first = calls(world)
    pairs = [(method, row) for row in ("ucf101_r085", "ucf101_r090") for method in ("videomae", "adamae", "tats")]
    expected = []
    for method, row in pairs:
        expected.append(("run_mae_pretraining", f"{method}/pretrain_{row}"))
        if (method, row) != ("adamae", "ucf101_r085"):
            expected.append(("run_class_finetuning", f"{method}/finetune_{row}"))
    assert first == [*expected, ("tables", "")]
    run_script("table1.sh", "ucf101_r085", "ucf101_r090", **world)
    assert calls(world)[len(first):] == [("run_mae_pretraining", "adamae/pretrain_ucf101_r085"), ("tables", "")]
    run_script("table1.sh", "ucf101_r090", "--epochs", "7", METHOD="tats", **world)   # other settings: not finished
    assert calls(world)[len(first) + 2:] == [
        ("run_mae_pretraining", "tats/pretrain_ucf101_r090__epochs=7"),
        ("run_class_finetuning", "tats/finetune_ucf101_r090__from_epochs=7__epochs=7"), ("tables", "")]


def test_table_3_shares_the_usual_case_with_table_1(world):
    assert run_script("table1.sh", "ucf101_r095", METHOD="tats", **world).returncode == 0
    before = len(calls(world))
    assert run_script("table3.sh", "3b", **world).returncode == 0
    assert [folder for _, folder in calls(world)[before:]] == [
        f"tats/{kind}_3b_{depth}" for depth in (1, 2, 8) for kind in ("pretrain", "finetune")] + [""]


@pytest.mark.parametrize(("table", "rows"), [("table1.sh", 36), ("table2.sh", 45), ("table3.sh", 13), ("table9.sh", 3)])
def test_tables_list_their_rows(table, rows):
    done = run_script(table, LIST_ROWS="1")
    assert len(set(done.stdout.splitlines())) == rows
    assert_ends_with_one_line(run_script(table, "nothing", LIST_ROWS="1"), "no row like 'nothing'")


def test_slurm_submits_a_row_and_a_table(world, tmp_path):
    world["PATH"] = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    make_program(tmp_path / "bin/sbatch", '#!/bin/sh\nfor word; do echo "$word"; done\n')
    words = run_script("slurm.sh", ROW, "--seed", "2", NNODES="2", **world).stdout.splitlines()
    assert {"--nodes=2", "--gpus-per-node=8", "--ntasks-per-node=1", "--requeue", f"--job-name={ROW[:-3]}"} < set(words)
    assert words[-1].split() == ["exec", "bash", str(SCRIPTS / "slurm.sh"), "--inside", ROW, "--seed", "2"]
    words = run_script("slurm.sh", "table1.sh", "ucf101", MAX_TASKS="4", **world).stdout.splitlines()
    assert "--array=0-8%4" in words
    done = run_script("slurm.sh", "pretrain_ucf101.sh", **world)
    assert_ends_with_one_line(done, "no script", "pretrain_ucf101.sh")


def test_slurm_task_runs_its_row(world, tmp_path):
    world |= {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_ID": "9", "SLURM_JOB_NODELIST": "n[1-2]",
              "SLURM_ARRAY_TASK_ID": "5", "NNODES": "2"}
    make_program(tmp_path / "bin/scontrol", "#!/bin/sh\nprintf 'n1\\nn2\\n'\n")
    make_program(tmp_path / "bin/srun", '#!/bin/sh\n[ "$SRUN_CPUS_PER_TASK" = 96 ] && exec "$@"\n')
    done = run_script("slurm.sh", "--inside", "table1.sh", "ucf101", "--seed", "4", **world)
    assert done.returncode == 0, done.stderr
    assert calls(world) == [("run_mae_pretraining", "tats/pretrain_ucf101_r090__seed=4"),
                            ("run_class_finetuning", "tats/finetune_ucf101_r090__seed=4"), ("tables", "")]
    lines = open(world["CALLS"]).read().splitlines()
    assert all("--rdzv_endpoint=n1:20009" in line and line.endswith("--seed 4") for line in lines[:2])


def test_slurm_queues_the_job_again_once_it_is_saved(world, tmp_path):
    """The signal reaches the program through all scripts; requeue comes after its end, which takes a while."""
    world |= {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_ID": "9", "SLURM_JOB_NODELIST": "n1",
              "LOG": str(tmp_path / "log")}
    world["PYTHON"] = make_program(tmp_path / "bin/slow", SLOW_PYTHON)
    make_program(tmp_path / "bin/scontrol", '#!/bin/sh\n[ "$1" = show ] && echo n1 || echo "$*" >>"$LOG"\n')
    for script, row in ((ROW, []), ("table1.sh", ["ucf101_r095"])):
        job = subprocess.Popen([SCRIPTS / "slurm.sh", "--inside", script, *row], env={**os.environ, **world})
        wait_for(tmp_path / "log", "up\n")
        job.send_signal(signal.SIGUSR1)
        assert job.wait(timeout=120) == 143
        assert (tmp_path / "log").read_text() == "up\nsaving USR1\nsaved\nrequeue 9\n"
        (tmp_path / "log").unlink()


@pytest.mark.parametrize("name", ["TERM", "USR1", "INT"])
def test_a_signal_to_a_script_reaches_its_program_and_waits_for_it(name, world, tmp_path):
    world |= {"LOG": str(tmp_path / "log"), "PYTHON": make_program(tmp_path / "bin/slow", SLOW_PYTHON)}
    for script in ([ROW], ["table1.sh", "ucf101_r095"]):
        job = subprocess.Popen([SCRIPTS / script[0], *script[1:]], env={**os.environ, **world}, stderr=subprocess.PIPE)
        wait_for(tmp_path / "log", "up\n")
        for _ in range(3):   # impatience changes nothing
            job.send_signal(getattr(signal, f"SIG{name}"))
            time.sleep(.1)
        assert job.wait(timeout=120) == 143
        lines = (tmp_path / "log").read_text().splitlines()
        assert (lines[0], lines[1], lines[-1]) == ("up", f"saving {name}", "saved")
        (tmp_path / "log").unlink()


def wait_for(path, text):
    end = time.monotonic() + 120
    while not path.exists() or path.read_text() != text:
        assert time.monotonic() < end, path.read_text() if path.exists() else "nothing"
        time.sleep(.02)


def test_deepspeed_is_asked_for_before_anything_is_trained(world):
    answer = 'case "$1 $2" in *deepspeed*) exit 1 ;; -c*) exit 0 ;; esac'
    make_program(Path(world["PYTHON"]), FAKE_PYTHON.replace('[ "$1" != -c ] || exit 0', answer))
    for script in (("table1.sh", "ucf101_r095"), ("finetune_ucf101_r095.sh",), ("table2.sh", "k400_to_ucf101_r095")):
        assert_ends_with_one_line(run_script(*script, **world), "setup_env.sh deepspeed", "DEEPSPEED=0")
    assert calls(world) == []
    assert run_script("table1.sh", "ucf101_r095", DEEPSPEED="0", **world).returncode == 0


def test_seeds_and_variants_have_folders_of_their_own(world):
    run_script("table1.sh", "ucf101_r095", METHOD="tats", SEEDS="0 1", **world)
    run_script("table1.sh", "ucf101_r095", "--lr", "1e-2", METHOD="tats", **world)
    folders = [folder for _, folder in calls(world) if folder]
    assert folders == [f"tats/{kind}_ucf101_r095{suffix}" for suffix in ("", "__seed=1") for kind in (
        "pretrain", "finetune")] + ["tats/pretrain_ucf101_r095__lr=0.01",
                                    "tats/finetune_ucf101_r095__from_lr=0.01__lr=0.01"]
    words = open(world["CALLS"]).read()
    assert f"--finetune {world['OUTPUT_ROOT']}/tats/pretrain_ucf101_r095__seed=1/checkpoint-399.pth" in words
    rows = run_script("table1.sh", "ucf101_r095", METHOD="tats", SEEDS="0 1", LIST_ROWS="1").stdout.splitlines()
    assert rows == ["tats ucf101_r095 0", "tats ucf101_r095 1"]


def test_a_refused_run_keeps_its_mark(world):
    """Exit code 2 and an untouched settings.json: what is finished there stays finished."""
    folder = Path(world["OUTPUT_ROOT"]) / "tats/pretrain_ucf101_r095"
    folder.mkdir(parents=True)
    (folder / "finished").write_text("note")
    (folder / "settings.json").write_text("{}")
    for text, kept in (("exit 2", True), ('echo >"$output/settings.json"; exit 2', False)):
        make_program(Path(world["PYTHON"]), FAKE_PYTHON.replace('"") exit 0 ;;', f'*) {text} ;;'))
        assert run_script(ROW, **world).returncode == 2
        assert (folder / "finished").exists() == kept
