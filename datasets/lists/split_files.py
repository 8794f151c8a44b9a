"""The official split files of the four datasets, read into one form.

    UCF101   classInd.txt, trainlist01.txt, testlist01.txt                       labels from 1 in the files
    HMDB51   CLASS_test_split1.txt for every class, 1 = train, 2 = test, 0 = neither
    K400     train.csv, val.csv: label,youtube_id,time_start,time_end,split
    SSv2     labels.json, train.json, validation.json, optionally test.json and test-answers.csv
"""

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .text_file import read_text


class Entry(NamedTuple):
    """A video of a split.

    Attributes:
        names: what its file may be called, without the ending, the likeliest first: "CLASS/STEM" or "STEM".
        label: from 0.
    """

    names: tuple[str, ...]
    label: int


@dataclass(frozen=True)
class Splits:
    """The parts of a dataset; `classes[label]` is a class's name."""

    classes: list[str]
    train: list[Entry]
    val: list[Entry]
    official_test: list[Entry] | None = None


@dataclass(frozen=True)
class SplitFormat:
    """How a dataset is published.

    Attributes:
        name: the data set's short name, which `build_lists` takes and the row scripts are named after.
        read: (folder of the split files, number of the split) -> Splits.
        annotations, videos: folders that the published archives make, looked for below the root in this order.
        splits: how many there are.
        like_lists: its files that are called as our lists are.
        videos_vanish: videos are taken from the web and some are always gone: those are left out and counted.
    """

    name: str
    read: Callable[[Path, int], Splits]
    annotations: tuple[str, ...]
    videos: tuple[str, ...]
    splits: int = 1
    videos_vanish: bool = False
    like_lists: tuple[str, ...] = ()


def read_ucf101(folder: Path, split: int = 1) -> Splits:
    """UCF101's `trainlist0N.txt` and `testlist0N.txt`; the test list serves as validation, as usual.

    Raises:
        FileNotFoundError, ValueError: a file is missing, or a line is not of the form above.
    """
    labels = {}
    for where, line in _lines(folder / "classInd.txt"):
        number, _, name = line.partition(" ")
        if not number.isdigit() or not name.strip():
            raise ValueError(f"{where}: expected `NUMBER CLASS`, got {line!r}")
        labels[name.strip()] = int(number) - 1
    classes = sorted(labels, key=labels.get)
    if [labels[name] for name in classes] != list(range(len(classes))):
        raise ValueError(f"{folder / 'classInd.txt'}: class numbers must run from 1 without gaps or repeats")

    def read(path: Path) -> list[Entry]:
        entries = []
        for where, line in _lines(path):
            name, _, number = line.partition(" ")
            label = labels.get(name.partition("/")[0])
            if label is None or (number.strip() and number.strip() != str(label + 1)):
                raise ValueError(f"{where}: expected `CLASS/VIDEO.avi [NUMBER]` as in classInd.txt, got {line!r}")
            entries.append(Entry((_without_ending(name),), label))
        return entries

    return Splits(classes, read(folder / f"trainlist{split:02d}.txt"), read(folder / f"testlist{split:02d}.txt"))


def read_hmdb51(folder: Path, split: int = 1) -> Splits:
    """HMDB51's `CLASS_test_splitN.txt`; labels in alphabetical order of the classes.

    Raises:
        FileNotFoundError, ValueError: as for UCF101.
    """
    ending = f"_test_split{split}.txt"
    files = sorted(folder.glob(f"*{ending}"), key=lambda path: path.name[:-len(ending)])
    if not files:
        raise FileNotFoundError(f"no CLASS{ending} in {folder}: unpack testTrainMulti_7030_splits.rar there, "
                                f"or name its folder with --annotations")
    classes = [path.name[:-len(ending)] for path in files]
    parts = {"0": [], "1": [], "2": []}
    for label, path in enumerate(files):
        for where, line in _lines(path):
            name, _, part = line.rpartition(" ")
            if part not in parts or not name.strip():
                raise ValueError(f"{where}: expected `VIDEO.avi 0|1|2`, got {line!r}")
            parts[part].append(Entry((f"{classes[label]}/{_without_ending(name.strip())}",), label))
    return Splits(classes, parts["1"], parts["2"])


def read_k400(folder: Path, split: int = 1) -> Splits:
    """Kinetics' CSVs; labels in alphabetical order of the classes of both files.

    Raises:
        FileNotFoundError, ValueError: as for UCF101.
    """
    train = _kinetics_rows(_first(folder, ("train.csv", "kinetics_train.csv", "kinetics-400_train.csv")))
    val = _kinetics_rows(_first(folder, ("val.csv", "validate.csv", "validation.csv", "kinetics_val.csv",
                                         "kinetics-400_val.csv")))
    classes = sorted({name for name, _ in train + val})
    labels = {name: label for label, name in enumerate(classes)}
    return Splits(classes, *([Entry(names, labels[name]) for name, names in rows] for rows in (train, val)))


def _whole_rows(reader: csv.DictReader, path: Path) -> Iterator[dict]:
    try:
        yield from reader
    except csv.Error as error:
        raise ValueError(f"{path} line {reader.line_num}: {error}; is a quote opened and not closed?") from None


def _kinetics_rows(path: Path) -> list[tuple[str, tuple[str, ...]]]:
    rows = []
    with io.StringIO(read_text(path), newline="") as file:
        reader = csv.DictReader(file)
        missing = {"label", "youtube_id", "time_start", "time_end"} - set(reader.fieldnames or ())
        if missing:
            raise ValueError(f"{path}: no column {', '.join(sorted(missing))}; "
                             f"expected label,youtube_id,time_start,time_end,split")
        for row in _whole_rows(reader, path):
            where = f"{path} line {reader.line_num}"
            if not row["label"] or not row["youtube_id"]:
                raise ValueError(f"{where}: label or youtube_id is empty")
            try:
                start, end = int(float(row["time_start"])), int(float(row["time_end"]))
            except (TypeError, ValueError):
                raise ValueError(f"{where}: time_start and time_end must be seconds, got "
                                 f"{row['time_start']!r}, {row['time_end']!r}") from None
            identity = row["youtube_id"]
            rows.append((row["label"], (f"{identity}_{start:06d}_{end:06d}", f"{identity}_{start}_{end}", identity)))
    if not rows:
        raise ValueError(f"{path} holds no videos")
    return rows


def read_ssv2(folder: Path, split: int = 1) -> Splits:
    """Something-Something V2's JSON files, under their long names or short ones.

    Its test set's labels were published later (`test-answers.csv`, `id;template`); without them it is left out.

    Raises:
        FileNotFoundError, ValueError: as for UCF101.
    """
    labels_file = _ssv2_file(folder, "labels.json")
    labels = _json(labels_file, dict)
    try:
        labels = {name: int(label) for name, label in labels.items()}
    except (TypeError, ValueError):
        raise ValueError(f"{labels_file}: expected {{\"template\": \"number\", ...}}") from None
    classes = sorted(labels, key=labels.get)
    if [labels[name] for name in classes] != list(range(len(classes))):
        raise ValueError(f"{labels_file}: labels must run from 0 without gaps or repeats")

    def entry(where: str, identity: object, template: object) -> Entry:
        name = str(template).replace("[", "").replace("]", "")
        if identity is None or name not in labels:
            raise ValueError(f"{where}: no id, or template {template!r} is not in {labels_file.name}")
        return Entry((str(identity),), labels[name])

    def read(path: Path) -> list[Entry]:
        rows = _json(path, list)
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError(f"{path}: expected a list of {{\"id\": ..., \"template\": ...}}")
        return [entry(f"{path} item {number}", row.get("id"), row.get("template"))
                for number, row in enumerate(rows, start=1)]

    answers, test = folder / "test-answers.csv", None
    if answers.is_file():
        test = [entry(where, *line.split(";", 1)) if ";" in line else entry(where, None, line)
                for where, line in _lines(answers)]
    train, val = (read(_ssv2_file(folder, name)) for name in ("train.json", "validation.json"))
    return Splits(classes, train, val, test)


def _ssv2_file(folder: Path, name: str) -> Path:
    return _first(folder, (name, f"something-something-v2-{name}"))


def _json(path: Path, kind: type):
    try:
        content = json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, kind) or not content:
        raise ValueError(f"{path}: expected a JSON {'object' if kind is dict else 'list'} that is not empty")
    return content


def _first(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"no {' or '.join(names)} in {folder}: put the official file there, or name its folder "
                            f"with --annotations")


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """("FILE line N", text) of every line that is not blank; an empty file is an error."""
    if not path.is_file():
        raise FileNotFoundError(f"no {path.name} in {path.parent}: put the official file there, or name its folder "
                                f"with --annotations")
    lines = read_text(path).splitlines()
    found = [(f"{path} line {number}", line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise ValueError(f"{path} is empty")
    yield from found


def _without_ending(name: str) -> str:
    stem, dot, _ = name.rpartition(".")
    return stem if dot else name

UCF101 = SplitFormat("ucf101", read_ucf101, ("ucfTrainTestlist", "annotations"), ("UCF-101", "videos"), splits=3)
HMDB51 = SplitFormat("hmdb51", read_hmdb51, ("testTrainMulti_7030_splits", "splits", "annotations"),
                     ("hmdb51_org", "videos"), splits=3)
K400 = SplitFormat("k400", read_k400, ("annotations",), ("videos",), videos_vanish=True,
                   like_lists=("train.csv", "val.csv"))
SSV2 = SplitFormat("ssv2", read_ssv2, ("labels", "annotations"), ("20bn-something-something-v2", "videos"))
