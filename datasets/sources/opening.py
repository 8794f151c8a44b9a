"""Open what a list names, wherever it lies, as a file that can be read and moved in."""

import functools
import io
import os
from collections import OrderedDict
from collections.abc import Callable
from tarfile import BLOCKSIZE
from typing import BinaryIO

from .addresses import SourceError, check_member, is_elsewhere, scheme_of, split_member
from .kept_files import kept_files
from .part import PartOfFile
from .ranged import RangedObject
from .remote import MISSING, Described, described, fetch
from .tar_index import ENDING, OTHER_TAR, StaleIndex, find, is_header_of, members_of, write_index

__all__ = ["SourceError", "is_elsewhere", "open_source", "size_of", "version_of"]

WHOLE = 64 << 20               # bytes: larger objects are fetched by parts, as they are read
_MOST_INDEX_BYTES = 64 << 20   # of indexes that a process holds


def open_source(path: str) -> BinaryIO:
    """A video that is no local file, open for reading.

    Local tar files are read in place. What is remote and at most WHOLE bytes is fetched in one piece, a member of a tar
    file by its byte range; of larger ones only what is read. It is kept in the folder of `keep_remote_files`.

    Raises:
        SourceError: it cannot be read, and why. Reading may raise it, too.
    """
    check_member(path)
    if scheme := scheme_of(path):
        path = scheme + path[len(scheme):]   # HTTPS:// is https://
    container, name = split_member(path)
    if "://" not in container:
        return _local_member(container, name)
    cache = kept_files()
    file = None if cache is None else cache.found(path, version=_version_for(container, name))
    if file is None:
        file = _object(path) if name is None else _remote_member(path, container, name)
    if size_of(file) == 0:
        raise SourceError("the file is empty")
    return file


def _object(address: str) -> BinaryIO:
    known = described(address)
    if known.size is not None and known.size > WHOLE and known.has_ranges:
        return RangedObject(address, 0, known.size, total=known.size, version=known.version, kept=kept_files())
    return _kept(address, lambda: fetch(address, total=known.size))


def _remote_member(path: str, container: str, name: str) -> BinaryIO:
    try:
        return _by_index(path, container, name)
    except StaleIndex:   # it may have been kept for an earlier shard of this name: fetched anew, once
        _INDEXES.forget((container, None))
        if cache := kept_files():
            cache.forget(container + ENDING)
        return _by_index(path, container, name)


def _by_index(path: str, container: str, name: str) -> BinaryIO:
    """A member of a remote shard, whose header is fetched with it: it tells another member's bytes from its own."""
    index, version = _index(container, None), _version_for(container, name)
    member = find(index, name, _shard(os.getpid(), container).size)

    def headed(size: int) -> bytes:
        content = fetch(container, max(0, member.offset - BLOCKSIZE), member.offset + size)
        if not is_header_of(content[:BLOCKSIZE], member, index):
            raise StaleIndex(OTHER_TAR)
        return content

    if member.size <= WHOLE:
        return _kept(path, lambda: headed(member.size)[BLOCKSIZE:], version)
    _kept(f"{path} header", lambda: headed(0), version).close()
    return RangedObject(container, member.offset, member.size, version=described(container).version, kept=kept_files())


@functools.cache
def _shard(pid: int, container: str) -> Described:
    """What is known of a remote shard, asked once in a process: an index of another size leads to other videos' bytes,
    and members that were kept of a shard with another version are other videos."""
    return described(container)


def _version_for(container: str, name: str | None) -> str | None:
    """That of a member's shard; None, which takes any copy, for an object of its own, and for a shard of which the
    store says nothing now: what is kept can be read without it."""
    return None if name is None else _shard_version(os.getpid(), container)


@functools.cache
def _shard_version(pid: int, container: str) -> str | None:
    try:
        return _shard(pid, container).version
    except SourceError:   # asked once: each attempt takes seconds
        return None


def _kept(name: str, content: Callable[[], bytes], version: str | None = None) -> BinaryIO:
    cache = kept_files()
    found = content() if cache is None else cache.open(name, content, version)
    return io.BytesIO(found) if isinstance(found, bytes) else found


def _local_member(container: str, name: str) -> BinaryIO:
    try:
        file = open(container, "rb", buffering=0)  # noqa: SIM115 - handed on
    except OSError as error:
        raise SourceError(error.strerror) from None
    try:
        status = os.fstat(file.fileno())
        version = status.st_size, status.st_mtime_ns
        member = find(_index(container, version), name, status.st_size)
        if member.offset + member.size > status.st_size:
            raise SourceError("the tar file is cut off")
        file.seek(max(0, member.offset - BLOCKSIZE))
        if not is_header_of(file.read(BLOCKSIZE), member) and (
                member != find(_headers(container, version), name, status.st_size)):
            raise StaleIndex(OTHER_TAR)
        if member.size == 0:
            raise SourceError("the file is empty")
    except BaseException as error:
        file.close()
        if isinstance(error, StaleIndex):   # it may be made anew while this process runs
            _INDEXES.forget((container, version))
        raise
    return PartOfFile(file, member.offset, member.size, version)


def size_of(file: BinaryIO) -> int:
    """Bytes of an open file, which stays where it is: others read on from there."""
    place = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(place)
    return size


def version_of(file: BinaryIO) -> object:
    """What tells an open source from a later one of the same name; None: nothing does, objects do not change."""
    return getattr(file, "version", None)


class _Indexes:
    """Indexes of tar files that were used last, up to _MOST_INDEX_BYTES."""

    def __init__(self):
        self._kept: OrderedDict[tuple, bytes] = OrderedDict()
        self._bytes = 0

    def get(self, key: tuple, make: Callable[[], bytes]) -> bytes:
        """The index under a key; `make` gives it where it is not there."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        index = self._kept[key] = make()
        self._bytes += len(index)
        while self._bytes > _MOST_INDEX_BYTES and len(self._kept) > 1:
            self._bytes -= len(self._kept.popitem(last=False)[1])
        return index

    def forget(self, key: tuple) -> None:
        """Make the index under a key anew when it is asked for next."""
        self._bytes -= len(self._kept.pop(key, b""))


_INDEXES = _Indexes()


def _index(container: str, version: tuple | None) -> bytes:
    """The index of a tar file; where none lies beside it, one made from the tar file itself."""
    return _INDEXES.get((container, version), lambda: _read_local(container) if version else _read_remote(container))


def _headers(container: str, version: tuple) -> bytes:
    """The index that the headers of a local tar file give, whatever lies beside it."""
    return _INDEXES.get((container, version, "headers"), lambda: _read_headers(container))


def _read_local(container: str) -> bytes:
    try:
        with open(container + ENDING, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return _read_headers(container)


def _read_headers(container: str) -> bytes:
    with open(container, "rb") as file:
        return write_index(members_of(file), os.fstat(file.fileno()).st_size)


def _read_remote(container: str) -> bytes:
    def read() -> bytes:
        try:
            return fetch(container + ENDING)
        except SourceError as error:
            if MISSING not in str(error):
                raise
            raise SourceError(f"no {container.rsplit('/', 1)[-1]}{ENDING} beside the shard: make it with python -m "
                              "tats.datasets.pack SHARD.tar where the shards are local, and upload it too") from None

    with _kept(container + ENDING, read, _version_for(container, "")) as file:
        return file.read()
