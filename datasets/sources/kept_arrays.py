"""Arrays that take long to make, kept on disk for the processes and runs to come.

They lie where the environment variable TATS_INDEX_CACHE says ("none": nowhere), else in the folder of
`keep_remote_files`, else in the user's own (XDG_CACHE_HOME, ~/.cache).
"""

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .kept_files import KeptFiles, kept_files

INDEXES, NOWHERE = "TATS_INDEX_CACHE", "none"
_LIMIT = 10**9   # bytes of a folder that holds nothing else: the indexes of about 10,000 hours of video


def keep_indexes(folder: str) -> str:
    """From now on this process and those that it starts keep arrays in `folder`.

    Args:
        folder: "none": nowhere. "": where the environment says, or the default.

    Returns:
        Why nothing can be kept in the default folder, in one line; "" where it can, or where nobody wants it.

    Raises:
        ValueError: `folder` is given and cannot be written.
    """
    if folder:
        os.environ[INDEXES] = folder if folder == NOWHERE else os.path.abspath(folder)
    store = _store()
    if store is None:
        return ""
    try:
        store.folder.mkdir(parents=True, exist_ok=True)
        if os.access(store.folder, os.W_OK):
            return ""
        cause = "it cannot be written"
    except OSError as error:
        cause = error.strerror or str(error)
    if folder:
        raise ValueError(f"--index_cache {folder}: {cause}")
    return (f"indexes of long videos are not kept: {store.folder}: {cause} (--index_cache names another folder; none: "
            "nowhere, and no word of it)")


def kept_arrays(name: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Whole numbers of any shape by their names: what `make()` returns, or what it returned for `name` before.

    Whoever calls puts into `name` all that the result depends on.
    A copy that is damaged or another name's is made anew.

    Raises:
        What `make` raises.
    """
    store = _store()
    if store is None:
        return make()
    made: list[dict[str, np.ndarray]] = []

    def content() -> bytes:
        made.append(make())
        return _packed(name, made[0])

    found = store.open(name, content)
    if not made:
        with found as file:
            try:
                return _unpacked(name, file.read())
            except Exception:  # noqa: BLE001 - a damaged file fails in many ways, and is made anew for all of them
                store.forget(name)
        store.open(name, content)
    return made[0]


def _store() -> KeptFiles | None:
    named = os.environ.get(INDEXES)
    if named == NOWHERE:
        return None
    if not named and (fetched := kept_files()):
        return fetched
    own = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = os.path.abspath(named) if named else os.path.join(own, "tats")
    return KeptFiles(Path(folder), _LIMIT, quiet=True) if os.path.isabs(folder) else None


def _packed(name: str, arrays: dict[str, np.ndarray]) -> bytes:
    """Differences of neighbours, which are nearly the same throughout: an hour's index takes some ten kilobytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{key: np.diff(value, prepend=np.int64(0)) for key, value in arrays.items()})
    return _mark(name) + buffer.getvalue()


def _mark(name: str) -> bytes:
    """What a copy begins with: another video's would be read without a word."""
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()


def _unpacked(name: str, content: bytes) -> dict[str, np.ndarray]:
    mark = _mark(name)
    if not content.startswith(mark):
        raise ValueError("it was made for something else")
    with np.load(io.BytesIO(content[len(mark):]), allow_pickle=False) as stored:   # a zip file: each array has its CRC
        return {key: np.cumsum(stored[key], dtype=np.int64) for key in stored.files}
