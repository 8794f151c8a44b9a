"""Copies of objects on a local disk, up to a size; the least recently used ones go. Many processes may share a folder.

Settings are environment variables, so that loader workers and decoder processes, however they are started, know them.
"""

import contextlib
import fcntl
import functools
import hashlib
import logging
import math
import os
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from .part import PartOfFile

logger = logging.getLogger(__name__)

FOLDER, GIGABYTES = "TATS_CACHE_DIR", "TATS_CACHE_GB"
DEFAULT_GB = 50.0
_KEPT_SHARE = .9      # of the limit, after the oldest ones are gone: the next few need no look at the whole folder
_DIGITS = 19          # that bytes of a disk may have; more are damage
_MAGIC, _MOST_HEAD, _PIECE = b"tats-kept-1", 128, 1 << 20
_ABANDONED = 3600     # seconds after which a file that nobody finished is taken for a killed process's


def keep_remote_files(folder: str, gigabytes: float) -> None:
    """From now on this process and those that it starts keep what they fetch in `folder`; "": as the environment says.

    Raises:
        ValueError: no room is allowed, the environment's is no number, or the folder cannot be made.
    """
    if not folder:
        _environments_limit()
        return
    if gigabytes <= 0:
        raise ValueError(f"--cache_gb must be above 0, got {gigabytes:g}")
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--cache_dir {folder}: {error.strerror}") from None
    os.environ[FOLDER], os.environ[GIGABYTES] = os.path.abspath(folder), str(gigabytes)


def kept_files() -> "KeptFiles | None":
    """The cache that the environment names; None: there is none."""
    folder = os.environ.get(FOLDER)
    return KeptFiles(Path(folder), _environments_limit()) if folder else None


def _environments_limit() -> int:
    text = os.environ.get(GIGABYTES) or str(DEFAULT_GB)
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = math.nan
    if not 0 < gigabytes < math.inf:
        raise ValueError(f"{GIGABYTES}={text} in the environment must be a number above 0")
    return int(gigabytes * 1e9)


class KeptFiles:
    """A folder of copies.

    Args:
        folder: it may be shared by processes, also of several machines where its file system has locks.
        limit: bytes.
        quiet: say nothing where it cannot be written.
    """

    def __init__(self, folder: Path, limit: int, quiet: bool = False):
        self.folder, self.limit, self.quiet = folder, limit, quiet

    def path(self, name: str) -> Path:
        """Where the copy of an object lies."""
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
        return self.folder / digest[:2] / digest[2:]

    def open(self, name: str, fetch: Callable[[], bytes], version: str | None = None) -> BinaryIO | bytes:
        """The copy of an object, open; where there is none, what `fetch` returns, which is kept from then on.

        Args:
            version: tells the object from an earlier one of the same name, whose copy is none; None: any copy is one.

        A file that is open stays readable when another process deletes it.

        Raises:
            What `fetch` raises; nothing is kept then.
        """
        file = self.found(name, version)
        if file is None:
            content = fetch()
            self._keep(self.path(name), _head(content, version) + content)
            return content
        return file

    def found(self, name: str, version: str | None = None) -> BinaryIO | None:
        """The copy of an object, open; None: there is none that can be read. One that is damaged, or that of another
        version, is deleted."""
        path = self.path(name)
        try:
            file = open(path, "rb", buffering=0)  # noqa: SIM115 - handed on
        except OSError:
            return None
        part = _checked(file, version)
        if part is None:
            file.close()
            self.forget(name)
            return None
        with contextlib.suppress(OSError):   # on a file system that others only read
            os.utime(path)
        return part

    def forget(self, name: str) -> None:
        """Delete the copy of an object, which is damaged."""
        with contextlib.suppress(OSError):
            self.path(name).unlink()

    def _keep(self, path: Path, content: bytes) -> None:
        if len(content) > self.limit:
            return
        try:
            self._make_room(len(content))
            _write_whole(path, content)
        except OSError as error:   # a cache that cannot be written costs time, no run
            if not self.quiet:
                _say_once(str(self.folder), error.strerror or str(error))

    def _make_room(self, size: int) -> None:
        """Count `size` bytes in, and delete the oldest files where they would be too many."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "size", "a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            text = file.read()
            total = int(text) if text.isdigit() and len(text) < _DIGITS else self.limit   # unknown: look
            if total + size > self.limit:
                total = self._delete_oldest(max(0, int(_KEPT_SHARE * self.limit) - size))
            file.truncate(0)
            file.write(b"%d" % (total + size))

    def _delete_oldest(self, wanted: int) -> int:
        """Delete until at most `wanted` bytes are left; how many there are."""
        found = sorted(self._files())
        total = sum(size for _, size, _ in found)
        for _, size, path in found:
            if total <= wanted:
                break
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            total -= size
        return total

    def _files(self) -> Iterator[tuple[float, int, str]]:
        """(last used, bytes, path) of the copies; what a killed process left unfinished goes."""
        for folder in self.folder.glob("[0-9a-f][0-9a-f]"):
            for entry in os.scandir(folder):
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat()
                    if not entry.name.endswith(".writing"):
                        yield status.st_mtime, status.st_size, entry.path
                    elif time.time() - status.st_mtime > _ABANDONED:
                        os.unlink(entry.path)


def _head(content: bytes, version: str | None) -> bytes:
    """The first line of a copy: what it must be, and whose it is."""
    mark = "-" if version is None else hashlib.sha256(version.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return b"%s %08x %d %s\n" % (_MAGIC, zlib.crc32(content), len(content), mark.encode())


def _checked(file: BinaryIO, version: str | None) -> PartOfFile | None:
    """What lies behind the first line of a copy; None: it is damaged, or of another version."""
    try:
        head = file.read(_MOST_HEAD).partition(b"\n")[0] + b"\n"
        file.seek(len(head))
        content = 0, 0   # its CRC, its bytes
        while piece := file.read(_PIECE):
            content = zlib.crc32(piece, content[0]), content[1] + len(piece)
    except OSError:
        return None
    said, _, mark = head.rpartition(b" ")
    if said != b"%s %08x %d" % (_MAGIC, *content) or (version is not None and mark != _head(b"", version).split()[-1] +
                                                      b"\n"):
        return None
    return PartOfFile(file, len(head), content[1])


@functools.cache
def _say_once(folder: str, cause: str) -> None:
    logger.warning("cache in %s: %s; what is fetched is not kept", folder, cause)


def _write_whole(path: Path, content: bytes) -> None:
    """The file appears whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex}.writing")   # process numbers are those of a machine
    try:
        with open(unfinished, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
