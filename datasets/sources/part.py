"""Read-only parts of something larger: what they have in common, and those of a local file."""

import io
import os
from typing import BinaryIO


class Part(io.RawIOBase):
    """Bytes [0, size) that a subclass reads from its `_place` on, in `readinto`.

    version: of the whole, tells it from a later one under the same name; None: nothing does.
    """

    def __init__(self, size: int, version: object = None):
        super().__init__()
        self.version = version
        self._size, self._place = size, 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        """As of any file."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = max(0, origin + place)
        return self._place

    def tell(self) -> int:
        """As of any file."""
        return self._place


class PartOfFile(Part):
    """Bytes [offset, offset + size) of a local file as a file of its own; nothing is copied.

    version: of the whole file, tells it from a later one under the same name.
    """

    def __init__(self, file: BinaryIO, offset: int, size: int, version: object = None):
        super().__init__(size, version)
        self._file, self._offset = file, offset

    def readinto(self, buffer) -> int:
        """As of any file."""
        view = memoryview(buffer).cast("B")
        wanted = max(0, min(len(view), self._size - self._place))
        self._file.seek(self._offset + self._place)
        count = self._file.readinto(view[:wanted]) if wanted else 0
        self._place += count
        return count

    def close(self) -> None:
        """Close the file, too."""
        self._file.close()
        super().close()
