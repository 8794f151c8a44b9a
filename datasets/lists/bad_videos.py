"""The list of videos that could not be read, shared by all workers of a run through one file."""

import errno
import fcntl
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, TypeVar

from ..video.error import VideoError
from .seeding import mix

logger = logging.getLogger(__name__)

MAX_REPLACEMENTS = 100

Sample = TypeVar("Sample")


def _lock(file: IO) -> None:
    """Keep others out while the file is open. A file system without locks (Lustre without `-o flock`) costs at worst a
    line that stands there twice, or is missing."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL):
            raise


def replacement_row(key: int, tried: int, length: int) -> int:
    """The row that stands in for an unreadable one, `tried` = 1 for the first attempt: drawn from the sample's key.

    Raises:
        TooManyBadVideos: so many attempts in a row mean that little of the list is readable.
    """
    if tried > MAX_REPLACEMENTS:
        raise TooManyBadVideos(f"{MAX_REPLACEMENTS} videos in a row cannot be read: check the paths of the list")
    return mix(key, 2, tried) % length


def first_readable(read: Callable[[int], Sample], row: int, key: int, length: int,
                   bad_videos: "BadVideos | None") -> Sample:
    """`read(row)`, or where that raises VideoError what stands in for it: rows drawn from the key, until one is read.

    Args:
        bad_videos: where unreadable videos are noted; None: the first one raises.

    Raises:
        VideoError, TooManyBadVideos: as said.
    """
    tried = 0
    while True:
        try:
            return read(row)
        except VideoError as error:
            if bad_videos is None:
                raise
            bad_videos.add(error)
            tried += 1
            row = replacement_row(key, tried, length)


class TooManyBadVideos(ValueError):
    """More videos are unreadable than allowed: one line with the count and the list's place."""

    def __init__(self, message: str):   # a loader hands its worker's traceback on: keep its last line
        super().__init__(message.strip().rsplit("\n", 1)[-1].split("TooManyBadVideos: ", 1)[-1])


class BadVideos:
    """`bad_videos.txt`: a line `PATH: CAUSE` for each bad video, each once, whichever worker or process meets it.

    It is a file and not a queue: nothing to drain, nothing lost with a killed worker, and the record outlives the run.

    Args:
        path: of the file; an older run's lines count as well.
        total: videos in the list.
        max_fraction: more than this share of bad ones stops the run; one is always allowed.
    """

    def __init__(self, path: str | Path, total: int, max_fraction: float = .01):
        if not 0 <= max_fraction <= 1:
            raise ValueError(f"max_bad_fraction must lie between 0 and 1, got {max_fraction}")
        self.path, self.total = Path(path), total
        self._unwritten: dict[str, str] = {}   # what had to do without the file, by path
        self.allowed = min(max(1, int(total * max_fraction)), total - 1) if max_fraction else 0

    def add(self, error: VideoError) -> None:
        """Note a bad video.

        Raises:
            TooManyBadVideos: more than allowed.
        """
        try:
            known = self._noted(error)
        except OSError as fault:   # the folder was deleted, or the disk is full: the run outlives both
            if not self._unwritten:
                logger.warning("%s cannot be written (%s): each worker counts unreadable videos for itself", self.path,
                               fault.strerror or fault)
            self._unwritten.setdefault(error.path, ascii(str(error))[1:-1])
            known = list(self._unwritten.values())
        if len(known) > self.allowed:
            raise TooManyBadVideos(f"{len(known)} of {self.total} videos cannot be read, {self.allowed} are allowed "
                                   f"(max_bad_fraction): see {self.path}; the last: {error}")

    def _noted(self, error: VideoError) -> list[str]:
        """All lines, that of this error among them."""
        line = ascii(str(error))[1:-1]   # a hostile name cannot add lines
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a+", encoding="ascii") as file:
            _lock(file)
            file.seek(0)
            known = file.read().splitlines()
            # By path: the cause of a second meeting may read differently.
            if not any(old.startswith(ascii(error.path)[1:-1] + ": ") for old in known):
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
                known.append(line)
        return known

    def read(self) -> list[str]:
        """The lines so far."""
        return self.path.read_text(encoding="ascii").splitlines() if self.path.exists() else []
