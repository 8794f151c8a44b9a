"""classes.txt beside the lists: the names of the classes, one a line in the order of the labels."""

import logging
from collections.abc import Sequence
from pathlib import Path

from ...models.convert.class_names import check_class_names
from .text_file import read_text

logger = logging.getLogger(__name__)

FILE_NAME = "classes.txt"


def read_class_names(folder: str | Path, classes: int) -> list[str] | None:
    """The names in `folder`/classes.txt, UTF-8, the name of label 0 first; None: there is no such file.

    Raises:
        ValueError: another number of names than classes, an empty name, one that stands there twice, or no UTF-8.
    """
    path = Path(folder) / FILE_NAME
    if not path.is_file():
        return None
    # Split at line feeds alone: a name may hold what Python's splitlines takes for the end of a line.
    lines = read_text(path).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    while lines and not lines[-1].strip():
        del lines[-1]
    return check_class_names([line.strip() for line in lines], classes, str(path))


def count_class_names(folder: str | Path) -> int:
    """How many names `folder`/classes.txt holds; 0: there is no such file."""
    path = Path(folder) / FILE_NAME
    if not path.is_file():
        return 0
    return sum(bool(line.strip()) for line in path.read_bytes().split(b"\n"))


def agreed_names(listed: Sequence[str] | None, trained: Sequence[str] | None, source: str) -> list[str] | None:
    """The names of the classes, from beside a list or from a checkpoint; None: neither has any.

    Args:
        source: of the list, for the error.

    Raises:
        ValueError: both have names and they differ: the list's labels mean other classes than the network's.
    """
    if listed is not None and trained is not None and list(listed) != list(trained):
        place = next(place for place, (one, other) in enumerate(zip(listed, trained, strict=True)) if one != other)
        raise ValueError(f"label {place} is {listed[place]!r} in {FILE_NAME} beside {source}, but {trained[place]!r} "
                         "in the checkpoint: the two number their classes differently")
    names = listed if listed is not None else trained
    return None if names is None else list(names)


def named(label: int, names: Sequence[str] | None) -> str:
    """The name of a label; without names its number."""
    return str(label) if names is None else names[label]
