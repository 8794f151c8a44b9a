"""Small files of text that people write: read whole, or refused in one line that says what the file is instead."""

from pathlib import Path

from ...models.convert.kinds import LOOKED_AT, kind_of_no_text


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, its mark taken off.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no text, or none in UTF-8.
    """
    content = path.read_bytes()
    if kind := kind_of_no_text(content[:LOOKED_AT]):
        raise ValueError(f"{path} is {kind}, and a text file is wanted")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}): write it anew in that encoding") from None
    if "\0" in text:
        raise ValueError(f"{path} has zero bytes in it, which no text has; is it saved as UTF-16? Save it as UTF-8")
    return text
