"""What a comparison of speed or memory needs: contestants that take turns, medians, live saved bytes, the machine."""

import contextlib
import gc
import logging
import os
import platform
import statistics
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..core.records import commit_of_source

Contestant = Callable[[], object]
Turns = Sequence[tuple[float, float]]   # (wall seconds, processor seconds) each
logger = logging.getLogger(__name__)


class LeftOut(ValueError):
    """Why a contestant cannot take part, in one line."""


def entered(build: Callable[[], Contestant]) -> Contestant:
    """What `build` returns; where it raises `LeftOut`, something that raises the same when it is called."""
    try:
        return build()
    except LeftOut as why:
        return partial(_raise, why)


def _raise(error: Exception) -> None:
    raise error


def left_out(name: str, why: LeftOut) -> dict[str, str]:
    """The row of a contestant that cannot take part; said in the log, too."""
    logger.warning("%s is left out: %s", name, why)
    return {"name": name, "left_out": str(why)}


def take_turns(contestants: Mapping[str, Contestant], pairs: int, warmup: int = 1, device: str = "cpu",
               processor_time: Callable[[], float] = time.process_time) -> dict[str, Turns | LeftOut]:
    """Run A B C A B C ..., so that what else the machine does falls on all alike.

    Args:
        processor_time: a clock, in seconds.

    Returns:
        Name -> (wall seconds, processor seconds) of each of the `pairs` runs after `warmup` rounds; or
        what it raised, where it cannot take part.
    """
    times: dict[str, Turns | LeftOut] = {name: [] for name in contestants}
    for turn in range(warmup + pairs):
        for name, run in contestants.items():
            if isinstance(times[name], LeftOut):
                continue
            gc.collect()
            _wait(device)
            wall, processor = time.perf_counter(), processor_time()
            try:
                run()
            except LeftOut as why:
                times[name] = why
                continue
            _wait(device)
            if turn >= warmup:
                times[name].append((time.perf_counter() - wall, processor_time() - processor))
    return times


def time_with_children() -> float:
    """Processor seconds of this process and, on Linux, of those that it has started and that live."""
    spent = time.process_time()
    for place in Path("/proc/self/task").glob("*/children"):
        for child in place.read_text(encoding="ascii").split():
            with contextlib.suppress(OSError):   # it has ended
                fields = Path(f"/proc/{child}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
                spent += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return spent


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def summary(times: Mapping[str, Turns | LeftOut]) -> list[dict]:
    """A row a contestant: medians, and the median of the ratios to each other one of the same turn, of wall seconds and
    of processor seconds (which a machine that others use too disturbs less). Who is left out has no numbers."""
    rows = []
    for name, own in times.items():
        if isinstance(own, LeftOut):
            rows.append(left_out(name, own))
            continue
        row = {"name": name, "runs": len(own), "seconds": statistics.median(wall for wall, _ in own),
               "processor_seconds": statistics.median(processor for _, processor in own)}
        for other, theirs in times.items():
            if other != name and not isinstance(theirs, LeftOut):
                for name_of, place in (("over_", 0), ("processor_over_", 1)):
                    row[name_of + other] = statistics.median(mine[place] / his[place]
                                                             for mine, his in zip(own, theirs, strict=True))
        rows.append(row)
    return rows


class SavedBytes:
    """Context: how many bytes of activations autograd keeps at most at one time for the backward pass.

    Each storage counts once while anything saved holds it; those of `beside` (parameters, the batch) do not count.

    Attributes:
        peak: bytes, after the block.
    """

    def __init__(self, beside: Sequence[Tensor] = ()):
        self._beside = {tensor.untyped_storage().data_ptr() for tensor in beside}
        self._holders: dict[int, int] = {}
        self._live = self.peak = 0
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda kept: kept.tensor)

    def __enter__(self) -> "SavedBytes":
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)

    def _pack(self, tensor: Tensor) -> "_Kept":
        kept, storage = _Kept(tensor), tensor.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        if place not in self._beside:
            self._holders[place] = self._holders.get(place, 0) + 1
            if self._holders[place] == 1:
                self._live += size
                self.peak = max(self.peak, self._live)
            weakref.finalize(kept, self._drop, place, size)
        return kept

    def _drop(self, place: int, size: int) -> None:
        self._holders[place] -= 1
        if not self._holders[place]:
            del self._holders[place]
            self._live -= size


def saved_mib(run: Callable[[], None], beside: Sequence[Tensor]) -> float:
    """MiB that one call of `run` keeps at most at one time for its backward pass, `beside` not counted."""
    with SavedBytes(beside) as saved:
        run()
    return saved.peak / 2**20


class _Kept:
    """A saved tensor, whose end can be noticed."""

    def __init__(self, tensor: Tensor):
        self.tensor = tensor


def machine(device: str) -> dict[str, str | int]:
    """Where and with what a figure was measured."""
    return {"date": datetime.now(timezone.utc).strftime("%Y-%m-%d"), "commit": commit_of_source() or "unknown",
            "device": torch.cuda.get_device_name() if device == "cuda" else _processor(),
            "threads": torch.get_num_threads(), "torch": torch.__version__, "python": platform.python_version()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {len(names)} cores"
