"""Where two lists begin to differ, from a few bytes that a checkpoint keeps of one of them."""

import hashlib
from collections.abc import Iterator, Mapping

from .list_file import ClipList

ALL, GROWTH, DIGITS = 64, 1.02, 6   # each of the first rows is marked, then ever fewer: 550 marks for a million rows


def _places() -> Iterator[int]:
    """Numbers of rows, from 1, at which lists of any length are marked."""
    place = 0
    while True:
        place = place + 1 if place < ALL else int(place * GROWTH) + 1
        yield place


def marks_of(clips: ClipList) -> dict:
    """rows: how many; marks: of the rows up to each place, 6 hexadecimal digits."""
    digest, places, marks = hashlib.sha256(), _places(), []
    place = next(places)
    for row, path in enumerate(clips.paths):
        digest.update(f"{path}\0{clips.labels[row]}\0{clips.span(row)}\0".encode("utf-8", "surrogateescape"))
        if row + 1 == place:
            marks.append(digest.hexdigest()[:DIGITS])
            place = next(places)
    return {"rows": len(clips), "marks": "".join(marks)}


def first_difference(here: Mapping, there: Mapping) -> str:
    """What two lists say of the first row in which they differ; see `marks_of`."""
    shared = min(len(here["marks"]), len(there["marks"])) // DIGITS
    before = 0
    for number, place in zip(range(shared), _places(), strict=False):
        part = slice(DIGITS * number, DIGITS * (number + 1))
        if here["marks"][part] != there["marks"][part]:
            return f"the first row that differs is {_one_of(before + 1, place)}"
        before = place
    return f"the first {before} rows are the same"


def _one_of(first: int, last: int) -> str:
    return f"row {first}" if first == last else f"one of rows {first} to {last}"
