"""Frames out of video files, behind one function with three decoders."""

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from .backends import BACKENDS, open_reader, resolve_backend
from .cache import KeptVideos, Tally
from .decoder_process import GuardedReader
from .error import VideoError

__all__ = ["AS_INSTALLED", "BACKENDS", "FRAME_PATTERN", "Decoding", "OpenVideo", "VideoError", "keep_videos",
           "open_video", "resolve_backend"]

# What the programs say of their flag.
FRAME_PATTERN = "of a folder of pictures only those with such names, for example 'img_*'; '*': all of them"
_KEPT: list[KeptVideos] = []   # at most one


class OpenVideo:
    """An open video.

    Attributes:
        num_frames: frames it holds, in the order of presentation.
    """

    def __init__(self, path: str, reader):
        self._path, self._reader, self._start = path, reader, 0
        self.num_frames: int = reader.num_frames

    @property
    def start(self) -> int:
        """Which frame of the whole video is the first one here; 0 unless `restrict` says otherwise."""
        return self._start

    def restrict(self, first: int, count: int) -> None:
        """Be a part of the video from now on, as lists of folders of pictures say it.

        Args:
            first: the number of its first picture as in the names; of a file, and below a folder's first, from 0.
            count: how many pictures; -1: all that follow.

        Raises:
            VideoError: there are fewer.
        """
        start = max(0, first - self._reader.first_number)
        there = self._reader.num_frames - start
        if there < max(1, count):
            asked = "frames" if count < 0 else f"{count} frames"
            raise VideoError(self._path, f"its list asks for {asked} from number {first}, {max(0, there)} of "
                                         f"{self._reader.num_frames} are there")
        self._start, self.num_frames = start, there if count < 0 else count

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Frames `indices` (T,), in any order, repeated or not -> uint8 (T, H, W, 3), RGB, upright.

        Each frame that is needed is decoded once, in order.

        Raises:
            VideoError: a frame cannot be decoded.
            ValueError: an index outside [0, num_frames).
        """
        indices = np.asarray(indices)
        wanted, places = np.unique(indices, return_inverse=True)
        if len(wanted) == 0 or wanted[0] < 0 or wanted[-1] >= self.num_frames:
            raise ValueError(f"{self._path}: frames {wanted[:1]} to {wanted[-1:]} asked of {self.num_frames}")
        frames = self._reader.decode([self._start + int(index) for index in wanted])
        return frames if len(wanted) == len(indices) and (np.diff(places) == 1).all() else frames[places]

    def close(self) -> None:
        """Give the decoder back; reading is over."""
        self._reader.close()


class Decoding(NamedTuple):
    """How videos are read.

    backend: "auto" or one of BACKENDS. timeout: seconds that a decoder may take over opening and over each `read`, in a
        process of its own; 0: in this process, without a limit. frame_pattern: which pictures of a folder.
    """

    backend: str = "auto"
    timeout: float = 0.0
    frame_pattern: str = ""

    def resolved(self) -> "Decoding":
        """The same with the decoder that "auto" stands for. Raises ValueError: it is unknown or not installed."""
        return self._replace(backend=resolve_backend(self.backend))

    def open(self, path: str | os.PathLike) -> contextlib.AbstractContextManager[OpenVideo]:
        """`open_video` with these settings."""
        return open_video(path, self.backend, self.timeout, self.frame_pattern)


AS_INSTALLED = Decoding()   # the first decoder that is installed, in this process, without a limit


@contextlib.contextmanager
def open_video(path: str | os.PathLike, backend: str = "auto", seconds: float = 0,
               frame_pattern: str = "") -> Iterator[OpenVideo]:
    """Open a video file, or a folder of pictures in the order of the numbers in their names, for a `with` block.

    Args:
        path: of the file or folder.
        backend: "auto" or one of BACKENDS (folders need none).
        seconds: decode in a process of its own, which may take that long over opening and over each `read`; 0: decode
            in this process, without a limit.
        frame_pattern: which pictures of a folder, as shells write it (img_*.jpg); "*": all of them. "": all, if they
            are numbered alike.

    Raises:
        VideoError: it cannot be opened, takes too long, crashes the decoder or holds no frames: path and cause in one
            line.
        ValueError: the backend is unknown or not installed.
    """
    path = os.fspath(path)
    make = functools.partial(_reader, path, backend, seconds, frame_pattern)
    video = OpenVideo(path, _KEPT[0].reader(path, make, (backend, frame_pattern)) if _KEPT else make())
    try:
        yield video
    finally:
        video.close()


def _reader(path: str, backend: str, seconds: float, frame_pattern: str):
    if not seconds:
        return open_reader(path, backend, frame_pattern)
    return GuardedReader(path, resolve_backend(backend), seconds, frame_pattern)


def keep_videos(mebibytes: float, tally: Tally | None = None) -> None:
    """From now on `open_video` keeps decoded frames in this process's memory, up to `mebibytes`; 0 forgets them all.

    What is kept stays when the same is asked for again.

    Args:
        tally: counts what is kept.
    """
    if not (_KEPT and (_KEPT[0].mebibytes, _KEPT[0].tally) == (mebibytes, tally)):
        _KEPT[:] = [KeptVideos(mebibytes, tally)] if mebibytes else []
