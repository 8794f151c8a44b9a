"""The check of a GPU: every step can fail, a step that hangs or crashes ends alone, all of it runs on a CPU."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tats.engines.check_gpu import __main__ as check_gpu
from tats.engines.check_gpu import machine, processes, programs, speed, values
from tats.engines.check_gpu.steps import FAILED, PASSED, SKIPPED, Outcome, Place, Step, outcome_of, run_apart
from tats.engines.machine import container
from tats.engines.machine.threads import Work
from tats.models import PretrainVisionTransformer
from tats.models.vit import TubeletProjection
from torch.nn.attention import SDPBackend, sdpa_kernel


@pytest.fixture
def place(tmp_path):
    return Place(torch.device("cpu"), True, tmp_path, 60)


def one(number, place):
    step, = (step for step in check_gpu.STEPS if step.number == number)
    return outcome_of(step, place)


def test_what_a_container_left_out_is_named_with_what_to_do():
    assert container.memory_faults(16e9, 8, 12e9) == container.core_faults(32, 8, 4) == []
    memory, = container.memory_faults(64e6, 8, 12e9)
    cores, = container.core_faults(8, 8, 4)
    assert "64 MB" in memory and "--shm-size 12g" in memory
    assert "8 core(s) for 8 rank(s)" in cores and "SRUN_CPUS_PER_TASK" in cores


def test_a_run_looks_at_its_machine_before_it_begins(monkeypatch, tmp_path):
    """Ten workers of 32 clips of 16 x 224 x 224 keep 1.5 GB ready."""
    work = Work(1.0, 32, 10, 3 * 16 * 224 * 224)
    monkeypatch.setattr(container, "usable_cores", lambda: 7)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    for name, value in (("free_shared_memory", 4e9), ("open_files", 1024), ("free_processes", float("inf"))):
        monkeypatch.setattr(container, name, lambda value=value: value)
    assert container.start_faults(work, "cpu") == []
    assert len(container.start_faults(work, "cuda")) == 1
    for name, value in (("free_shared_memory", 3e9), ("open_files", 256), ("free_processes", 100)):
        monkeypatch.setattr(container, name, lambda value=value: value)
    memory, files, processes = container.start_faults(work, "cpu")
    assert "2 rank(s) want 3083" in memory and "ulimit -n" in files and "--pids-limit" in processes
    assert container.start_faults(work._replace(workers=0), "cpu") == []


def test_what_nobody_limits_is_without_limit(tmp_path):
    assert container.free_shared_memory(tmp_path / "none") == container.free_processes((tmp_path,)) == float("inf")
    (tmp_path / "pids.max").write_text("100\n")
    (tmp_path / "pids.current").write_text("40\n")
    assert container.free_processes((tmp_path,)) == 60


def test_the_machine(place, monkeypatch):
    assert one(1, place).state == PASSED
    monkeypatch.setattr(machine, "usable_cores", lambda: 0)
    assert one(1, place).state == FAILED


def test_wrong_values_are_found(place, monkeypatch):
    assert one(2, place).state == PASSED
    with monkeypatch.context() as patch:
        real = values.uniform_noise
        patch.setattr(values, "uniform_noise", lambda *args: real(*args) + torch.rand(()) * 1e-6)
        assert "other noise" in one(2, place).found
    with monkeypatch.context() as patch:
        patch.setattr(values, "first_ratio", lambda place: 1 + 2e-6)
        assert "ratio" in one(2, place).found
    real_forward, calls = PretrainVisionTransformer.forward, []

    def forward(self, *inputs):
        calls.append(1)
        return real_forward(self, *inputs) * (1 if len(calls) == 1 else 1.001)   # the reference comes first

    monkeypatch.setattr(PretrainVisionTransformer, "forward", forward)
    assert "MAE in float32 is off" in one(2, place).found


def test_a_wrong_patch_embedding_is_found(place, monkeypatch):
    assert one(3, place).state == PASSED
    real = TubeletProjection.forward
    monkeypatch.setattr(TubeletProjection, "forward", lambda self, tubelets: real(self, tubelets.flip(-1)))
    assert one(3, place).state == FAILED


def test_a_slow_or_broken_step_is_found(place, monkeypatch):
    row = {"ms": 10.0, "loss_is_finite": True}
    monkeypatch.setattr(speed, "OurStep", lambda name, size: name)
    monkeypatch.setattr(speed, "flops_of", lambda step: 0)
    monkeypatch.setattr(speed, "timed_step", lambda name, *_: row | {"ms": 19.0 if name == "tats" else 10.0})
    large = Place(place.device, False, place.folder)
    assert "1.90 times a tube step" in one(4, large).found
    monkeypatch.setattr(speed, "timed_step", lambda *_: row)
    assert one(4, large).state == PASSED
    monkeypatch.setattr(speed, "timed_step", lambda *_: row | {"loss_is_finite": False})
    assert one(4, large).state == FAILED


def test_plain_attention_is_found(place):
    assert one(5, place).state == PASSED
    with sdpa_kernel(SDPBackend.MATH):
        assert "plain softmax" in one(5, place).found


def test_what_does_not_compile_is_found(place, monkeypatch):
    assert one(6, place).state == PASSED
    real = PretrainVisionTransformer.forward

    def breaking(self, *inputs):
        torch._dynamo.graph_break()
        return real(self, *inputs)

    monkeypatch.setattr(PretrainVisionTransformer, "forward", breaking)
    assert one(6, place).state == FAILED


def test_a_policy_that_looks_nowhere_is_found(place, monkeypatch):
    def run(module, *arguments):
        out = Path(arguments[arguments.index("--out" if module.endswith("masks") else "--output_dir") + 1])
        if module.endswith("masks"):
            out.write_text(json.dumps([{}, {"auroc": .95, "moving_auroc": .84}]))
        else:
            (out / "pictures").mkdir(parents=True)
            (out / "pictures" / "a.png").touch()
            (out / "log.txt").write_text("".join(json.dumps({"epoch": epoch, "train_data_share": 0}) + "\n"
                                                 for epoch in range(13)))

    monkeypatch.setattr(programs, "run", run)
    monkeypatch.setattr(programs, "videos", lambda place: place.folder)
    found = one(7, Place(place.device, False, place.folder))
    assert found.state == FAILED and found.found == "moving_auroc is 0.840, below 0.85"


class Run:
    """A program that notes its epochs in log.txt and, told to stop, ends with `code` and leaves `kept`."""

    def __init__(self, out, code=0, kept="epoch-1-step-2.pth", epochs=3):
        self.out, self.returncode, self.kept, self.epochs = out, code, kept, epochs
        self.stderr, self.signals = iter(["12:00:00 epoch 0/3 loss 1\n"]), []

    def send_signal(self, number):
        self.signals.append(number)
        self.out.mkdir(parents=True)
        if self.kept:
            (self.out / self.kept).touch()

    def communicate(self, timeout):
        return "", "the last line"

    def poll(self):
        return self.returncode


@pytest.mark.parametrize(("options", "resumes", "message"), [
    ({}, True, None), ({"code": 1}, True, "after SIGTERM it ended with 1: the last line"),
    ({"kept": None}, True, "left no checkpoint"), ({}, False, "did not go on from that checkpoint"),
    ({"epochs": 2}, True, "log.txt has the epochs [0, 1]"),
])
def test_a_run_that_does_not_stop_and_go_on_is_found(options, resumes, message, place, monkeypatch):
    process = Run(place.folder / "stopped-run", **options)

    def run(module, *arguments):
        (process.out / "log.txt").write_text("".join(f'{{"epoch": {epoch}}}\n' for epoch in range(process.epochs)))
        return f"resumed from {process.out / process.kept}" if resumes and process.kept else ""

    monkeypatch.setattr(programs, "videos", lambda place: place.folder)
    monkeypatch.setattr(programs.subprocess, "Popen", lambda *_, **__: process)
    monkeypatch.setattr(programs, "run", run)
    found = one(8, place)
    assert process.signals == [signal.SIGTERM]
    assert found.state == (FAILED if message else PASSED) and (message or "") in found.found


def test_processes_that_drift_apart_are_found(place, monkeypatch):
    monkeypatch.setattr(processes, "launched", lambda place, backend, count: [
        {"weights": float(rank), "sum": 1.0} for rank in range(count)])
    assert "weights differ" in one(9, place).found
    monkeypatch.setattr(processes, "launched", lambda place, backend, count: [{"weights": 1., "sum": 7.0}] * count)
    assert "wrong sum" in one(9, place).found


def test_another_loss_under_zero_is_found(place, monkeypatch):
    pytest.importorskip("deepspeed")
    losses = iter([[1.0], [1.0], [1.0], [1.1], [1.0]])
    monkeypatch.setattr(processes, "small_learner", lambda *_: None)
    monkeypatch.setattr(processes, "train", lambda *_: next(losses))
    assert one(10, place).found == "stage 2: a loss is off by 1.0e-01"


def test_without_its_gpu_the_trajectory_kernel_is_skipped_with_a_reason(place):
    found = one(11, place)
    assert found.state == SKIPPED and "and the networks run on cpu" in found.found


def step_of(run):
    return Step(1, "test", "", 1, run)


def test_a_step_that_hangs_crashes_or_raises_ends_alone(place):
    def hang(place):
        os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "1000")
        time.sleep(1000)

    def fail(place):
        raise OSError("no such thing\nin two lines")

    short = Place(place.device, True, place.folder, 1.0)
    outcome, seconds = run_apart(step_of(hang), short)
    assert outcome.found == "not ready after 1 s" and seconds < 60
    assert "ended with 7" in run_apart(step_of(lambda place: os._exit(7)), place)[0].found
    assert run_apart(step_of(fail), place)[0].found == "OSError: no such thing"
    fine, _ = run_apart(step_of(lambda place: Outcome(PASSED, "well", {"one": 1.5})), place)
    assert fine == Outcome(PASSED, "well", {"one": 1.5})


def test_when_the_time_is_over_steps_are_skipped(place):
    rows = check_gpu.check([step_of(lambda place: Outcome(PASSED, ""))], place, -1)
    assert [row["state"] for row in rows] == [SKIPPED] and "--only 1" in rows[0]["found"]


@pytest.mark.parametrize(("argv", "message"), [
    (["--device", "cpu", "--only", "3", "12"], "there is no step 12"), (["--minutes", "0"], "--minutes"),
])
def test_bad_input_is_one_line(argv, message):
    with pytest.raises(ValueError, match=message):
        check_gpu.main(argv)


def test_without_a_gpu_it_says_what_to_look_at(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="no CUDA device is visible.*--device cpu"):
        check_gpu.main([])


@pytest.mark.slow
def test_every_step_runs_on_a_cpu(tmp_path):
    """As a program of its own: each step is forked, which a process that has computed gradients cannot do safely."""
    done = subprocess.run([sys.executable, "-m", "tats.engines.check_gpu", "--device", "cpu", "--out",
                           str(tmp_path / "check.json")], capture_output=True, text=True, check=False)
    rows = json.loads((tmp_path / "check.json").read_text())["steps"]
    assert [(row["number"], row["state"]) for row in rows] == [
        (number, SKIPPED if number == 11 or number == 10 and row["state"] == SKIPPED else PASSED)
        for number, row in zip(range(1, 12), rows, strict=True)], done.stdout + done.stderr
    assert done.returncode == 0
