"""Features of windows that slide over long videos, written a video at a time, so that a stopped run goes on.

While it runs, OUT.parts/ holds a file for each video that is done; at the end they become OUT, and the folder goes.
"""

import json
import logging
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...datasets.files import write_whole, written_whole
from ...datasets.lists.list_file import ClipList
from ...datasets.windows import Chunk
from ..engine_for_finetuning import EvaluationSetup
from ..finetune.evaluation import nothing_read

logger = logging.getLogger(__name__)

HDF5_ENDINGS = (".h5", ".hdf5")


class Parts:
    """The videos that are done, in OUT.parts/.

    Args:
        out: the file that is written in the end. identity: what the features depend on.

    Raises:
        ValueError: parts of another command lie there.
    """

    def __init__(self, out: Path, identity: Mapping[str, Any]):
        if out.suffix not in (".npz", *HDF5_ENDINGS):
            raise ValueError(f"--out {out}: the features of windows go into an .npz or an .h5 file")
        self.out, self.folder = out, out.with_name(f"{out.name}.parts")
        described, noted = json.dumps(dict(identity), sort_keys=True), self.folder / "identity.json"
        if noted.is_file() and (differing := _differing(noted.read_bytes(), json.loads(described))):
            raise ValueError(f"{self.folder} holds features of another command ({differing}): delete it, or use "
                             "another --out")
        if not noted.is_file():
            write_whole(noted, described + "\n")

    def path(self, row: int) -> Path:
        """The file of a row of the list."""
        return self.folder / f"{row:08d}.npz"

    def read(self, row: int) -> dict[str, np.ndarray] | None:
        """What is known of a row; None: nothing, or its file is damaged."""
        try:
            with np.load(self.path(row)) as stored:
                return dict(stored)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError):
            return None

    def is_done(self, row: int) -> bool:
        """Whether a row has features; one that could not be read is tried again."""
        part = self.read(row)
        return part is not None and not str(part["note"])

    def write(self, row: int, features: np.ndarray, starts: np.ndarray, ends: np.ndarray, note: str) -> None:
        """Keep a row, whole or not at all."""
        with written_whole(self.path(row), "wb") as file:
            np.savez(file, features=features, start=starts, end=ends, note=np.array(note))

    def merge(self, clips: ClipList) -> list[str]:
        """Write OUT from the parts of all rows and delete them; the notes of the rows that could not be read.

        Raises:
            ValueError: none could be read; nothing is written.
        """
        notes = [str(self.read(row)["note"]) for row in range(len(clips))]
        if all(notes):
            shutil.rmtree(self.folder)
            raise ValueError(nothing_read(clips.source, len(clips), notes[0]))
        (self._write_hdf5 if self.out.suffix in HDF5_ENDINGS else self._write_npz)(clips)
        shutil.rmtree(self.folder)
        return [note for note in notes if note]

    def _write_npz(self, clips: ClipList) -> None:
        parts = [self.read(row) for row in range(len(clips))]
        shape = next((part["features"].shape[1:] for part in parts if len(part["features"])), (0,))
        features = [part["features"].reshape(-1, *shape) for part in parts]
        with written_whole(self.out, "wb") as file:
            np.savez(file, features=np.concatenate(features), start=np.concatenate([part["start"] for part in parts]),
                     end=np.concatenate([part["end"] for part in parts]),
                     row=np.repeat(np.arange(len(parts)), [len(part) for part in features]),
                     paths=np.array(list(clips.paths)), labels=clips.labels,
                     readable=np.array([not str(part["note"]) for part in parts]),
                     notes=np.array([str(part["note"]) for part in parts]))

    def _write_hdf5(self, clips: ClipList) -> None:
        import h5py

        unfinished = self.out.with_name(f"{self.out.name}.{os.getpid()}.writing")
        try:
            with h5py.File(unfinished, "w") as file:
                for row, path in enumerate(clips.paths):
                    part, group = self.read(row), file.create_group(f"{row:08d}")
                    for name in ("features", "start", "end"):
                        group.create_dataset(name, data=part[name])
                    group.attrs["path"] = path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
                    group.attrs["label"], group.attrs["note"] = int(clips.labels[row]), str(part["note"])
            os.replace(unfinished, self.out)
        finally:
            unfinished.unlink(missing_ok=True)


def _differing(noted: bytes, wanted: Mapping[str, Any]) -> str:
    """In what another command differs from this one; "" where it is the same."""
    try:
        found = dict(json.loads(noted))
    except (ValueError, TypeError):
        return "its identity.json is damaged"
    names = sorted(name for name in found.keys() | wanted if name not in found or name not in wanted
                   or found[name] != wanted[name])
    return f"another {', '.join(names)}" if names else ""


@torch.no_grad()
def extract(chunks: Iterable[Chunk], per_clip: Callable[[Tensor], Tensor], setup: EvaluationSetup,
            parts: Parts) -> None:
    """Run the network over the windows and keep each video as soon as its last one is through.

    Args:
        per_clip: normalised clips (B, 3, T, H, W) -> (B, ...) features. setup.clips: B at most.
    """
    waiting: dict[int, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}
    for chunk in chunks:
        if chunk.fault:   # of windows that went well before it nothing is kept: half a video is no answer
            waiting.pop(chunk.row, None)
            logger.warning("no features: %s", chunk.fault)
            parts.write(chunk.row, np.zeros((0, 0), np.float32), np.zeros(0), np.zeros(0), chunk.fault)
            continue
        features = torch.cat([per_clip(setup.normalizer.clips(part)).float().cpu()
                              for part in chunk.clips.split(setup.clips)])
        if not features.isfinite().all():
            raise FloatingPointError("the network's features are not finite: its weights are broken; use --amp bf16 or "
                                     "fp32, or an earlier checkpoint")
        waiting.setdefault(chunk.row, []).append((features.numpy(), chunk.starts, chunk.ends))
        if chunk.last:
            parts.write(chunk.row, *(np.concatenate(column) for column in zip(*waiting.pop(chunk.row), strict=True)),
                        note="")


def require_hdf5(out: Path) -> None:
    """Raises ValueError: an .h5 file is asked for and h5py is not installed."""
    if out.suffix in HDF5_ENDINGS:
        try:
            import h5py  # noqa: F401
        except ImportError:
            raise ValueError(f"--out {out} needs h5py: pip install h5py, or write an .npz file") from None
