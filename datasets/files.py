"""Files that appear whole or not at all."""

import contextlib
import errno
import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """An OSError of the block that names no file names this one: a full disk is met while writing, not at the opening.
    What torch and numpy make of it becomes an OSError again."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        found = error if isinstance(error, OSError) else error.__context__   # torch's writer raises a RuntimeError
        if not isinstance(found, OSError) or found.filename is not None:
            raise
        # numpy says "N requested and M written", without a number
        raise OSError(found.errno or errno.ENOSPC, found.strerror or str(found), str(path)) from error


@contextlib.contextmanager
def written_whole(path: str | os.PathLike, mode: str = "w") -> Iterator[IO]:
    """A file to write to, which takes the name `path` when the block ends; until then nobody meets half of it.

    Args:
        path: of the file; its folder is made where it is missing.
        mode: "w" for UTF-8 text, "wb" for bytes.

    Raises:
        OSError: the disk is full or not writable. A file of that name from before is untouched, as after any
            exception inside the block.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.writing")
    text = {} if "b" in mode else {"encoding": "utf-8", "errors": "surrogateescape"}
    try:
        with naming(path), open(temporary, mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _flush_folder(path.parent)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def recorded_otherwise(record: Path, settings: dict[str, Any]) -> str:
    """What the JSON file that says how a folder was made holds, where that is not `settings`; "" where it is, or where
    there is no such file."""
    if not record.is_file():
        return ""
    text = record.read_text(encoding="utf-8").strip()
    with contextlib.suppress(ValueError):
        if json.loads(text) == settings:
            return ""
    return text or "nothing that can be read"


def read_json(path: Path, way_out: str = "delete it, and it is made again") -> dict[str, Any]:
    """What a JSON file of ours holds. Raises ValueError: it is broken, and what to do."""
    try:
        found, error = json.loads(path.read_text(encoding="utf-8")), "no names and values"
    except ValueError as raised:
        found, error = None, str(raised)
    if not isinstance(found, dict):
        raise ValueError(f"{path} is broken ({error}): {way_out}")
    return found


def must_not_replace(path: str | os.PathLike, read: Iterable[str | os.PathLike], flag: str) -> None:
    """Raises ValueError: the file that is to be written is one of those that are read. flag: what it was given by."""
    if os.path.realpath(path) in {os.path.realpath(one) for one in read}:
        raise ValueError(f"{flag} would replace {path}, which is read: name another place")


def must_be_of_list(report: Path, path: str | os.PathLike) -> None:
    """Raises ValueError: the report that stands where this list's will is of another list, which is called the same."""
    recorded = None
    if report.is_file():
        with contextlib.suppress(ValueError, AttributeError):
            recorded = json.loads(report.read_text(encoding="utf-8")).get("list")
    if isinstance(recorded, str) and os.path.isabs(recorded) and os.path.realpath(recorded) != os.path.realpath(path):
        raise ValueError(f"{report} is of another list of this name, {recorded}: name another --out, or delete it")


def require_writable(path: str | os.PathLike, flag: str, read: Iterable[str | os.PathLike] = ()) -> None:
    """Look whether a file can be written, before the work whose result it takes. Its folder is made.

    Args:
        flag: what the user gave it by. read: files that it must not replace.

    Raises:
        ValueError: it cannot, and why.
    """
    must_not_replace(path, read, flag)
    path, cause = Path(path), ""
    trial = path.with_name(f"{path.name}.{os.getpid()}.writing")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        open(trial, "xb").close()
        trial.unlink()
        cause = "it is a folder" if path.is_dir() else ""
    except FileExistsError as error:   # of mkdir
        cause = f"{error.filename} is no folder"
    except OSError as error:
        cause = f"{error.filename}: {error.strerror}"
    if cause:
        raise ValueError(f"{flag} {path} cannot be written ({cause}): name another place")


def json_text(value: Any, **options: Any) -> str:
    """JSON as other programs read it: null for nan and inf, which Python would write as words that JSON has not.

    options: of `json.dumps`.
    """
    return json.dumps(_without_nan(value), allow_nan=False, **options)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_whole(path: str | os.PathLike, text: str) -> None:
    """Write a text file whole or not at all. Raises OSError, see `written_whole`."""
    with written_whole(path) as file:
        file.write(text)


def _flush_folder(folder: Path) -> None:
    """The new name, too, must survive a power cut."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
