"""Compute threads: cores from made control groups and affinities, the choice by hand, and what a process then does."""

import os
import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch
from tats.datasets.processes import cores
from tats.engines.core.logs import quiet_known_warnings
from tats.engines.front_door import __main__ as front_door
from tats.engines.machine import threads
from tats.engines.machine.threads import LEAST_FLOPS, Threads, Work, choose_threads, threads_for, work_of
from tats.engines.run_class_finetuning import get_parser as finetuning_parser
from tats.engines.run_mae_pretraining import get_parser as pretraining_parser
from tats.engines.runs import finetuning_build, pretraining_build
from torch.utils.data import DataLoader

LARGE = Work(1e15, 16, 10)


@pytest.mark.parametrize(("device", "environment"), [("cpu", {}), ("cuda", {}), ("cpu", {"OMP_NUM_THREADS": "1"})])
def test_more_workers_than_cores_are_named(device, environment):
    """Two ranks share eight cores: four workers each are not too many."""
    shared = environment | {"LOCAL_WORLD_SIZE": "2"}
    assert "--num_workers 10 is more than 4 core(s) a process" in choose_threads(LARGE, device, 8, shared).reason
    assert "more than" not in choose_threads(LARGE._replace(workers=4), device, 8, shared).reason


def test_torch_does_not_name_them_again():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        DataLoader([0], num_workers=10**4)
        assert len(said) == 1
        quiet_known_warnings()
        DataLoader([0], num_workers=10**4)
    assert len(said) == 1


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """`groups(membership, {file: text})`: the cores of a process among eight, in these control groups."""
    def look(membership, files):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
        (tmp_path / "self").write_text(membership)
        for name, text in files.items():
            (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "cgroup" / name).write_text(text)
        return cores.usable_cores(tmp_path / "cgroup", tmp_path / "self")
    return look


@pytest.mark.parametrize(("membership", "files", "wanted"), [
    ("0::/\n", {"cpu.max": "300000 100000\n"}, 3),
    ("0::/\n", {"cpu.max": "150000 100000\n"}, 1),                    # half a core is none
    ("0::/\n", {"cpu.max": "20000 100000\n"}, 1),                     # but one there is
    ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
    ("0::/\n", {"cpu.max": "3200000 100000\n"}, 8),                   # more than there are
    ("0::/\n", {"cpu.max": "nonsense"}, 8),
    ("0::/\n", {}, 8),
    ("", {"cpu.max": "200000 100000\n"}, 2),
    ("0::/a/b\n", {"cpu.max": "max 100000\n", "a/cpu.max": "200000 100000\n", "a/b/cpu.max": "500000 100000\n"}, 2),
    ("0::/not/here\n", {"cpu.max": "400000 100000\n"}, 4),            # the host's name, seen from a container
    ("3:cpu,cpuacct:/x\n0::/\n", {"cpu,cpuacct/x/cpu.cfs_quota_us": "250000\n",
                                  "cpu,cpuacct/x/cpu.cfs_period_us": "100000\n"}, 2),
    ("3:cpu,cpuacct:/x\n", {"cpu/cpu.cfs_quota_us": "600000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 6),
    ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
    ("1:cpuset:/\n0::/\n", {"unified/cpu.max": "500000 100000\n"}, 5),
])
def test_cores_of_affinity_and_quota(membership, files, wanted, groups):
    assert groups(membership, files) == wanted


def test_an_affinity_counts_before_a_quota(groups, monkeypatch):
    groups("0::/\n", {"cpu.max": "600000 100000\n"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 5})
    assert cores.usable_cores() <= 2


@pytest.mark.parametrize(("work", "available", "environment", "wanted", "why"), [
    (LARGE, 8, {}, 8, "all of them"),
    (LARGE, 8, {"LOCAL_WORLD_SIZE": "4"}, 2, "2 core(s) a process"),
    (LARGE, 2, {"LOCAL_WORLD_SIZE": "4"}, 1, "1 core(s) a process"),
    (Work(2.5 * LEAST_FLOPS, 0, 0), 8, {}, 2, "too small"),
    (Work(0, 16, 1), 64, {}, 1, "too small"),
    (Work(24e10, 160, 8), 8, {}, 4, "8 worker(s)"),                   # 4.8 s to compute, 4.8 s to read
    (Work(24e10, 160, 1), 8, {}, 6, "too small"),                     # one reader holds one core
])
def test_the_choice_by_hand(work, available, environment, wanted, why):
    found = choose_threads(work, "cpu", available, environment)
    assert found.count == wanted and why in found.reason and not found.given


def test_beside_a_gpu_one_thread_computes():
    assert choose_threads(LARGE, "cuda", 32, {}).count == 1


@pytest.mark.parametrize("name", threads.COUNTS)
def test_the_user_s_number_stays(name, monkeypatch):
    found = choose_threads(LARGE, "cpu", 8, {name: "3"})
    assert found.given and name in found.reason
    monkeypatch.setattr(threads, "started_as_program", lambda: True)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: pytest.fail("it was the user's"))
    found.use()


def test_the_number_is_set_in_our_own_processes_alone_and_said(monkeypatch, caplog):
    told = []
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    with caplog.at_level("INFO"):
        Threads(5, "five pay").use()
        monkeypatch.setattr(threads, "started_as_program", lambda: True)
        Threads(5, "five pay").use()
    assert told == [5]
    assert [record.message.split(": ")[1] for record in caplog.records] == ["this process had them before", "five pay"]


def test_products_are_counted_by_hand():
    net = torch.nn.Linear(3, 4)   # 16 numbers
    assert work_of({net: 10}, 2, 1).flops == 6 * 16 * 10 * 2
    assert work_of({net: 10}, 2, 1, trains=False).flops == 2 * 16 * 10 * 2


def test_a_tiny_model_gets_one_thread_and_a_base_model_all():
    for build, parser, names in ((pretraining_build, pretraining_parser, ("pretrain_tats_tiny",
                                                                          "pretrain_videomae_base_patch16_224")),
                                 (finetuning_build, finetuning_parser, ("vit_tats_tiny", "vit_base_patch16_224"))):
        from tats.engines.config import finetuning, pretraining
        settings = (pretraining if build is pretraining_build else finetuning).Settings
        counts = []
        for name in names:
            flags = parser().parse_args(["--data_path", "none", "--model", name, "--batch_size", "16"])
            counts.append(choose_threads(build.work_of_a_step(settings.from_args(flags)), "cpu", 2, {}).count)
        assert counts == [1, 2]


@pytest.fixture
def program(monkeypatch):
    """A process that was started as a program of eight cores; returns the commands that replaced it."""
    commands = []
    monkeypatch.setattr(threads, "started_as_program", lambda: True)
    monkeypatch.setattr(threads, "usable_cores", lambda: 8)
    monkeypatch.setattr(os, "execv", lambda *command: commands.append(command))
    monkeypatch.setattr(sys, "orig_argv", ["python", "-X", "dev", "-m", "tats.engines.x", "--flag"])
    for name in (*cores.WAITING, *threads.COUNTS, "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "")
    return commands


def test_threads_that_would_spin_start_the_program_again_once(program):
    assert threads_for(LARGE, "cpu").count == 8
    assert program == [(sys.executable, [sys.executable, "-X", "dev", "-m", "tats.engines.x", "--flag"])]
    assert os.environ["OMP_WAIT_POLICY"] == "passive"
    assert threads_for(LARGE, "cpu").count == 8 and len(program) == 1


@pytest.mark.parametrize("kept", ["one thread", "policy", "group", "another's process"])
def test_a_program_that_need_not_start_again_does_not(kept, program, monkeypatch):
    if kept == "policy":
        monkeypatch.setenv("GOMP_SPINCOUNT", "1000")
    if kept == "group":
        monkeypatch.setattr(threads.dist, "is_initialized", lambda: True)
    if kept == "another's process":
        monkeypatch.setattr(threads, "started_as_program", lambda: False)
    threads_for(Work(0, 16, 1) if kept == "one thread" else LARGE, "cpu")
    assert program == []


def test_which_processes_are_ours(monkeypatch):
    assert not threads.started_as_program()
    for name, ours in (("tats.engines.predict", True), ("tats.engines.benchmark.__main__", True), ("pytest", False)):
        monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=SimpleNamespace(name=name)))
        assert threads.started_as_program() == ours
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=None))
    assert not threads.started_as_program()


def test_the_front_door_sets_the_environment_before_torch_is_there(monkeypatch):
    seen = []
    for name in cores.WAITING:
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(sys, "argv", ["tats"])
    monkeypatch.setattr(front_door.runpy, "run_module", lambda *_, **__: seen.append(os.environ["OMP_WAIT_POLICY"]))
    assert front_door.main(["predict", "--help"]) == 0 and seen == ["passive"]
    code = ("import sys; import tats.engines.front_door.__main__, tats.datasets.processes.cores; "
            "assert 'torch' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_a_program_s_threads_sleep_after_it_has_started_again(tmp_path):
    """By OpenMP's own word, which it gives when it is loaded: twice, since the program starts twice."""
    environment = {name: value for name, value in os.environ.items() if name not in (*cores.WAITING, *threads.COUNTS)}
    # Two threads by the user's word, so that it starts again on a machine of one core, too.
    environment |= {"OMP_DISPLAY_ENV": "verbose", "OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-m", "tats.engines.run_mae_pretraining", "--data_path", "none.csv",
                           "--model", "pretrain_tats_tiny", "--device", "cpu"], env=environment, cwd=tmp_path,
                          capture_output=True, text=True, check=False)
    spins = [line.split("'")[1] for line in done.stderr.splitlines() if "GOMP_SPINCOUNT" in line]
    if not spins:
        pytest.skip("torch's OpenMP is not GNU's")
    assert spins == ["300000", "0"] and "2 compute thread(s): OMP_NUM_THREADS says so" in done.stderr
    assert done.returncode == 2
