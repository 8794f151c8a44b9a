"""From the scores of views to numbers that can be believed: every row of the list counts, and counts once.

R: views scored by this process, N: rows of the list, C: classes.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from ...datasets.files import json_text, write_whole
from ..core.records import file_hash as file_hash  # also here, for callers
from ..core.runtime import Runtime


class NothingRead(ValueError):
    """No video of a list could be read. Every process raises it, since all of them hold the same table."""


@dataclass
class RowTable:
    """What is known about each row of a list, by its number.

    values: float64 (N, K), scores or features; zeros where the row could not be read. labels: int64 (N,), -1: none.
    faults: row -> why it cannot be read.
    """

    values: Tensor
    labels: Tensor
    faults: dict[int, str]

    @property
    def readable(self) -> Tensor:
        """bool (N,)."""
        mask = torch.ones(len(self.labels), dtype=torch.bool)
        mask[list(self.faults)] = False
        return mask

    def must_hold_something(self, source: str) -> None:
        """Raises NothingRead: no video of the list `source` could be read, and there is nothing to say of it."""
        if len(self.faults) == len(self.labels):
            raise NothingRead(nothing_read(source, len(self.labels), next(iter(self.faults.values()))))


def nothing_read(source: str, count: int, fault: str) -> str:
    """What is said where none of the `count` videos of a list can be read; fault: of the first."""
    return f"none of the {count} videos of {source} can be read, so there is nothing to say of them; the first: {fault}"


def evaluation_rows(length: int, rank: int, world_size: int) -> list[int]:
    """The rows that a process evaluates: as many on each, so that ZeRO-3's forward passes meet; the last ones may
    repeat the first rows of the list, which `merge` counts once.

    Raises:
        ValueError: an empty list.
    """
    if length < 1:
        raise ValueError("nothing to evaluate: the list is empty")
    each = -(-length // world_size)
    return [place % length for place in range(rank, each * world_size, world_size)]


def merge(rows: Tensor, values: Tensor, labels: Tensor, faults: dict[int, str], runtime: Runtime,
          length: int) -> RowTable:
    """Put the rows of all processes into one table, on every process; a row that several have is entered once.

    Args:
        rows: int64 (R,). values: float64 (R, K). labels: int64 (R,). The same R on every process.
        faults: of this process's unreadable rows.
        length: N.

    Raises:
        RuntimeError: a row was evaluated by nobody.
        FloatingPointError: values that are not finite.
    """
    rows, values, labels = (_gather(tensor, runtime) for tensor in (rows, values, labels))
    faults = {row: fault for part in runtime.gather_objects(faults) for row, fault in part.items()}
    table = RowTable(torch.zeros(length, values.shape[1], dtype=torch.float64),
                     torch.full((length,), -1, dtype=torch.int64), dict(sorted(faults.items())))
    seen = torch.zeros(length, dtype=torch.bool)
    table.values[rows], table.labels[rows], seen[rows] = values, labels, True
    table.values[list(faults)] = 0.0
    if not seen.all():
        raise RuntimeError(f"rows {(~seen).nonzero().flatten()[:5].tolist()} of the list were evaluated by no process")
    if not table.values.isfinite().all():
        raise FloatingPointError("the network's scores are not finite: its weights are broken; use --amp bf16 or fp32, "
                                 "or an earlier checkpoint")
    return table


def _gather(tensor: Tensor, runtime: Runtime) -> Tensor:
    """Concatenate over the processes, on the CPU."""
    if runtime.world_size == 1:
        return tensor.cpu()
    parts = [torch.empty_like(tensor, device=runtime.device) for _ in range(runtime.world_size)]
    dist.all_gather(parts, tensor.to(runtime.device).contiguous())
    return torch.cat(parts).cpu()


def ranked(values: Tensor, k: int) -> Tensor:
    """The k classes with the largest values, int64 (N, at most k), the largest first, of equal ones the one with the
    smaller number: all that is said of a test must name the same class, for every k. (`topk` takes any of them.)"""
    return values.argsort(dim=1, descending=True, stable=True)[:, :k]


def accuracies(table: RowTable) -> dict:
    """top1 and top5 in percent of all rows, an unreadable one counting as wrong; the counts; accuracy of each class.

    per_class: a number a class, None where the list has no video of it.
    """
    classes = table.values.shape[1]
    hits = (ranked(table.values, 5) == table.labels[:, None]) & table.readable[:, None]
    first, any_of_five = hits[:, 0], hits.any(dim=1)
    counts = torch.bincount(table.labels, minlength=classes)
    right = torch.bincount(table.labels[first], minlength=classes)
    return {
        "top1": _percent(first), "top5": _percent(any_of_five),
        "num_expected": len(table.labels), "num_evaluated": int(table.readable.sum()),
        "per_class": [round(100 * int(hit) / int(count), 4) if count else None
                      for hit, count in zip(right, counts, strict=True)],
    }


def _percent(hits: Tensor) -> float:
    return round(100 * int(hits.sum()) / len(hits), 4)


def write_result(output_dir: str | Path, result: dict) -> None:
    """result.json, in one piece."""
    write_whole(Path(output_dir) / "result.json", json_text(result, indent=2) + "\n")
