"""Names of classes: they travel from classes.txt beside the lists into checkpoints, and from there into exports."""

from collections.abc import Mapping, Sequence
from typing import Any


def check_class_names(names: Sequence[Any], classes: int, source: str) -> list[str]:
    """The names as a list of `classes` strings, the name of label 0 first.

    Args:
        source: where they come from, for the error.

    Raises:
        ValueError: another number of names than classes, a name that is empty, or one that stands there twice.
    """
    names = [str(name) for name in names]
    if len(names) != classes:
        raise ValueError(f"{source} names {len(names)} classes, but there are {classes}: a line for each label, in "
                         "the order of the labels, is expected")
    first = {}
    for place, name in enumerate(names):
        if not name.strip():
            raise ValueError(f"{source}: the name of class {place} is empty")
        if name in first:
            raise ValueError(f"{source}: classes {first[name]} and {place} have the same name, {name!r}")
        first[name] = place
    return names


def class_names_of(checkpoint: Mapping[str, Any], classes: int) -> list[str] | None:
    """The names that a checkpoint (as `read_checkpoint` returns it) holds for its classes; None: it holds none.

    Raises:
        ValueError: they do not fit the number of classes.
    """
    config = checkpoint.get("config")
    names = checkpoint.get("class_names") or (config.get("class_names") if isinstance(config, Mapping) else None)
    return None if not names else check_class_names(names, classes, "the checkpoint's class_names")
