"""Where the members of a tar file lie: a small text file beside it, NAME.tar.index, that is searched as it is.

Its first line is "tats-tar-index 1 BYTES" with the size of the tar file, each further one "OFFSET SIZE MEMBER" with
tabs between: a member is found in a million lines without taking them apart.
"""

import tarfile
from collections.abc import Iterable
from typing import BinaryIO, NamedTuple

from .addresses import SourceError

ENDING = ".index"
OTHER_TAR = ("its .index was made for another tar file of this size: make it anew with python -m tats.datasets.pack "
             "SHARD.tar")
_BEHIND = 1 << 16    # bytes behind the end that are looked at; there are zeros
_HEAD = b"tats-tar-index 1 "


class StaleIndex(SourceError):
    """The index belongs to another version of the tar file."""


class Member(NamedTuple):
    """A regular file in a tar file: its bytes lie at [offset, offset + size)."""

    offset: int
    size: int
    name: str


def members_of(file: BinaryIO) -> list[Member]:
    """The regular files of an open tar file, in its order; of their content nothing is read.

    Raises:
        SourceError: it is no tar file, a compressed one, or cut off.
    """
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            found = {}   # by name, for links
            members = []
            for entry in archive:
                if entry.isreg() and not entry.issparse():
                    members.append(Member(entry.offset_data, entry.size, entry.name))
                elif entry.islnk() and entry.linkname in found:
                    members.append(found[entry.linkname]._replace(name=entry.name))
                found.update((one.name, one) for one in members[-1:])
            end = archive.offset
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise SourceError(f"no plain tar file ({error}); a compressed one must be unpacked first") from None
    size = file.seek(0, 2)
    if members and members[-1].offset + members[-1].size > size:
        raise SourceError(f"the tar file is cut off: {members[-1].name} ends behind its {size} bytes")
    file.seek(end)
    if any(file.read(_BEHIND)):   # a reader of tar files stops here without a word
        raise SourceError(f"the tar file goes on behind its end at byte {end}: a damaged header, or another tar file "
                          "put behind it")
    return members


def write_index(members: Iterable[Member], tar_size: int) -> bytes:
    """The index as bytes."""
    lines = [_row(one) for one in members if "\n" not in one.name]
    return b"\n".join([_HEAD + b"%d" % tar_size, *lines, b""])


def is_header_of(head: bytes, member: Member, index: bytes = b"") -> bool:
    """Whether the BLOCKSIZE bytes in front of those of `member` are its own header. A name that is long or not of ASCII
    is in another place: there the size must do. The header of a hard link's target is not the link's own.

    Args:
        index: where it names the header's own member at this very place, `member` is taken for a hard link to that.
    """
    try:
        found = tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    is_short = member.name.isascii() and len(member.name) <= tarfile.LENGTH_NAME
    has_name = found.name == member.name or not is_short or _row(member._replace(name=found.name)) + b"\n" in index
    return found.isreg() and found.size == member.size and has_name


def _row(member: Member) -> bytes:
    return b"%d\t%d\t%s" % (member.offset, member.size, member.name.encode("utf-8", "surrogateescape"))


def find(index: bytes, name: str, tar_size: int | None) -> Member:
    """A member by its name.

    Args:
        tar_size: of the tar file as it is now; None: not known.

    Raises:
        SourceError: it is not in there, or the index belongs to another version of the tar file.
    """
    end = index.find(b"\n")
    said = index[len(_HEAD):end]
    if not index.startswith(_HEAD) or not said.isdigit():
        raise SourceError("its .index is none: make it anew with python -m tats.datasets.pack SHARD.tar")
    if tar_size is not None and int(said) != tar_size:
        raise StaleIndex(f"its .index was made for a tar file of {int(said)} bytes, it has {tar_size}: make it anew "
                         "with python -m tats.datasets.pack SHARD.tar")
    row = b"\t%s\n" % name.encode("utf-8", "surrogateescape")
    place = index.find(row, end)
    if place < 0:
        raise SourceError("No such member of the tar file")
    if index.find(row, place + 1) >= 0:
        raise SourceError("two members of the tar file have this name")
    offset, size = index[index.rfind(b"\n", 0, place) + 1:place].split(b"\t")
    return Member(int(offset), int(size), name)
