"""How many threads of the CPU a program computes with, and that those which wait sleep.

OpenMP's threads spin while they wait for each other. On cores that other programs use too, a thread that has its work
done then holds the core that the others need: with one busy program a core, two spinning threads made a step of a small
model 17 times slower. The library reads its environment when it is loaded, with torch; a program that wants sleeping
threads therefore starts itself again, once, before it has done anything. `python -m tats` sets the environment before.
"""

import logging
import os
import sys
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import nn

from ...datasets.processes.cores import usable_cores, wait_asleep

logger = logging.getLogger(__name__)

COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")                                       # the user's word, where set
FLOPS_A_SECOND = 5e10      # of one core
SECONDS_A_CLIP = 0.03      # to read and decode a short one
LEAST_FLOPS = 4e10         # of a step for each thread: in smaller steps threads wait longer than they compute


class Work(NamedTuple):
    """What a program does in a step. flops: of the step. clips: that it reads, of `clip_bytes`. workers: processes
    that read them."""

    flops: float
    clips: int
    workers: int
    clip_bytes: int = 0


class Threads(NamedTuple):
    """count: of compute threads. reason: one line for the log. given: the count is the user's word."""

    count: int
    reason: str
    given: bool = False

    def use(self) -> None:
        """Set the number, unless it is the user's or this is somebody else's process; say it in one line."""
        ours = started_as_program()
        if ours and not self.given:
            torch.set_num_threads(self.count)
        logger.info("%d compute thread(s): %s", torch.get_num_threads(),
                    self.reason if ours or self.given else "this process had them before")


def work_of(forward: Mapping[nn.Module, int], clips: int, workers: int, trains: bool = True) -> Work:
    """Work on `clips` clips a step, of whose bytes nothing is known.

    Args:
        forward: tokens of a clip that pass through each network. trains: with a backward pass, twice the forward's.
    """
    products = sum(tokens * sum(one.numel() for one in net.parameters()) for net, tokens in forward.items())
    return Work((6 if trains else 2) * products * clips, clips, workers)


def choose_threads(work: Work, device_type: str, cores: int, environment: Mapping[str, str] = os.environ) -> Threads:
    """As many threads as pay, with cores left for the processes that read clips.

    Args:
        cores: that this machine's processes of the run may use together.
    """
    own = max(1, cores // ranks_here(environment))
    crowd = f"; --num_workers {work.workers} is more than {own} core(s) a process" if work.workers > own else ""
    if named := [name for name in COUNTS if environment.get(name)]:
        return Threads(torch.get_num_threads(), f"{named[0]} says so{crowd}", given=True)
    if device_type != "cpu":
        return Threads(1, f"the networks run on a GPU; {own} core(s) a process, {work.workers} worker(s){crowd}")
    paying = int(work.flops / LEAST_FLOPS)
    reading, computing = work.clips * SECONDS_A_CLIP, work.flops / FLOPS_A_SECOND
    beside_readers = max(own - work.workers, round(own * computing / max(computing + reading, 1e-9)))
    count = max(1, min(own, paying, beside_readers))
    why = ("all of them" if count == own else "a step is too small for more" if paying <= beside_readers
           else f"the rest is for {work.workers} worker(s)")
    return Threads(count, f"{own} core(s) a process, {why}; OMP_NUM_THREADS sets another number{crowd}")


def ranks_here(environment: Mapping[str, str] = os.environ) -> int:
    """Processes of the run on this machine, as torchrun says; srun gives each of its own its own cores."""
    ranks = environment.get("LOCAL_WORLD_SIZE", "")
    return max(1, int(ranks)) if ranks.isdigit() else 1


def threads_for(work: Work, device: str = "auto") -> Threads:
    """The threads of a program, before it begins.

    Threads that would spin start the program again, in an environment in which they sleep: call this before anything
    is written or said that must not be so twice.

    Args:
        device: as --device.
    """
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else torch.device(device).type
    found = choose_threads(work, kind, usable_cores())
    alone = os.name == "posix" and not dist.is_initialized()   # else the other processes wait for this one
    if found.count > 1 and alone and started_as_program() and wait_asleep(os.environ):
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    return found


def use_threads(forward: Mapping[nn.Module, int], clips: int, workers: int = 0, device: str = "cpu") -> None:
    """`threads_for` a program that trains nothing, and their use; see `work_of`."""
    threads_for(work_of(forward, clips, workers, trains=False), device).use()


def started_as_program() -> bool:
    """Whether this process was started as one of the package's programs; in any other the number of threads is not
    ours to set."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return spec is not None and spec.name.startswith(__name__.removesuffix("machine.threads"))
