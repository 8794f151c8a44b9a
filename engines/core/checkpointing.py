"""Checkpoints: written whole or not at all, readable with `torch.load(weights_only=True)`, found again, thinned out.

`checkpoint-N.pth` was written after epoch N, `epoch-N-step-S.pth` within epoch N after optimiser step S.
"""

import logging
import math
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from ...datasets.files import written_whole
from ...models.convert.files import read_checkpoint

logger = logging.getLogger(__name__)

_NAMES = re.compile(r"checkpoint-(?P<whole>\d+)\.pth|epoch-(?P<epoch>\d+)-step-(?P<step>\d+)\.pth")


def name_of(epoch: int, step: int | None = None) -> str:
    """Name of the checkpoint after epoch `epoch`, or within it after optimiser step `step`, without `.pth`."""
    return f"checkpoint-{epoch}" if step is None else f"epoch-{epoch}-step-{step}"


def load(path: str | Path) -> dict:
    """A checkpoint to resume from.

    Raises:
        FileNotFoundError, ValueError: as `read_checkpoint`.
    """
    try:
        return read_checkpoint(path)
    except ValueError as error:
        if "--trust_checkpoint" not in str(error):
            raise
        raise ValueError(f"{path} holds pickled objects and was not written by this program: to start from its weights "
                         "give it as --init_from (pre-training) or --finetune, with --trust_checkpoint") from error


def save_atomically(state: dict, path: Path) -> None:
    """Write `state` to `path`: a kill leaves the old file or the new one.

    Raises:
        OSError: the disk is full or not writable; the file of the same name from before is untouched.
    """
    with written_whole(path, "wb") as file:
        torch.save(state, file)


def order_of(path: Path) -> tuple[int, float] | None:
    """(epoch, step within the run, inf at the epoch's end) by a checkpoint's name; None for other files."""
    match = _NAMES.fullmatch(path.name)
    if match is None:
        return None
    return (int(match["whole"]), math.inf) if match["whole"] else (int(match["epoch"]), int(match["step"]))


def numbered_checkpoints(output_dir: str | Path) -> list[tuple[int, Path]]:
    """(epoch, path) of every checkpoint in a folder, the newest first."""
    found = [(order, path) for path in Path(output_dir).glob("*.pth") if (order := order_of(path)) is not None]
    return [(order[0], path) for order, path in sorted(found, reverse=True)]


def newest_whole(output_dir: str | Path) -> tuple[Path, dict] | None:
    """The newest checkpoint that can be read; damaged ones are skipped with a warning. None when there is none."""
    for _, path in numbered_checkpoints(output_dir):
        try:
            return path, load(path)
        except ValueError as error:
            logger.warning("%s; falling back to the one before", error)
    return None


def thin_out(output_dir: str | Path, keep_last: int, keep_every: int) -> None:
    """Delete all but the newest `keep_last` checkpoints (0: delete nothing) and those of every `keep_every`-th epoch.

    Checkpoints from within an epoch serve the resuming alone: they are never among the latter.
    """
    for epoch, path in numbered_checkpoints(output_dir)[keep_last:] if keep_last else []:
        if keep_every and path.name == f"{name_of(epoch)}.pth" and (epoch + 1) % keep_every == 0:
            continue
        path.unlink(missing_ok=True)
        shutil.rmtree(path.with_suffix(""), ignore_errors=True)   # DeepSpeed's half


def clear_unfinished(output_dir: str | Path) -> None:
    """Delete what a kill during saving has left."""
    for path in Path(output_dir).glob("*.pth*.writing"):
        path.unlink(missing_ok=True)


def run_names(paths: Sequence[str | Path]) -> list[str]:
    """What tells checkpoints apart in a table: their folders' names, with as many folders above as it takes; the paths,
    where two are of one folder."""
    folders = [Path(path).resolve().parent.parts for path in paths]
    for depth in range(1, max(map(len, folders)) + 1):
        names = ["/".join(parts[-depth:]) for parts in folders]
        if len(set(names)) == len(names):
            return names
    return list(map(str, paths))
