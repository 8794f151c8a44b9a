"""Device, process group, precision and seeds: the only file whose functions change the machine's state."""

import contextlib
import gc
import logging
import os
import random
import re
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Runtime:
    """Where this process runs. rank 0 of world_size 1 when no launcher started it."""

    device: torch.device
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """True on the one process that prints and writes files."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for the other processes, if there are any."""
        if self.world_size > 1:
            dist.barrier()

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Mean of `values` over the processes."""
        if self.world_size > 1:
            values = values.clone()
            dist.all_reduce(values)
            values /= self.world_size
        return values

    def largest(self, values: torch.Tensor) -> torch.Tensor:
        """Elementwise maximum of `values` over the processes."""
        if self.world_size > 1:
            values = values.clone()
            dist.all_reduce(values, op=dist.ReduceOp.MAX)
        return values

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set on any process."""
        if self.world_size == 1:
            return flag
        return bool(self.largest(torch.tensor(int(flag), device=self.device)))

    def gather_objects(self, value: object) -> list[object]:
        """The value of every process, in order of rank."""
        if self.world_size == 1:
            return [value]
        gathered: list[object] = [None] * self.world_size
        dist.all_gather_object(gathered, value)
        return gathered


def start(device: str = "auto", dist_url: str = "env://", timeout: float = 30) -> Runtime:
    """Read the launcher's environment, choose the device and join the process group.

    timeout: minutes that a process waits for the others before it ends with an error.

    torchrun's RANK comes before SLURM's: inside an allocation both are set, and SLURM_PROCID is 0 in every process
    that torchrun starts there.

    Raises:
        ValueError: CUDA was asked for and is not there, or the launcher's variables do not fit.
    """
    environment = os.environ
    if "RANK" in environment:
        rank, world_size, local_rank = (_number(environment, name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    elif (tasks := _slurm_tasks(environment)) > 1 and "SLURM_PROCID" in environment:
        rank, world_size, local_rank = _slurm_number("SLURM_PROCID"), tasks, _slurm_number("SLURM_LOCALID")
        environment.update(RANK=str(rank), WORLD_SIZE=str(world_size), LOCAL_RANK=str(local_rank))
        _find_each_other(environment)
    else:
        rank, world_size, local_rank = 0, 1, 0
    chosen = _choose_device(device, local_rank)
    here = Runtime(chosen, rank, world_size, local_rank)
    if world_size > 1 and not dist.is_initialized():
        _meet(here, dist_url, timeout)
    return here


def _meet(here: Runtime, dist_url: str, timeout: float) -> None:
    """Join the process group. Raises ValueError: nobody says where, or the others do not come."""
    rank, count, environment = here.rank, here.world_size, os.environ
    by_slurm = "SLURM_PROCID" in environment and "TORCHELASTIC_RUN_ID" not in environment
    alone = f"for one process unset {'SLURM_PROCID' if by_slurm else 'RANK'}"
    if rank >= count:
        raise ValueError(f"the environment says that this is process {rank} of {count}, and ranks begin at 0: {alone}")
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not environment.get(name)]
    if dist_url == "env://" and missing:
        raise ValueError(f"the environment says that this is process {rank} of {count}, and not where they meet "
                         f"({', '.join(missing)}): start them with torchrun or srun; {alone}")
    if by_slurm and sys.stdin is not None and sys.stdin.isatty():
        logger.warning("Slurm says that this is process %d of %d: it waits for the others; %s", rank, count, alone)
    is_cuda = here.device.type == "cuda"
    try:
        dist.init_process_group("nccl" if is_cuda else "gloo", init_method=dist_url, rank=rank, world_size=count,
                                timeout=timedelta(minutes=timeout), device_id=here.device if is_cuda else None)
    except (dist.DistStoreError, dist.DistNetworkError) as error:
        place = dist_url if missing else f"{environment['MASTER_ADDR']}:{environment['MASTER_PORT']}"
        raise ValueError(f"process {rank} of {count} has not met the others at {place} within {timeout:g} minutes "
                         f"(--dist_timeout): {' '.join(str(error).split())[:200]}; {alone}") from error


def _number(environment: Mapping[str, str], name: str) -> int:
    """Of a launcher's variable. Raises ValueError: it is not there, or no whole number."""
    value = environment.get(name, "0" if name == "LOCAL_RANK" else "")
    if not value.isdigit():
        raise ValueError(f"RANK is set and {name} is {value!r}: start the processes with torchrun, or unset RANK")
    return int(value)


def _slurm_tasks(environment: Mapping[str, str]) -> int:
    """Processes that srun started together with this one: of its step. The job's number is that of the allocation: one
    python in its interactive shell or in its batch script is one process."""
    names = ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
    tasks = environment.get(names[0])
    if tasks is None and environment.get("ENVIRONMENT") == "BATCH":   # sbatch's own shell, outside of every step
        return 1
    if "SLURM_PTY_PORT" in environment and os.isatty(0):   # typed in `srun --pty bash`, and no srun in front of it
        return 1
    return next((_slurm_number(name) for name in names if environment.get(name)), 1)


def _slurm_number(name: str) -> int:
    """Of a variable of Slurm. Raises ValueError: it is no whole number."""
    value = os.environ.get(name) or "0"
    if not value.isdigit():
        raise ValueError(f"{name} is {value!r}, where Slurm sets a number: unset it, or start the processes by srun")
    return int(value)


def _find_each_other(environment: MutableMapping[str, str]) -> None:
    """MASTER_ADDR and MASTER_PORT for processes that srun started, where nobody has set them: the job's first node, and
    a port that is the job's own."""
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
    found = re.match(r"([^\[,]+)(?:\[(\w+))?", nodes)   # node[01-04,07],other: node01
    if found:
        environment.setdefault("MASTER_ADDR", found[1] + (found[2] or ""))
    job = environment.get("SLURM_JOB_ID", "")
    environment.setdefault("MASTER_PORT", str(20000 + int(job) % 10000 if job.isdigit() else 29500))


def _choose_device(device: str, local_rank: int) -> torch.device:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        if not torch.cuda.is_available():
            raise ValueError("--device cuda: no CUDA device is visible; use --device cpu or auto")
        index = local_rank % torch.cuda.device_count()   # srun --gpus-per-task=1: each process sees one, its number 0
        torch.cuda.set_device(index)
        return torch.device("cuda", index)
    return torch.device(device)


def stop(runtime: Runtime, learners: Iterable = ()) -> None:
    """Leave the process group. Not after a failure: the others would fail for it, before its cause has been noted.

    learners: have a `release`. Their DDP holds the group, and gloo's threads end with it: those that outlive it run
        into the end of the interpreter now and then, and abort a process that has done all its work.
    """
    if runtime.world_size > 1 and dist.is_initialized():
        for learner in learners:
            learner.release()
        dist.destroy_process_group()
        gc.collect()   # DDP is in cycles


def seed_everything(seed: int) -> None:
    """Seed torch, numpy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def rng_state() -> dict:
    """The generators' states of this process, as tensors and plain numbers (readable with weights_only=True)."""
    _, keys, position, has_gauss, cached = np.random.get_state()
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "python": [version, list(internal), gauss],
    }


def set_rng_state(state: dict) -> None:
    """Put back what `rng_state` returned."""
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available():
        known = state["cuda"][:torch.cuda.device_count()]   # written where more devices were visible
        torch.cuda.set_rng_state_all([item.cpu() for item in known])
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


@dataclass(frozen=True)
class Precision:
    """The compute dtype of the networks; losses, targets and probabilities stay float32."""

    device_type: str
    dtype: torch.dtype = torch.float32

    def autocast(self) -> contextlib.AbstractContextManager:
        """Context for a network's forward."""
        return torch.autocast(self.device_type, self.dtype, enabled=self.dtype != torch.float32)


def choose_precision(amp: str, device: torch.device) -> Precision:
    """`auto` is bf16 on GPUs that have it, fp16 on other GPUs, fp32 on the CPU."""
    if amp == "auto":
        amp = "fp32"
        if device.type == "cuda":
            amp = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return Precision(device.type, {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[amp])
