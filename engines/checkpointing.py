"""Checkpoints: written whole or not at all, readable with `torch.load(weights_only=True)`, found again by number."""

import contextlib
import logging
import os
import re
from pathlib import Path

import torch

from ..models.checkpoint_files import read_checkpoint as load

logger = logging.getLogger(__name__)

_NUMBERED = re.compile(r"checkpoint-(\d+)\.pth$")


def save_atomically(state: dict, path: Path) -> None:
    """Write `state` beside `path`, flush it to the disk, then rename: a kill leaves the old file or the new one.

    Raises:
        OSError: the disk is full or not writable; the file of the same name from before is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".writing")
    try:
        with open(temporary, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def numbered_checkpoints(output_dir: str | Path) -> list[tuple[int, Path]]:
    """(number, path) of every `checkpoint-N.pth` in a folder, the newest first."""
    found = [(int(match.group(1)), path) for path in Path(output_dir).glob("checkpoint-*.pth")
             if (match := _NUMBERED.search(path.name))]
    return sorted(found, reverse=True)


def newest_whole(output_dir: str | Path) -> tuple[Path, dict] | None:
    """The newest checkpoint that can be read; damaged ones are skipped with a warning. None when there is none."""
    for _, path in numbered_checkpoints(output_dir):
        try:
            return path, load(path)
        except ValueError as error:
            logger.warning("%s; falling back to the one before", error)
    return None


def keep_last(output_dir: str | Path, count: int) -> None:
    """Delete all but the newest `count` numbered checkpoints (0 keeps all)."""
    if count:
        for _, path in numbered_checkpoints(output_dir)[count:]:
            path.unlink()
