"""Tar shards of videos, written one after the other, each with its index."""

import contextlib
import io
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from .files import written_whole
from .sources.addresses import is_elsewhere
from .sources.opening import open_source
from .sources.tar_index import ENDING, Member, members_of, write_index


class ShardWriter:
    """Tar files NAME-000000.tar, ... of about `limit` bytes, each with its index. A file takes its name when done.

    Args:
        folder: where they go. name: what they begin with.
    """

    def __init__(self, folder: Path, name: str, limit: int):
        self.folder, self.name, self.limit, self.number = folder, name, limit, 0
        self._archive: tarfile.TarFile | None = None

    def add(self, files: Sequence[tuple[str, bytes]], path: str, ending: str, key: str) -> str:
        """Put a video and its small files (ending, content) into a shard; the shard's name.

        Raises:
            Unreadable: the video cannot be read; the shard is as it was before. OSError: the shard cannot be written.
        """
        with _opened(path) as video:
            if self._archive is not None and self._archive.offset + video.size > self.limit:
                self.close()
            if self._archive is None:
                self._archive = tarfile.open(self._unfinished, "w", format=tarfile.PAX_FORMAT)
            before = self._archive.offset
            try:
                self._archive.addfile(_entry(key + ending, video.size), video)
            except Unreadable:   # its header is there, and a part of it
                self._archive.fileobj.seek(before)
                self._archive.fileobj.truncate()
                self._archive.offset = before
                raise
        for other, content in files:
            self._archive.addfile(_entry(key + other, len(content)), io.BytesIO(content))
        return self._path.name

    @property
    def _path(self) -> Path:
        return self.folder / f"{self.name}-{self.number:06d}.tar"

    @property
    def _unfinished(self) -> Path:
        return self._path.with_name(f"{self._path.name}.{os.getpid()}.writing")

    def close(self) -> None:
        """Finish the shard that is being written, and its index."""
        if self._archive is None:
            return
        self._archive.close()
        self._archive = None
        index_shard(self._unfinished, self._path)
        os.replace(self._unfinished, self._path)
        self.number += 1

    def drop(self) -> None:
        """Give up the shard that is being written."""
        if self._archive is not None:
            self._archive.close()
            self._unfinished.unlink(missing_ok=True)


def other_shards(folder: Path, name: str, written: int) -> list[str]:
    """Shards NAME-000000.tar, ... of an earlier and larger pack, which one that `written` shards has not replaced."""
    numbered = re.compile(rf"{re.escape(name)}-(\d{{6}})\.tar")
    return sorted(found[0] for entry in os.listdir(folder)
                  if (found := numbered.fullmatch(entry)) and int(found[1]) >= written)


def _entry(name: str, size: int) -> tarfile.TarInfo:
    """The same bytes for the same content, whoever packs and whenever."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    return entry


class Unreadable(ValueError):
    """A video that cannot be packed, and why."""


class _Video:
    """An open video of `size` bytes, of which every read gives what is asked for.

    Raises:
        Unreadable: from all methods, it cannot be read, is empty, or was cut off meanwhile.
    """

    def __init__(self, file: BinaryIO):
        with _blamed():
            self._file, self.size = file, file.seek(0, os.SEEK_END)
            file.seek(0)
        if self.size == 0:
            raise Unreadable("the file is empty")

    def read(self, count: int) -> bytes:
        with _blamed():
            found = self._file.read(count)
        if len(found) < count:
            raise Unreadable("the file was cut off while it was packed")
        return found


@contextlib.contextmanager
def _opened(path: str) -> Iterator[_Video]:
    with _blamed():
        file = open_source(path) if is_elsewhere(path) else open(path, "rb")
    with file:
        yield _Video(file)


@contextlib.contextmanager
def _blamed() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from None


def index_shard(shard: Path, named: Path | None = None) -> list[Member]:
    """Write the index of a shard (that will be called `named`) and return what is in it.

    Raises:
        SourceError: it is no plain tar file.
    """
    named = named or shard
    with open(shard, "rb") as file:
        members = members_of(file)
        index = write_index(members, file.seek(0, os.SEEK_END))
    with written_whole(named.with_name(named.name + ENDING), "wb") as file:
        file.write(index)
    return members
