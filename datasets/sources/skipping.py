"""A file that pretends: what is not needed to find the places of its packets comes as zeros, and is not read."""

import os
from typing import BinaryIO

HEAD = 16   # bytes: as much as stands in front of a packet in containers that scatter their headers


class SkippingFile:
    """For av.open; reads as the file does until `skip` is called.

    Args:
        file: open for reading; it is closed with this one where `owns` says so.
        size: its bytes.
    """

    def __init__(self, file: BinaryIO, size: int, owns: bool = True):
        self._file, self._size, self._owns, self._kept = file, size, owns, -1

    def skip(self, kept: int) -> None:
        """From now on only the first `kept` bytes of each read are true, the others are zeros."""
        self._kept = kept

    def read(self, count: int) -> bytes:
        """At most `count` bytes."""
        if self._kept < 0 or count <= self._kept:
            return self._file.read(count)
        start = self._file.tell()
        count = max(0, min(count, self._size - start))
        head = self._file.read(min(count, self._kept)) if self._kept else b""
        self._file.seek(start + count)
        return head + bytes(count - len(head))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of files."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As of files."""
        return self._file.tell()

    def close(self) -> None:
        """As of files."""
        if self._owns:
            self._file.close()
