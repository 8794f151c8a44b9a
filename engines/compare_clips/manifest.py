"""The manifest of a folder of real clips: which there are, what they are called, and which must never be told apart.

    path,label,group,fold
    fights/fight/fi001.mp4,fight,src01,3

path: below the manifest's folder. label: the class; none: only pre-trained on. group: what clips share that could give
the class away, as the film they were cut from; none: the clip is alone. fold: from 0, in which of the folds it is
tested; negative or none: never tested, but trained on. Other columns are passed over. A field that holds a comma stands
in quotes.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ...datasets.lists.text_file import read_text

NEEDED = ("path", "label", "group", "fold")


class Row(NamedTuple):
    """One clip. path: as the manifest has it. label: "" where there is none. fold: -1 where it is never tested."""

    path: str
    label: str
    group: str
    fold: int


class Manifest(NamedTuple):
    """folder: what the paths lie below. rows: all clips; evaluated: numbers of those whose label is learned, in the
    order of the rows. name: of their set."""

    folder: Path
    rows: tuple[Row, ...]
    evaluated: tuple[int, ...]
    name: str

    @property
    def classes(self) -> list[str]:
        """The labels in the order of their numbers."""
        return sorted({self.rows[row].label for row in self.evaluated})

    @property
    def folds(self) -> list[int]:
        """The folds in which clips are tested."""
        return sorted({self.rows[row].fold for row in self.evaluated} - {-1})

    @property
    def tested(self) -> list[int]:
        """Numbers of the clips that are tested, each in one fold."""
        return [row for row in self.evaluated if self.rows[row].fold >= 0]


def read_manifest(folder: Path, name: str | None = None) -> Manifest:
    """Read folder/manifest.csv and check it.

    Args:
        name: the set whose labels are learned. A manifest may hold several, each in a folder of its own with at least
            two labels that no other has; None: the set of the first row.

    Raises:
        FileNotFoundError: there is no manifest.
        ValueError: it cannot be compared with: columns or files are missing, a group lies in several folds, a fold's
            clips leave no two classes to train on.
    """
    path = folder / "manifest.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no manifest.csv with the columns {', '.join(NEEDED)}")
    rows = tuple(_rows(path))
    sets = sets_of(rows)
    if name is not None and name not in sets:
        raise ValueError(f"--set {name} is no set of {path}: it has {', '.join(sets) or 'none that has labels'}")
    if not sets:
        raise ValueError(f"{path} names fewer than two classes: nothing can be learned from its labels")
    name = next(iter(sets)) if name is None else name
    manifest = Manifest(folder, rows, tuple(sets[name]), name)
    _check(manifest, path)
    return manifest


def _rows(path: Path) -> Iterable[Row]:
    with io.StringIO(read_text(path), newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            head = [name.strip() for name in next(reader, [])]
            missing = [column for column in NEEDED if column not in head]
            if missing:
                raise ValueError(f"{path} has no column {', '.join(missing)}; its first line must name "
                                 f"{', '.join(NEEDED)}, between commas, and is {','.join(head)!r}")
            for fields in filter(None, reader):
                yield _row(path, f"{path}:{reader.line_num}", head, fields)
        except csv.Error as error:
            raise ValueError(f"{path}:{reader.line_num}: {error}; a quote that is opened must be closed, and one "
                             "inside a field is written twice") from None


def _row(path: Path, place: str, head: Sequence[str], fields: Sequence[str]) -> Row:
    if len(fields) != len(head):
        raise ValueError(f"{place}: {len(fields)} fields, and the first line has {len(head)}; a field that holds a "
                         "comma must stand in quotes")
    values = {column: fields[head.index(column)].strip() for column in NEEDED}
    if not values["path"]:
        raise ValueError(f"{place}: no path")
    if not (path.parent / values["path"]).exists():
        raise ValueError(f"{place}: {values['path']} is not there")
    try:
        fold = max(-1, int(values["fold"] or -1))
    except ValueError:
        raise ValueError(f"{place}: the fold {values['fold']!r} is no whole number") from None
    return Row(values["path"], values["label"], values["group"] or values["path"], fold)


def sets_of(rows: Sequence[Row]) -> dict[str, list[int]]:
    """Numbers of the labelled rows of each set, sets in the order of the rows.

    The folders at the top are sets where each has two labels or more and no label is in two of them; else all rows are
    one set "". Empty where there are no two labels.
    """
    found: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        if row.label:
            found[row.path.split("/")[0] if "/" in row.path else ""].append(number)
    labels = [{rows[number].label for number in numbers} for numbers in found.values()]
    together = set().union(*labels)
    if all(len(own) > 1 for own in labels) and sum(map(len, labels)) == len(together):
        return dict(found)
    return {"": [number for number, row in enumerate(rows) if row.label]} if len(together) > 1 else {}


def _check(manifest: Manifest, path: Path) -> None:
    rows, named = manifest.rows, {}
    for number, row in enumerate(rows):   # under two names a clip could be trained and tested on
        first = named.setdefault((manifest.folder / row.path).resolve(), number)
        if first != number:
            raise ValueError(f"{path} names a clip twice: as {rows[first].path} and as {row.path}")
    folds = defaultdict(set)
    for number in manifest.evaluated:
        folds[rows[number].group].add(rows[number].fold)
    split = next((group for group, own in folds.items() if len(own) > 1), None)
    if split is not None:
        raise ValueError(f"{path}: the group {split} lies in the folds {', '.join(map(str, sorted(folds[split])))} "
                         "(-1: trained on only); a group must lie in one, or its clips are trained and tested on")
    if len(manifest.folds) < 2:
        raise ValueError(f"{path}: the set {manifest.name!r} has {len(manifest.folds)} fold(s); at least 2 are needed")
    for fold in manifest.folds:
        classes = {rows[number].label for number in manifest.evaluated if rows[number].fold != fold}
        if classes != set(manifest.classes):
            raise ValueError(f"{path}: without fold {fold} there is no clip of "
                             f"{', '.join(sorted(set(manifest.classes) - classes))} to learn from")
