"""The columns of a list file: which of its layouts it has, and what a row of it says.

    path label                       VideoMAE's, mmaction2's for videos
    path                             no label
    path start total [label]         VideoMAEv2's, mmaction2's with an offset; `0 -1`: the whole video
    folder total label               mmaction2's and VideoMAEv2's for folders of pictures
"""

import csv
import os
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

SEPARATORS = ("\t", ";", ",", " ")   # from the one that is least likely inside a path
WHOLE = (0, -1)
MAX_PATH = 4096      # characters; Linux opens none that is longer
_NUMBER = re.compile(r"-?\d{1,18}")
_ENDING = re.compile(r"\.\w{2,5}$")
_MOST_NUMBERS = 3
_LOOKED_AT = 5


class Row(NamedTuple):
    """What a row says.

    Fields:
        path: of the video.
        label: its class, None without.
        span: (first picture by its number, how many; -1: all), of a folder.
        fault: why the row cannot be used, "" where it can.
    """

    path: str
    label: int | None
    span: tuple[int, int] = WHOLE
    fault: str = ""


class Layout(NamedTuple):
    """How the rows of a list are read.

    Fields:
        separator: one of SEPARATORS.
        numbers: whole numbers behind the path, from 0.
        starts: of two numbers, whether they are start and total (else total and label).
    """

    separator: str
    numbers: int
    starts: bool = False

    def read(self, text: str) -> Row:
        """A row that is not blank."""
        path, numbers = split(text, self.separator, max(1, self.numbers))
        if self.numbers < 2:
            extra = split(text, self.separator, _MOST_NUMBERS)
            if len(extra[1]) > 1 and (self.separator != " " or _ENDING.search(extra[0])):
                other = f"{1 + len(extra[1])} columns where other rows have at most two"
                return Row(*extra[:1], None, fault=_several(*extra).fault or other)
            return Row(path, numbers[0] if numbers else None)
        if len(numbers) < self.numbers:
            return Row(path, None, fault=f"{1 + len(numbers)} columns where other rows have {1 + self.numbers}")
        return _several(path, numbers, self.starts)


def find_layout(texts: Sequence[str]) -> Layout:
    """The layout of a list by its first rows: the separator that most have in front of a whole number, and how many
    numbers most have behind a path."""
    counts = [sum(bool(split(text, separator, 1)[1]) for text in texts) for separator in SEPARATORS]
    if not any(counts):
        return Layout(" ", 0)
    separator = SEPARATORS[counts.index(max(counts))]
    found = [split(text, separator, _MOST_NUMBERS) for text in texts]
    usual, rows = Counter(len(numbers) for _, numbers in found).most_common(1)[0]
    if usual < 2 or 2 * rows <= len(texts) or _ends_with_number(texts[:_LOOKED_AT], separator):
        return Layout(separator, 1)
    pairs = [numbers for _, numbers in found if len(numbers) == 2]
    return Layout(separator, usual, usual == 2 and all(first in (0, 1) or second == -1 for first, second in pairs))


def _ends_with_number(texts: Sequence[str], separator: str) -> bool:
    """Whether a path itself ends with a number behind a space: such a file or folder is there."""
    return separator == " " and any(os.path.exists(split(text, separator, 1)[0]) for text in texts)


def split(text: str, separator: str, most: int) -> tuple[str, list[int]]:
    """(path, the whole numbers behind it, at most `most`); a path is never empty where the text is not."""
    if text.startswith('"'):
        fields = _quoted_fields(text, separator)
    else:
        fields, rest = [], text
        while len(fields) < most:
            head, found, last = rest.rpartition(separator)
            if not found or not head.strip() or not _NUMBER.fullmatch(last.strip()):
                break
            rest = head.rstrip() if separator == " " else head
            fields.insert(0, last)
        fields.insert(0, rest)
    numbers: list[int] = []
    while len(fields) > 1 and len(numbers) < most and _NUMBER.fullmatch(fields[-1].strip()):
        numbers.insert(0, int(fields.pop()))
    return separator.join(fields).strip(), numbers


def _quoted_fields(text: str, separator: str) -> list[str]:
    """Fields of a row as spreadsheets write it."""
    try:
        return next(csv.reader([text], delimiter=separator, skipinitialspace=True))
    except (csv.Error, StopIteration):
        return [text]


def _several(path: str, numbers: list[int], starts: bool = True) -> Row:
    """A row with two or three numbers behind its path."""
    label = numbers[2] if len(numbers) > 2 else None
    span = (numbers[0], numbers[1])
    if len(numbers) == 2 and not starts:
        span, label = (0, numbers[0]), numbers[1]
    if span[0] < 0 or span[1] == 0 or span[1] < -1:
        return Row(path, label, fault=f"start {span[0]} and number of frames {span[1]}: at least 0 and 1 are expected, "
                                      "-1 for the whole video")
    if span != WHOLE and _ENDING.search(path):
        return Row(path, label, fault="more than two columns: expected `path label`, `path 0 -1 label` for a whole "
                                      "video, or `folder start total label` for pictures; cut the parts out first")
    return Row(path, label, span)
