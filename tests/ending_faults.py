"""What goes wrong in the programs that tests/endings.py starts; a module of its own, for a pool's processes."""

import itertools
import time
from pathlib import Path


def defect(*_, **__):
    """In a worker, where a video is read: an error that is none of a video's."""
    raise KeyError("a defect of the worker")


def inject_in_workers():
    """Every place where a loader's worker opens a video, and what a pool's process calls."""
    from tats.datasets import check_list, prepare_videos
    from tats.datasets.video.decode import Decoding

    Decoding.open = defect
    check_list.probe = prepare_videos.encode = defect


def inject_in_loop(happen, after):
    """`happen()` with the `after`-th step of the program's own work: a linear layer, or a bar that begins or moves."""
    import torch
    from tats.datasets.processes import parallel

    count = itertools.count(1)

    def hooked(real):
        def call(*args, **kwargs):
            if next(count) >= after:
                happen()
            return real(*args, **kwargs)
        return call

    torch.nn.Linear.forward = hooked(torch.nn.Linear.forward)
    parallel.tqdm.update = hooked(parallel.tqdm.update)
    parallel.tqdm.__init__ = hooked(parallel.tqdm.__init__)


def fails(moment, error):
    """Note the moment, then raise."""
    def happen():
        Path(moment).touch()
        raise error
    return happen


def goes_on_slowly(moment):
    """Note the moment; a signal then meets the program at work."""
    def happen():
        Path(moment).touch()
        time.sleep(.1)
    return happen


def runs_out_of_memory(moment):
    """The allocator's own error, under a limit that leaves little."""
    def happen():
        import resource

        import torch
        Path(moment).touch()
        used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_DATA, (used + (32 << 20), resource.RLIM_INFINITY))
        torch.ones(1 << 30)
    return happen
