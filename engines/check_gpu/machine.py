"""Step 1: the machine. What a container left out is named, with what to do about it."""

import math
import os
import shutil
from pathlib import Path

import torch

from .steps import Outcome, Place, verdict

SHM_A_RANK = 1.5e9        # bytes: batches of 32 clips of 10 workers, two ahead each
SHM_SMALL = 32e6
CORES_A_RANK = 4          # fewer leave a GPU waiting for its clips


def look_at_the_machine(place: Place) -> Outcome:
    """Versions, GPU, cores and shared memory a rank; passes where a product on the device is right and both suffice."""
    ranks = max(1, torch.cuda.device_count()) if place.device.type == "cuda" else 1
    numbers = {"torch": torch.__version__, "cuda": torch.version.cuda, "ranks": ranks, "cores": usable_cores(),
               "shm_bytes": free_shared_memory()}
    if place.device.type == "cuda":
        about = torch.cuda.get_device_properties(place.device)
        numbers |= {"gpu": about.name, "gpu_gib": about.total_memory / 2**30, "cudnn": torch.backends.cudnn.version(),
                    "nccl": ".".join(map(str, torch.cuda.nccl.version())),
                    "bf16": torch.cuda.is_bf16_supported(including_emulation=False)}
    faults = container_faults(numbers["cores"], numbers["shm_bytes"], ranks, place.small)
    ones = torch.ones(64, 64, device=place.device)
    if float((ones @ ones).sum()) != 64**3:
        faults.append("a matrix product on the device is wrong")
    name = numbers.get("gpu", "CPU")
    return verdict(faults, f"{name}, {ranks} rank(s), torch {torch.__version__}, {numbers['cores']} cores, "
                   f"{numbers['shm_bytes'] / 1e9:.1f} GB of /dev/shm", numbers)


def container_faults(cores: int, shm_bytes: float, ranks: int, small: bool = False) -> list[str]:
    """One line for each thing that there is too little of."""
    faults = []
    wanted = SHM_SMALL if small else SHM_A_RANK * ranks
    if shm_bytes < wanted:
        faults.append(f"/dev/shm has {shm_bytes / 1e6:.0f} MB free, {ranks} rank(s) want {wanted / 1e6:.0f}: workers "
                      "will end with a bus error; start the container with --ipc=host or --shm-size "
                      f"{math.ceil(wanted / 1e9)}g, or train with --num_workers 0")
    wanted = (1 if small else CORES_A_RANK) * ranks
    if cores < wanted:
        faults.append(f"{cores} core(s) for {ranks} rank(s), at least {wanted} are wanted: give the container more "
                      "(docker --cpus, Slurm --cpus-per-task and SRUN_CPUS_PER_TASK)")
    return faults


def usable_cores(quota_file: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that this process may use: its affinity, and a container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = quota_file.read_text().split()
        return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):
        return cores


def free_shared_memory(folder: Path = Path("/dev/shm")) -> float:
    """Bytes free in /dev/shm; infinite where the system has none."""
    return float(shutil.disk_usage(folder).free) if folder.is_dir() else float("inf")
