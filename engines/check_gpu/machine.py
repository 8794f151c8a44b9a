"""Step 1: the machine. What a container left out is named, with what to do about it."""

import torch

from ...datasets.processes.cores import usable_cores
from ..machine.container import CORES_A_RANK, core_faults, free_shared_memory, memory_faults
from .steps import Outcome, Place, verdict

SHM_A_RANK = 1.5e9        # bytes: batches of 32 clips of 10 workers, two ahead each
SHM_SMALL = 32e6


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
    faults = memory_faults(numbers["shm_bytes"], ranks, SHM_SMALL if place.small else SHM_A_RANK * ranks)
    faults += core_faults(numbers["cores"], ranks, 1 if place.small else CORES_A_RANK)
    ones = torch.ones(64, 64, device=place.device)
    if float((ones @ ones).sum()) != 64**3:
        faults.append("a matrix product on the device is wrong")
    name = numbers.get("gpu", "CPU")
    return verdict(faults, f"{name}, {ranks} rank(s), torch {torch.__version__}, {numbers['cores']} cores, "
                   f"{numbers['shm_bytes'] / 1e9:.1f} GB of /dev/shm", numbers)
