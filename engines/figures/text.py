"""Names that others chose, of videos and classes, as text of a picture."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def any_script() -> Iterator[None]:
    """Letters that the font lacks are drawn as boxes, without a warning for each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Gg]lyph")
        yield


def shortened(text: str, most: int, end: bool = False) -> str:
    """At most `most` printable characters: the last ones of a path, or with `end` the first ones of a name."""
    text = printable(text)
    if len(text) <= most:
        return text
    return text[:most - 1] + "…" if end else "…" + text[-most + 1:]


def printable(text: str) -> str:
    """Signs that no font draws as question marks."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)
