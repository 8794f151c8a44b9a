"""Decoded frames kept in memory: for many epochs over the same small videos."""

import multiprocessing
import os
from collections.abc import Callable

import numpy as np

from .error import VideoError

SHORT = 8   # times the frames that were asked for: up to so many are read ahead, the whole video or what lies between


class Tally:
    """How much the processes that share it keep; made before they are started.

    Attributes of `read`: videos, bytes, and frames that found no room.
    """

    def __init__(self):
        self._numbers = multiprocessing.Array("q", 3)

    def add(self, videos: int = 0, size: int = 0, without_room: int = 0) -> None:
        """Count what has been kept, or could not be."""
        with self._numbers.get_lock():
            for place, number in enumerate((videos, size, without_room)):
                self._numbers[place] += number

    def read(self) -> tuple[int, int, int]:
        """(videos, bytes, frames that found no room)."""
        with self._numbers.get_lock():
            return tuple(self._numbers)


class KeptVideos:
    """The frames of videos as they were decoded, until `mebibytes` are full; from then on others are decoded anew each
    time.

    What is asked for is decoded as without it. Then, where there is room, a short video's other frames are read ahead,
    or those that lie within the clip; what cannot be read of these is no error. A clip that starts elsewhere then
    finds its frames.

    Args:
        tally: counts what is kept, beside that of other processes.
    """

    def __init__(self, mebibytes: float, tally: Tally | None = None):
        self.mebibytes, self.tally, self._left = mebibytes, tally, mebibytes * 2**20
        self._videos: dict[tuple, _Video] = {}

    def reader(self, path: str, open_reader: Callable[[], object], about: tuple = ()):
        """A reader of `path`: from memory where its frames are there, else from `open_reader()`.

        Args:
            about: what else its frames depend on: the decoder, the pictures of a folder that count.

        Raises:
            VideoError: what `open_reader` or its `decode` raises; nothing is kept then.
        """
        key = (*_version(path), *about)
        opened = None
        if key not in self._videos:
            opened = open_reader()
            self._videos[key] = _Video(opened.num_frames, opened.first_number)
        return _KeptReader(self, self._videos[key], open_reader, opened)

    def keep(self, video: "_Video", numbers: list[int], frames: np.ndarray) -> None:
        """Keep frames `numbers` of a video, or none of them where there is no room."""
        if not self.has_room(frames.nbytes):
            self._count(without_room=len(numbers))
            return
        self._left -= frames.nbytes
        self._count(videos=not video.frames, size=frames.nbytes)
        video.frames.update(zip(numbers, frames, strict=True))

    def has_room(self, size: int) -> bool:
        """For so many bytes."""
        return size <= self._left

    def _count(self, **numbers: int) -> None:
        if self.tally is not None:
            self.tally.add(**numbers)


class _Video:
    """What is known of a video, and those of its frames that are kept, uint8 (H, W, 3) by number."""

    def __init__(self, num_frames: int, first_number: int):
        self.num_frames, self.first_number = num_frames, first_number
        self.frames: dict[int, np.ndarray] = {}
        self.read_ahead = True


def _version(path: str) -> tuple:
    """A file that is written anew is another one. A path that is not there is for `open_reader` to complain about."""
    try:
        status = os.stat(path)
    except OSError:
        return (path,)
    return path, status.st_mtime_ns, status.st_size


class _KeptReader:
    """As the readers of files; it opens the file when a frame is not kept."""

    def __init__(self, kept: KeptVideos, video: _Video, open_reader: Callable[[], object], opened):
        self._kept, self._video, self._open, self._opened = kept, video, open_reader, opened
        self.num_frames, self.first_number = video.num_frames, video.first_number

    def decode(self, wanted: list[int]) -> np.ndarray:
        """Frames `wanted` (ascending, distinct), a copy of those that are kept."""
        missing = [number for number in wanted if number not in self._video.frames]
        if not missing:
            return np.stack([self._video.frames[number] for number in wanted])
        found = self._decoded(missing)
        self._kept.keep(self._video, missing, found)
        if len(missing) == len(wanted):
            frames = found.copy()   # what is kept is not handed out
        else:
            fresh = dict(zip(missing, found, strict=True))
            frames = np.stack([fresh[number] if number in fresh else self._video.frames[number] for number in wanted])
        self._read_ahead(wanted, found.nbytes // len(missing))
        return frames

    def _decoded(self, numbers: list[int]) -> np.ndarray:
        if self._opened is None:
            self._opened = self._open()
        return self._opened.decode(numbers)

    def _read_ahead(self, wanted: list[int], frame_size: int) -> None:
        most = SHORT * len(wanted)
        near = range(self.num_frames) if self.num_frames <= most else range(wanted[0], wanted[-1] + 1)
        more = [number for number in near if number not in self._video.frames]
        if not (self._video.read_ahead and more and len(near) <= most and
                self._kept.has_room(len(more) * frame_size)):
            return
        try:
            self._kept.keep(self._video, more, self._decoded(more))
        except VideoError:   # nobody has asked for these
            self._video.read_ahead = False

    def close(self) -> None:
        """Close the file, where one is open."""
        if self._opened is not None:
            self._opened.close()
