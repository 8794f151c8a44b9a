"""A run's folder: one run at a time writes there, all its processes see it, and what another run left is kept."""

import contextlib
import errno
import fcntl
import math
import os
import platform
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from .checkpointing import load, numbered_checkpoints, order_of
from .runtime import Runtime

LOCK = ".lock"
PATIENCE = 5.0   # seconds: a run that is ending, and a file system that shows a new file late

BEST = "checkpoint-best.pth"   # of a fine-tuning: the weights of the epoch that validated best

# What a run writes into its folder, beside the shares of its checkpoints. bad_videos.txt is about the data: it stays.
RESULTS = ("result.json", "predictions.csv", "confusion.*", "evaluation-*", "finished", "stopped")
OF_A_RUN = (*RESULTS, "log.txt", "settings.json", BEST, "bad_steps.jsonl", "events.out.tfevents.*",
            "pictures")


class FolderInUse:
    """The lock on a run's folder, held until `release` or the end of the process, however that comes.

    Where the file system has no locks (Lustre without `-o flock`) it keeps nobody out.
    """

    def __init__(self, folder: Path, runtime: Runtime):
        """Take the lock on rank 0; every process must call.

        Raises:
            ValueError: another run writes there, or the processes do not see the same folder.
        """
        self._folder, self._file, note, problem = folder, None, None, None
        if runtime.is_main:
            try:
                note = self._take()
            except ValueError as error:
                problem = str(error)
        note, problem = runtime.gather_objects((note, problem))[0]
        if problem:
            raise ValueError(problem)
        if runtime.world_size > 1:   # who holds the lock must not read: to close the file would give the lock away
            must_be_shared(folder, runtime.is_main or _shows(folder, note), runtime)

    def _take(self) -> str:
        """Raises ValueError: another run writes there."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise ValueError(f"--output_dir {self._folder} cannot be a folder: {error.filename} is or lies below a "
                             "file; give another one") from None
        self._file = open(self._folder / LOCK, "a+", encoding="utf-8")
        if not self._taken():
            self.release()
            raise ValueError(f"{self._folder} is in use by another run ({_content(self._folder) or 'unknown'}): wait "
                             "until it has ended, or give another --output_dir. If it has died with its machine, "
                             f"delete {self._folder / LOCK}")
        note = f"{platform.node()}, process {os.getpid()}, since {time.strftime('%FT%T%z')}"
        self._write(note)
        return note

    def retake(self) -> None:
        """Make the folder and its lock again where they have been deleted or moved away since; on rank 0.

        Raises:
            ValueError: another run writes there now. OSError: it cannot be made, or does not answer.
        """
        own = os.fstat(self._file.fileno()) if self._file is not None else None
        try:
            there = os.stat(self._folder / LOCK)
        except FileNotFoundError:
            there = None
        if None in (own, there) or (there.st_dev, there.st_ino) != (own.st_dev, own.st_ino):
            self.release()
            self._take()

    def _taken(self) -> bool:
        """POSIX's lock: loader workers do not inherit it, so it goes with this process."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    return True
            else:
                return True
            if time.monotonic() > end:
                return False
            time.sleep(.1)

    def _write(self, note: str) -> None:
        with contextlib.suppress(OSError):   # a full disk
            self._file.truncate(0)
            self._file.write(note)
            self._file.flush()
            os.fsync(self._file.fileno())

    def release(self) -> None:
        """Let others write there."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _content(folder: Path) -> str | None:
    try:
        return (folder / LOCK).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _shows(folder: Path, note: str) -> bool:
    """Whether the folder holds what rank 0 has written there."""
    end = time.monotonic() + PATIENCE
    while (found := _content(folder)) not in (note, "") and time.monotonic() < end:
        time.sleep(.1)
    return found in (note, "")   # "": no room for the note


def must_be_shared(folder: Path | None, as_rank_0: bool, runtime: Runtime) -> None:
    """Raises ValueError: a process sees another folder than rank 0, whose view `as_rank_0` describes."""
    views = runtime.gather_objects((as_rank_0, platform.node()))
    if len({seen for seen, _ in views}) > 1:
        others = sorted({node for seen, node in views if seen != views[0][0]})
        raise ValueError(f"{folder} is not the same for all processes: {', '.join(others)} sees other files there than "
                         f"{views[0][1]}. Put --output_dir (and --resume) on a file system that all nodes share")


def set_aside(folder: Path, log: bool = False) -> Path | None:
    """Move what a run left in a folder to the first free `replaced-N` in it; None where there is no checkpoint and no
    result. log: where log.txt is all there is, too.

    The checkpoints go last: after a kill in between, the next start finds them and moves the rest to the same place.
    """
    checkpoints = [path for _, path in numbered_checkpoints(folder)]
    results = [folder / name for name in ("result.json", "log.txt")[:1 + log]]
    if not (checkpoints or any(path.is_file() for path in results) or any(folder.glob("replaced-*.unfinished"))):
        return None
    place, unfinished = _place(folder)
    _move(_of_a_run(folder, OF_A_RUN), unfinished)
    _move(reversed(checkpoints), unfinished)
    unfinished.rename(place)
    return place


def set_newer_aside(folder: Path, source: Path) -> Path | None:
    """The same for what this folder holds from after its checkpoint `source`: checkpoints and results, with copies of
    log.txt and settings.json. None where there is no such checkpoint.
    """
    until = order_of(source) or _order_within(source)
    newer = [path for _, path in numbered_checkpoints(folder) if order_of(path) > until]
    if not newer:
        return None
    place, unfinished = _place(folder)
    for name in ("log.txt", "settings.json"):
        if (folder / name).is_file() and not (unfinished / name).exists():
            shutil.copy2(folder / name, unfinished / name)
    _move(_of_a_run(folder, RESULTS), unfinished)
    best = folder / BEST
    with contextlib.suppress(OSError, ValueError):
        if best != source and _order_within(best) > until:
            _move([best], unfinished)
    _move(reversed(newer), unfinished)
    unfinished.rename(place)
    return place


def _order_within(checkpoint: Path) -> tuple[int, float]:
    """As `order_of`, of a file whose name does not say it, such as checkpoint-best.pth."""
    state = load(checkpoint)
    return state.get("epoch", -1), state.get("step", 0) if state.get("position") else math.inf


def _place(folder: Path) -> tuple[Path, Path]:
    """(the first free replaced-N, the folder that will become it: one that a kill has left, or a new one)."""
    number = 1
    while (place := folder / f"replaced-{number}").exists():
        number += 1
    unfinished = folder / f"replaced-{number}.unfinished"
    unfinished.mkdir(exist_ok=True)
    return place, unfinished


def _of_a_run(folder: Path, patterns: Iterable[str]) -> list[Path]:
    return sorted({path for pattern in patterns for path in folder.glob(pattern)})


def _move(paths: Iterable[Path], place: Path) -> None:
    for path in paths:
        share = path.with_suffix("")   # what the processes keep beside a checkpoint
        for one in (share, path) if path.suffix == ".pth" else (path,):
            if one.exists():
                one.rename(place / one.name)
