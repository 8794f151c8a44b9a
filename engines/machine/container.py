"""What a container or a batch system left out: shared memory, cores, limits. One line each, with what to do."""

import math
import resource
import shutil
from pathlib import Path

import torch

from ...datasets.processes.cores import usable_cores
from .threads import Work, ranks_here

CORES_A_RANK = 4          # fewer leave a GPU waiting for its clips
BATCHES_A_WORKER = 2      # that the loader keeps ready, torch's prefetch_factor
FILES, FILES_A_WORKER = 256, 12          # open at once: libraries and logs; pipes, and tensors on their way
PROCESSES, PROCESSES_A_WORKER = 32, 2    # threads of libraries; a worker and its decoder


def start_faults(work: Work, device: str) -> list[str]:
    """A line for each thing of this machine that a training run has too little of.

    Args:
        device: as --device.
    """
    ranks = ranks_here()
    on_gpu = device == "cuda" or device == "auto" and torch.cuda.is_available()
    faults = core_faults(usable_cores(), ranks, CORES_A_RANK) if on_gpu else []
    if work.workers:
        batches = ranks * work.workers * BATCHES_A_WORKER
        faults += memory_faults(free_shared_memory(), ranks, batches * work.clips * work.clip_bytes)
        faults += limit_faults(open_files(), "file(s) open at once", FILES + FILES_A_WORKER * work.workers,
                               "ulimit -n 65536, docker --ulimit nofile=65536")
        faults += limit_faults(free_processes(), "more process(es)",
                               ranks * (PROCESSES + PROCESSES_A_WORKER * work.workers), "docker --pids-limit -1")
    return faults


def memory_faults(free: float, ranks: int, wanted: float) -> list[str]:
    """Of /dev/shm, through which workers hand on their batches: bytes free, and bytes wanted by all ranks."""
    if free >= wanted:
        return []
    return [f"/dev/shm has {free / 1e6:.0f} MB free, {ranks} rank(s) want {wanted / 1e6:.0f}: workers will end with a "
            f"bus error; start the container with --ipc=host or --shm-size {math.ceil(wanted / 1e9)}g, or train with "
            "--num_workers 0"]


def core_faults(cores: int, ranks: int, wanted: int) -> list[str]:
    """Of cores, which clips are decoded with; `wanted` by each rank."""
    if cores >= wanted * ranks:
        return []
    return [f"{cores} core(s) for {ranks} rank(s), at least {wanted * ranks} are wanted: give the container more "
            "(docker --cpus, Slurm --cpus-per-task and SRUN_CPUS_PER_TASK)"]


def limit_faults(allowed: float, what: str, wanted: int, advice: str) -> list[str]:
    """Of a limit on a number of things."""
    if allowed >= wanted:
        return []
    return [f"the system allows {allowed:.0f} {what}, the loader's workers may need {wanted}: raise the limit "
            f"({advice}), or lower --num_workers"]


def free_shared_memory(folder: Path = Path("/dev/shm")) -> float:
    """Bytes free in /dev/shm; infinite where the system has none."""
    return float(shutil.disk_usage(folder).free) if folder.is_dir() else math.inf


def open_files() -> float:
    """How many files a process may hold open."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return math.inf if soft == resource.RLIM_INFINITY else soft


def free_processes(folders: tuple[Path, ...] = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/pids"))) -> float:
    """How many processes and threads the container may still start; infinite where nothing says."""
    free = math.inf
    for folder in folders:
        try:
            free = min(free, int((folder / "pids.max").read_text()) - int((folder / "pids.current").read_text()))
        except (OSError, ValueError):   # no such file, or "max"
            continue
    return free
