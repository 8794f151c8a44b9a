"""A signal, wherever it meets a run and whoever gets it: saved, whole, then ended; and nobody is left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from dry_runs import SCRIPTS
from tats.engines import engine_for_finetuning
from tats.engines.core import checkpointing
from tats.engines.core.interrupts import Interrupts
from tats.engines.core.runtime import Runtime
from tats.engines.run_class_finetuning import main as finetune
from tats.engines.run_mae_pretraining import main as pretrain
from tiny_runs import assert_equal_states, final_state, finetuning_flags, log_lines, small_pretraining_flags

HERE = Path(__file__).parent
CODES = {"SIGTERM": 0, "SIGUSR1": 0, "SIGINT": 130}
ends_a_run = [pytest.mark.faults, pytest.mark.slow,
              pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="looks for orphans in Linux's /proc")]


MORE = ("--save_ckpt_freq", "1", "--model_ema", "--keep_last", "2", "--keep_every", "0")


@pytest.fixture(scope="module")
def whole(shapes, tmp_path_factory):
    """(folder of a fine-tuning that nobody interrupts, its result)."""
    out = tmp_path_factory.mktemp("whole") / "out"
    return out, finetune(finetuning_flags(shapes, out, *MORE))


@pytest.mark.faults
@pytest.mark.parametrize(("name", "call"), [("SIGTERM", 1), ("SIGUSR1", 2), ("SIGINT", 3)])
def test_a_signal_in_an_evaluation(name, call, whole, shapes, tmp_path, monkeypatch, fault):
    """In the first and the second validation, and in the test."""
    checkpoints = {1: ["epoch-0-step-3.pth"], 2: ["epoch-1-step-6.pth", "checkpoint-0.pth"],
                   3: ["checkpoint-1.pth", "checkpoint-0.pth"]}[call]
    out, real, calls = tmp_path / "out", engine_for_finetuning.evaluate_rows, []

    def evaluate_rows(loader, *arguments):
        calls.append(loader)
        if 1 + (len(calls) - 1) // 2 == call and len(calls) % 2 == 1:   # each validation is of the weights and of EMA
            os.kill(os.getpid(), getattr(signal, name))
        return real(loader, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(engine_for_finetuning, "evaluate_rows", evaluate_rows)
        with pytest.raises(SystemExit) as stopped:
            finetune(finetuning_flags(shapes, out, *MORE))
    assert stopped.value.code == CODES[name] and (out / "stopped").read_text().startswith(name)
    assert [path.name for _, path in checkpointing.numbered_checkpoints(out)] == checkpoints
    assert not (out / "result.json").exists()
    again = finetune(finetuning_flags(shapes, out, *MORE))
    assert {**again, "checkpoint_sha256": 0} == {**whole[1], "checkpoint_sha256": 0}
    assert_equal_states(final_state(out), final_state(whole[0]))
    assert log_lines(out) == log_lines(whole[0])
    place = "a test" if call == 3 else "a validation"
    fault(f"{name} within {place}", "saved at the next batch, ended; went on bit-exactly", "nothing")


def test_ctrl_c_is_one_signal_however_often_it_is_handed_on(monkeypatch):
    """The terminal's and the launcher's SIGINT are one; a later one ends the process at once."""
    clock = [10.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    interrupts = Interrupts(Runtime("cpu"))
    interrupts._note(signal.SIGINT, None)
    clock[0] += 1
    interrupts._note(signal.SIGINT, None)
    assert interrupts.agreed() == "SIGINT"
    clock[0] += 5
    with pytest.raises(KeyboardInterrupt):
        interrupts._note(signal.SIGINT, None)


def test_checkpoints_by_the_clock(shapes, tmp_path, monkeypatch):
    """A minute passes with each look at the clock of a run: one checkpoint in three steps."""
    from tats.engines.runs import resumable

    clock = iter(range(0, 10**6, 60))
    monkeypatch.setattr(resumable, "time", SimpleNamespace(monotonic=lambda: next(clock), time=time.time))
    pretrain(small_pretraining_flags(shapes, tmp_path, "--epochs", "1", "--save_every_minutes", "3", "--keep_last",
                                     "0"))
    names = {path.name for _, path in checkpointing.numbered_checkpoints(tmp_path)}
    assert names == {"epoch-0-step-3.pth", "epoch-0-step-6.pth", "checkpoint-0.pth"}


def processes_with(word):
    """Numbers of the processes whose command line holds `word`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def wait_for(condition, what, seconds=200):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(.05)


@pytest.fixture
def launched(shapes, tmp_path):
    """(folder of a run of two processes that is in its second epoch or later, its launcher, the script around it)."""
    out = tmp_path / "out"
    begun = []

    def begin(launcher, *more, seconds=0):
        words = small_pretraining_flags(shapes, out, "--epochs", "3000", "--num_workers", "1", *more)
        lines = f'source {SCRIPTS}/lib/supervise.sh; supervise "$@"'
        fault = json.dumps({"rank": 0, "kind": "slow save", "seconds": seconds})
        command = ["bash", "-euc", lines, "bash", sys.executable, *launcher, str(HERE / "forked_runs.py"), *words]
        log = open(tmp_path / "log", "w")
        environment = os.environ | {"OMP_NUM_THREADS": "1", "FAULT": fault, "DS_ACCELERATOR": "cpu"}
        begun.append(subprocess.Popen(command, env=environment, stderr=log, stdout=log, start_new_session=True))
        wait_for(lambda: begun[0].poll() is not None or (
            (out / "log.txt").is_file() and len((out / "log.txt").read_text().splitlines()) > 0),
            "the run does not begin")
        assert begun[0].poll() is None, (tmp_path / "log").read_text()[-3000:]
        return out, begun[0]

    yield begin
    for pid in processes_with(str(out)):
        os.kill(pid, signal.SIGKILL)


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")


def child_of(pid):
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


DEEPSPEED = ("-m", "deepspeed.launcher.runner", "--num_gpus=2", "--master_port=29643")


@pytest.mark.parametrize(("who", "name"), [("launcher", "SIGTERM"), ("below", "SIGTERM")])
def test_a_signal_to_two_processes_of_deepspeed(who, name, launched, fault):
    """launcher: the command `deepspeed`, which hands nothing on and dies; below: what it starts, and what trains."""
    pytest.importorskip("deepspeed")
    out, script = launched(DEEPSPEED)
    launcher = child_of(script.pid)
    os.kill({"launcher": launcher, "below": child_of(launcher)}[who], getattr(signal, name))
    wait_for(lambda: not processes_with(str(out)), "somebody is left behind")
    (newest,) = [path for _, path in checkpointing.numbered_checkpoints(out)]
    assert newest.name.startswith("epoch-") and checkpointing.load(newest)["identity"]["hash"]
    assert (out / "stopped").is_file()
    fault(f"{name} to {'the command deepspeed' if who == 'launcher' else 'its launcher'}", "saved, then all ended",
          "nothing")


test_a_signal_to_two_processes_of_deepspeed.pytestmark += ends_a_run


@pytest.mark.parametrize(("who", "name", "seconds"), [
    ("script", "SIGTERM", 40), ("script", "SIGINT", 0), ("launcher", "SIGUSR1", 0), ("trainer", "SIGTERM", 0),
    ("launcher", "SIGKILL", 0)])   # what a script hands on, test_launching.py tries for each signal
def test_a_signal_to_two_processes_of_torchrun(who, name, seconds, launched, fault):
    out, script = launched(TORCHRUN, seconds=seconds)
    launcher = child_of(script.pid)
    os.kill({"script": script.pid, "launcher": launcher, "trainer": child_of(launcher)}[who], getattr(signal, name))
    wait_for(lambda: script.poll() is not None, "the script does not end")
    wait_for(lambda: not processes_with(str(out)), "somebody is left behind")
    (newest,) = [path for _, path in checkpointing.numbered_checkpoints(out)]
    assert newest.name.startswith("epoch-") and checkpointing.load(newest)["identity"]["hash"]
    assert (out / "stopped").is_file() and not list(out.glob("*.writing"))
    fault(f"{name} to the {who} of two processes" + (f", a save of {seconds} s" if seconds else ""),
          "saved, then all ended", "nothing")


test_a_signal_to_two_processes_of_torchrun.pytestmark += ends_a_run
