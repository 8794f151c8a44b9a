"""Arrays that take long to make, kept on disk for the processes and runs to come.

They lie in the folder of `keep_remote_files` where there is one, else in the user's own (XDG_CACHE_HOME, ~/.cache).
"""

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .kept_files import KeptFiles, kept_files

_LIMIT = 10**9   # bytes in the user's own folder: the indexes of about 10,000 hours of video


def kept_arrays(name: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Whole numbers of any shape by their names: what `make()` returns, or what it returned for `name` before.

    Whoever calls puts into `name` all that the result depends on. A copy that is damaged is made anew.

    Raises:
        What `make` raises.
    """
    store = kept_files() or _own()
    if store is None:
        return make()
    made: list[dict[str, np.ndarray]] = []

    def content() -> bytes:
        made.append(make())
        return _packed(made[0])

    found = store.open(name, content)
    if not made:
        with found as file:
            try:
                return _unpacked(file.read())
            except Exception:  # noqa: BLE001 - a damaged file fails in many ways, and is made anew for all of them
                store.forget(name)
        store.open(name, content)
    return made[0]


def _own() -> KeptFiles | None:
    folder = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return KeptFiles(Path(folder) / "tats", _LIMIT) if os.path.isabs(folder) else None


def _packed(arrays: dict[str, np.ndarray]) -> bytes:
    """Differences of neighbours, which are nearly the same throughout: an hour's index takes some ten kilobytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: np.diff(value, prepend=np.int64(0)) for name, value in arrays.items()})
    return buffer.getvalue()


def _unpacked(content: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:   # a zip file: each array has its CRC
        return {name: np.cumsum(stored[name], dtype=np.int64) for name in stored.files}
