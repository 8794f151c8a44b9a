"""What every read-only part of something larger has in common: a size, and a place in it."""

import io
import os


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
