"""List files: one video a line, `path label`, as VideoMAE's, and the usual variants of it.

    /data/ucf101/v_Archery_g01_c01.avi 2          space, tab, comma or `;`; the path may hold spaces
    "/data/a, b.mp4",2                            quotes as spreadsheets write them
    /data/clips/one.mp4                           no label: enough for pre-training
"""

import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TextIO

import numpy as np

from ..sources.addresses import require_drivers

SEPARATORS = ("\t", ";", ",", " ")   # from the one that is least likely inside a path
SHOWN_BAD_ROWS = 5
MAX_PATH = 4096      # characters; Linux opens none that is longer
MAX_LINE = 1 << 16   # characters that are kept of a line
_LABEL = re.compile(r"-?\d{1,18}")
_HEADER_WORDS = frozenset("path paths video videos file files filename name video_path video_name video_id id "
                          "label labels class class_id classes target category".split())
# A number after the file's ending: "a.mp4 300" in front of the label is a list of three columns.
_EXTRA_COLUMN = re.compile(r"\.\w{2,5}[\s,;]+-?\d+$")


class Paths:
    """Strings as one byte array and their offsets: a million rows cost their bytes, and workers do not copy them.

    (A Python list is copied into every forked worker as its reference counts are touched.)
    """

    def __init__(self, paths: Iterable[str]):
        joined, ends = bytearray(), array("q")
        for path in paths:
            joined += path.encode("utf-8", "surrogateescape")
            ends.append(len(joined))
        self._ends, self._bytes = np.array(ends, np.int64), np.frombuffer(bytes(joined), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, row: int) -> str:
        row = range(len(self))[row]   # negative rows, IndexError
        start = self._ends[row - 1] if row else 0
        return self._bytes[start:self._ends[row]].tobytes().decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return (self[row] for row in range(len(self)))


@dataclass(frozen=True)
class ClipList:
    """The rows of a list file.

    Attributes:
        paths: of the videos, as written.
        labels: (rows,) int64, -1 where the list has none.
        lines: (rows,) int64, the line of each row in the file, from 1.
        source: the list file.
    """

    paths: Paths
    labels: np.ndarray
    lines: np.ndarray
    source: str

    def __len__(self) -> int:
        return len(self.labels)


def read_list(path: str | Path, need_label: bool = True, num_classes: int | None = None) -> ClipList:
    """Read a list of videos.

    The separator is found once per file. A row is split from the right, so paths may hold the separator. A first line
    of column names is passed over, and so are blank lines.

    Args:
        path: the list file.
        need_label: False for pre-training: a last field that is no whole number then belongs to the path.
        num_classes: labels must lie in [0, num_classes).

    Raises:
        FileNotFoundError: no such list.
        ValueError: the list is empty, or has bad rows: their number, and the first five with line and reason.
    """
    rows, bad = scan_list(path, need_label, num_classes)
    if bad:
        shown = "; ".join(bad[:SHOWN_BAD_ROWS])
        raise ValueError(f"{len(bad)} of {len(rows) + len(bad)} rows of {path} cannot be used: {shown}")
    require_drivers(rows.paths)
    return rows


def scan_list(path: str | Path, need_label: bool = True, num_classes: int | None = None) -> tuple[ClipList, list[str]]:
    """Like `read_list`, but (the rows that can be used, a line of text about each of the others).

    Raises:
        FileNotFoundError: no such list.
        ValueError: the list is empty.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"list of videos not found: {path}")
    labels, lines, bad = array("q"), array("q"), []

    def good_paths(rows: Iterable[tuple[int, str]], separator: str) -> Iterator[str]:
        for number, text in rows:
            name, label = _split(text, separator)
            if reason := _fault(name, label, need_label, num_classes):
                bad.append(f"line {number}: {text[:120]!a} ({reason})")
            else:
                labels.append(-1 if label is None else label)
                lines.append(number)
                yield name

    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        rows = _rows(file)   # a row at a time: of a million only the arrays are ever in memory
        head = list(islice(rows, 200))
        separator = _find_separator([text for _, text in head])
        if head and _is_header(head[0][1]):
            del head[0]
        paths = Paths(good_paths(chain(head, rows), separator))
    if not labels and not bad:
        raise ValueError(f"list of videos is empty: {path}")
    return ClipList(paths, np.array(labels, np.int64), np.array(lines, np.int64), str(path)), bad


def _rows(file: TextIO) -> Iterator[tuple[int, str]]:
    """(line number, text) of the lines that are not blank."""
    number = 0
    while line := file.readline(MAX_LINE):
        number += 1
        if text := line.strip():
            yield number, text
        while len(line) == MAX_LINE and not line.endswith("\n"):   # the rest of it: what stands here is no list
            line = file.readline(MAX_LINE)


def _find_separator(texts: list[str]) -> str:
    """The separator that most rows have in front of a whole number; a space when none has any."""
    counts = [sum(_split(text, separator)[1] is not None for text in texts) for separator in SEPARATORS]
    return SEPARATORS[counts.index(max(counts))] if any(counts) else " "


def _split(text: str, separator: str) -> tuple[str, int | None]:
    """`path label` -> (path, label); (text, None) where the last field is no whole number."""
    name, found, last = text.rpartition(separator)
    if found and _LABEL.fullmatch(last.strip()) and name.strip():
        return _unquote(name.strip()), int(last)
    return _unquote(text), None


def _unquote(name: str) -> str:
    if len(name) > 1 and name[0] == name[-1] == '"':
        return name[1:-1].replace('""', '"')
    return name


def _is_header(text: str) -> bool:
    fields = re.split(r"[\s,;]+", text.lower())
    return all(field.strip('"#') in _HEADER_WORDS for field in fields)


def _fault(name: str, label: int | None, need_label: bool, num_classes: int | None) -> str:
    """Why a row cannot be used; empty when it can."""
    if not name:
        return "no path"
    if len(name) > MAX_PATH:
        return f"longer than {MAX_PATH} characters"
    if "\0" in name:
        return "a zero byte in the path"
    if label is None:
        return "no label: expected `path label` with a whole number" if need_label else ""
    if _EXTRA_COLUMN.search(name):
        return "more than two columns: expected `path label`"
    if need_label and label < 0:
        return f"label {label} is negative"
    if num_classes is not None and label >= num_classes:
        return f"label {label}, but there are {num_classes} classes (0 to {num_classes - 1})"
    return ""
