"""List files: one video a line, `path label`, as VideoMAE's, and the usual variants of it.

    /data/ucf101/v_Archery_g01_c01.avi 2          space, tab, comma or `;`; the path may hold spaces
    "/data/a, b.mp4","2"                          quotes as spreadsheets write them
    /data/clips/one.mp4                           no label: enough for pre-training
    /data/clips/one.mp4 0 -1                      VideoMAEv2's, the whole video
    /data/frames/one 1 150 2                      VideoMAEv2's and mmaction2's for pictures: start, total, label
"""

import contextlib
import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TextIO

import numpy as np

from ...models.convert.kinds import LOOKED_AT, kind_of_no_text
from ..sources.addresses import require_drivers
from .columns import MAX_PATH, WHOLE, Layout, Row, find_layout

SHOWN_BAD_ROWS = 5
MAX_LINE = 1 << 16   # characters that are kept of a line
_HEADER_WORDS = frozenset("path paths video videos file files filename name video_path video_name video_id id folder "
                          "frame_dir start start_index offset total total_frames num_frames frames "
                          "label labels class class_id classes target category".split())
# What a file begins with that is no UTF-8, in the order in which they are looked for.
_MARKS = ((b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


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
        spans: (rows, 2) int64, the number of the first picture and how many (-1: all); None: all of every video.
    """

    paths: Paths
    labels: np.ndarray
    lines: np.ndarray
    source: str
    spans: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def span(self, row: int) -> tuple[int, int]:
        """(number of the first picture, how many) of a row; WHOLE: all."""
        return WHOLE if self.spans is None else tuple(self.spans[row].tolist())

    @contextlib.contextmanager
    def opened(self, row: int, open_video: Callable) -> Iterator:
        """The video of a row, or the part of it that the row names.

        open_video: path -> context of an open video. Raises VideoError: it cannot be read, or has no such part.
        """
        with open_video(self.paths[row]) as video:
            if self.spans is not None and self.span(row) != WHOLE:
                video.restrict(*self.span(row))
            yield video

    def line(self, row: int, path: str | None = None) -> str:
        """A row as a list file has it. path: another video in its place, of the same pictures."""
        span = () if self.spans is None or path is not None else self.span(row)
        label = (int(self.labels[row]),) if self.labels[row] >= 0 else ()
        return " ".join(map(str, (path or self.paths[row], *span, *label)))


def read_list(path: str | Path, need_label: bool = True, num_classes: int | None = None) -> ClipList:
    """Read a list of videos.

    The layout is found once per file, see `columns`. A row is split from the right, so paths may hold the separator. A
    first line of column names is passed over, and so are blank lines. UTF-8 with or without its mark; UTF-16 with it.

    Args:
        path: the list file.
        need_label: False for pre-training: a last field that is no whole number then belongs to the path.
        num_classes: labels must lie in [0, num_classes).

    Raises:
        FileNotFoundError: no such list.
        ValueError: the list is empty, no text, or has bad rows: their number, and the first five with line and reason.
    """
    rows, bad = scan_list(path, need_label, num_classes)
    if bad:
        shown = "; ".join(bad[:SHOWN_BAD_ROWS])
        raise ValueError(f"{len(bad)} of {len(rows) + len(bad)} rows of {path} cannot be used: {shown}")
    require_drivers(rows.paths)
    return rows


def _not_a_list(path: Path) -> str:
    """What to say of a path that is no file: pre-training takes a list, fine-tuning the folder of three of them."""
    if path.is_dir():
        lists = sorted(path.glob("*.csv"))
        return (f"{path} is a folder, and a list file is wanted here: " +
                (f"there is {path / 'train.csv' if path / 'train.csv' in lists else lists[0]}" if lists else
                 f"for example find {path} -name '*.mp4' > list.csv"))
    if path.parent.is_file():
        return f"{path.parent} is a file, and the folder that holds {path.name} is wanted here"
    return f"list of videos not found: {path}"


def scan_list(path: str | Path, need_label: bool = True, num_classes: int | None = None) -> tuple[ClipList, list[str]]:
    """Like `read_list`, but (the rows that can be used, a line of text about each of the others).

    Raises:
        FileNotFoundError: no such list.
        ValueError: the list is empty, or no text.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(_not_a_list(path))
    if kind := kind_of_no_text(_start(path, LOOKED_AT)):
        raise ValueError(f"{path} is {kind}, and a list of videos is wanted: a text file with a path a line")
    labels, lines, spans, bad = array("q"), array("q"), array("q"), []

    def good_paths(rows: Iterable[tuple[int, str]], layout: Layout) -> Iterator[str]:
        for number, text in rows:
            row = layout.read(text)
            if reason := row.fault or _fault(row, need_label, num_classes):
                bad.append(f"line {number}: {text[:120]!a} ({reason})")
            else:
                labels.append(-1 if row.label is None else row.label)
                lines.append(number)
                if layout.numbers > 1:
                    spans.extend(row.span)
                yield row.path

    try:
        with _opened(path) as file:
            rows = _rows(file)   # a row at a time: of a million only the arrays are ever in memory
            head = list(islice(rows, 200))
            if head and _is_header(head[0][1]):
                del head[0]
            paths = Paths(good_paths(chain(head, rows), find_layout([text for _, text in head])))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} begins as {error.encoding} and is none: save it as UTF-8") from None
    if not labels and not bad:
        raise ValueError(f"list of videos is empty: {path}")
    found = np.array(spans, np.int64).reshape(-1, 2)
    has_spans = len(found) and (found != WHOLE).any()
    return ClipList(paths, np.array(labels, np.int64), np.array(lines, np.int64), str(path),
                    found if has_spans else None), bad


def _opened(path: Path) -> TextIO:
    """The list as text, whatever it was saved as."""
    start = _start(path, 4)
    encoding = next((name for mark, name in _MARKS if start.startswith(mark)), None)
    if encoding:
        return open(path, encoding=encoding)
    return open(path, encoding="utf-8-sig", errors="surrogateescape")


def _start(path: Path, size: int) -> bytes:
    with open(path, "rb") as file:
        return file.read(size)


def _rows(file: TextIO) -> Iterator[tuple[int, str]]:
    """(line number, text) of the lines that are not blank."""
    number = 0
    while line := file.readline(MAX_LINE):
        number += 1
        if text := line.strip():
            yield number, text
        while len(line) == MAX_LINE and not line.endswith("\n"):   # the rest of it: what stands here is no list
            line = file.readline(MAX_LINE)


def _is_header(text: str) -> bool:
    fields = re.split(r"[\s,;]+", text.lower())
    return all(field.strip('"#') in _HEADER_WORDS for field in fields)


def _last_field(path: str) -> str:
    """What to say of a row whose last field was taken for a part of its path."""
    before, last = re.fullmatch(r"(.*[\s,;])?(.*)", path).groups()
    is_path = "/" in last or ("." in last and not re.fullmatch(r"-?[\d.]+", last))
    return "no label" if before is None or is_path else f"the label {last[:40]!r} is no whole number"


def _fault(row: Row, need_label: bool, num_classes: int | None) -> str:
    """Why a row cannot be used; empty when it can."""
    if not row.path:
        return "no path"
    if len(row.path) > MAX_PATH:
        return f"longer than {MAX_PATH} characters"
    if "\0" in row.path:
        return "a zero byte in the path; is the list saved as UTF-16? save it as UTF-8"
    if row.label is None:
        return f"{_last_field(row.path)}: expected `path label` with a whole number" if need_label else ""
    if need_label and row.label < 0:
        return f"label {row.label} is negative"
    if num_classes is not None and row.label >= num_classes:
        return f"label {row.label}, but there are {num_classes} classes (0 to {num_classes - 1})"
    return ""
