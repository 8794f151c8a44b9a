"""Decoded videos kept in memory: for many short runs over the same few small files in one process."""

import os
from collections.abc import Callable

import numpy as np


class KeptVideos:
    """Whole decoded videos, until `mebibytes` are full; from then on the others are read anew each time."""

    def __init__(self, mebibytes: float):
        self.mebibytes, self._left = mebibytes, mebibytes * 2**20
        self._frames: dict[tuple, tuple[np.ndarray, int]] = {}

    def reader(self, path: str, open_reader: Callable[[], object], frame_pattern: str = ""):
        """A reader of `path` (of a folder's pictures `frame_pattern`): from memory if it is there, else from
        `open_reader()`, and kept if there is room.

        Raises:
            VideoError: what `open_reader` or its `decode` raises; nothing is kept then.
        """
        key = (*_version(path), frame_pattern)
        if key not in self._frames:
            reader = open_reader()
            frames = reader.decode(list(range(reader.num_frames)))
            if frames.nbytes > self._left:
                return reader
            reader.close()
            self._left -= frames.nbytes
            self._frames[key] = frames, reader.first_number
        return _KeptReader(*self._frames[key])


def _version(path: str) -> tuple:
    """A file that is written anew is another one. A path that is not there is for `open_reader` to complain about."""
    try:
        status = os.stat(path)
    except OSError:
        return (path,)
    return path, status.st_mtime_ns, status.st_size


class _KeptReader:
    """As the readers of files, over frames uint8 (T, H, W, 3)."""

    def __init__(self, frames: np.ndarray, first_number: int):
        self._frames, self.num_frames, self.first_number = frames, len(frames), first_number

    def decode(self, wanted: list[int]) -> np.ndarray:
        """Frames `wanted`, a copy."""
        return self._frames[wanted]

    def close(self) -> None:
        """Nothing is open."""
