"""How processes find their device and each other, and what they send there."""

import os

import pytest
import torch
from tats.engines.core import runtime
from tats.engines.core.runtime import choose_precision
from tats.engines.training.batches import OnDevice
from tats.masking import uniform_noise
from tats.masking.gumbel import gumbel_top_k

LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "SLURM_NTASKS", "SLURM_PROCID",
             "SLURM_LOCALID", "SLURM_JOB_ID", "SLURM_JOB_NODELIST", "SLURM_STEP_NODELIST", "SLURM_STEP_NUM_TASKS",
             "SLURM_PTY_PORT", "ENVIRONMENT")


@pytest.fixture
def gpus(monkeypatch):
    """`gpus(count)`: so many GPUs are visible; returns the list of those that were chosen."""
    def see(count):
        chosen = []
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
        return chosen
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    return see


@pytest.mark.parametrize(("visible", "local_rank", "index"), [(1, 3, 0), (4, 3, 3), (4, 0, 0)])
def test_a_process_that_sees_one_gpu_takes_it(visible, local_rank, index, gpus, monkeypatch):
    chosen = gpus(visible)
    joined = {}
    monkeypatch.setattr(runtime.dist, "init_process_group", lambda backend, **options: joined.update(options))
    for name, value in {"SLURM_NTASKS": "8", "SLURM_PROCID": str(4 + local_rank), "SLURM_LOCALID": str(local_rank),
                        "SLURM_JOB_ID": "1234567", "SLURM_JOB_NODELIST": "gpu[07-08]"}.items():
        monkeypatch.setenv(name, value)
    where = runtime.start()
    assert chosen == [index] and where.device == torch.device("cuda", index) == joined["device_id"]
    assert (where.rank, where.world_size, where.local_rank) == (4 + local_rank, 8, local_rank)


@pytest.mark.parametrize(("environment", "processes"), [
    ({"SLURM_NTASKS": "4"}, 1),   # salloc's shell
    ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, 1),   # srun --pty bash
    ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "ENVIRONMENT": "BATCH"}, 1),   # sbatch's script
    ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "ENVIRONMENT": "BATCH", "SLURM_STEP_NUM_TASKS": "4"}, 4),   # srun in it
    ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PTY_PORT": "9", "tty": "1"}, 1),
    ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PTY_PORT": "9"}, 4),   # srun in it
    ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, 4)])
def test_one_python_in_an_allocation_is_one_process(environment, processes, gpus, monkeypatch):
    gpus(0)
    monkeypatch.setattr(runtime.os, "isatty", lambda number: "tty" in environment)
    monkeypatch.setattr(runtime.dist, "init_process_group", lambda *_, **__: None)
    for name, value in ({"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n1"} | environment).items():
        monkeypatch.setenv(name, value)
    assert runtime.start().world_size == processes


def test_no_test_sees_the_ranks_of_the_one_before():
    """After those above, in the same process: with them left a program would wait for half an hour for the others."""
    assert not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} & os.environ.keys()


@pytest.mark.parametrize(("nodes", "first"), [("gpu[07-08]", "gpu07"), ("a-1,a-2", "a-1"), ("n1", "n1"),
                                              ("rack2-node[3,9-11],other", "rack2-node3")])
def test_processes_of_srun_meet_on_the_first_node(nodes, first):
    found = {"SLURM_JOB_NODELIST": nodes, "SLURM_JOB_ID": "1234567"}
    runtime._find_each_other(found)
    assert found["MASTER_ADDR"] == first and found["MASTER_PORT"] == "24567"
    given = {"MASTER_ADDR": "here", "MASTER_PORT": "1", "SLURM_JOB_NODELIST": nodes}
    runtime._find_each_other(given)
    assert (given["MASTER_ADDR"], given["MASTER_PORT"]) == ("here", "1")


def test_bf16_that_a_gpu_only_emulates_is_not_chosen(monkeypatch):
    """A V100's answer, and an A100's."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert choose_precision("auto", torch.device("cuda")).dtype == torch.float16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert choose_precision("auto", torch.device("cuda")).dtype == torch.bfloat16


def test_the_noise_is_never_one(monkeypatch):
    monkeypatch.setattr(torch, "randint", lambda low, high, shape, device: torch.tensor([[0, high - 1, high // 2]]))
    noise = uniform_noise((1, 3), None, torch.device("cpu"))
    assert noise.min() > 0 and noise.max() < 1
    assert noise[0, 2] == (2**23 + .5) / 2**24
    assert gumbel_top_k(torch.zeros(1, 3), 1).threshold.isfinite().all()


def test_on_the_cpu_batches_pass_as_they_are():
    batches = [(torch.zeros(2), torch.ones(2)), (torch.ones(2), torch.ones(2))]
    loader = OnDevice(batches, torch.device("cpu"))
    assert len(loader) == 2 and all(one is two for one, two in zip(loader, batches, strict=True))


@pytest.mark.parametrize(("variables", "named"), [
    ({"RANK": "0"}, "WORLD_SIZE"), ({"RANK": "x", "WORLD_SIZE": "1"}, "RANK"),
    ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "a"}, "LOCAL_RANK"),
    ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "1"}, r"where they meet \(MASTER_ADDR\)"),
    ({"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "ranks begin at 0")])
def test_variables_of_a_launcher_that_do_not_fit_are_named(variables, named, gpus, monkeypatch):
    gpus(0)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=named):
        runtime.start("cpu")


@pytest.mark.parametrize(("environment", "said"), [
    ({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, "not where they meet.*MASTER_ADDR.*unset SLURM_PROCID"),
    ({"RANK": "0", "WORLD_SIZE": "2"}, "not where they meet.*MASTER_ADDR, MASTER_PORT.*unset RANK"),
    ({"SLURM_PROCID": "x", "SLURM_NTASKS": "2"}, "SLURM_PROCID is 'x'"),
    ({"SLURM_PROCID": "0", "SLURM_NTASKS": "two"}, "SLURM_NTASKS is 'two'"),
    ({"SLURM_PROCID": "0", "SLURM_LOCALID": "-", "SLURM_NTASKS": "2"}, "SLURM_LOCALID is '-'"),
    ({"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29917"},
     "has not met the others at localhost:29917 within 0.01 minutes.*unset SLURM_PROCID")])
def test_a_launcher_that_has_started_nobody_is_one_line(environment, said, gpus, monkeypatch):
    gpus(0)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=said) as error:
        runtime.start("cpu", timeout=.01)
    assert "\n" not in str(error.value)
