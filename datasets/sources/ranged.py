"""A large object behind an address as a file: only those parts of it are fetched that are read."""

from collections import OrderedDict

from .addresses import SourceError
from .kept_files import KeptFiles
from .part import Part
from .remote import described, fetch

BLOCK = 1 << 18       # bytes
_MOST_AT_ONCE = 32    # blocks of one request, where what is read follows on what was read
_HELD = 64            # blocks in memory


class RangedObject(Part):
    """Bytes [start, start + size) of an object.

    Args:
        address: of the object. total: its bytes, None: not known.
        version: tells it from a later one of the same name; None: nothing does.
        kept: where what is fetched is kept; None, or without a version: nowhere.
    """

    def __init__(self, address: str, start: int, size: int, *, total: int | None = None, version: object = None,
                 kept: KeptFiles | None = None):
        super().__init__(size, version)
        self._address, self._start, self._total = address, start, total
        self._kept = None if version is None else kept
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._next, self._count = 0, 1   # _next: behind what was fetched last, _count: how many blocks

    def readinto(self, buffer) -> int:
        """As of any file; up to the end of a block.

        Raises:
            SourceError: the bytes cannot be fetched, or are those of a later object under the same name.
        """
        view = memoryview(buffer).cast("B")
        number, offset = divmod(self._place, BLOCK)
        wanted = max(0, min(len(view), self._size - self._place, BLOCK - offset))
        if wanted:
            view[:wanted] = self._block(number)[offset:offset + wanted]
        self._place += wanted
        return wanted

    def _block(self, number: int) -> bytes:
        if number not in self._blocks and not self._find(number):
            self._count = min(2 * self._count, _MOST_AT_ONCE) if number == self._next else 1
            self._next = number + self._count
            first, end = number * BLOCK, min(self._next * BLOCK, self._size)
            content = fetch(self._address, self._start + first, self._start + end, total=self._total)
            if self.version is not None and described(self._address).version != self.version:
                raise SourceError("the object was replaced while it was read")   # parts of two would be one video
            if len(content) == self._total != end - first:   # a server that knows no ranges sends all of it: keep all
                first, content = 0, content[self._start:self._start + self._size]
            for place in range(0, len(content), BLOCK):
                self._hold(first // BLOCK + place // BLOCK, content[place:place + BLOCK])
            while len(self._blocks) > max(_HELD, -(-len(content) // BLOCK)):
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(number)
        return self._blocks[number]

    def _find(self, number: int) -> bool:
        """Take a block from the disk, where it is kept."""
        file = self._kept and self._kept.found(self._name(number))
        if not file:
            return False
        with file:
            content = file.read()
        if len(content) != min(BLOCK, self._size - number * BLOCK):
            self._kept.forget(self._name(number))   # damaged
            return False
        self._blocks[number] = content
        return True

    def _hold(self, number: int, content: bytes) -> None:
        self._blocks[number] = content
        if self._kept:
            self._kept.open(self._name(number), lambda: content)

    def _name(self, number: int) -> str:
        return f"bytes {self._start}+{self._size} block {number} version {self.version} of {self._address}"
