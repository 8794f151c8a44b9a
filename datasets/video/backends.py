"""The decoders: which are installed, which is taken, and the reader of a file with one of them."""

import functools
import importlib
import importlib.metadata
import importlib.util
import logging
import multiprocessing
import os
import re
import stat

from ..sources.opening import SourceError, is_elsewhere, open_source
from .error import VideoError

# "auto" takes the first that is installed and loads. PyAV stands first because of what its reader does on real files:
# - right: in ordinary files all three give the same bytes, but after a seek decord and torchcodec return other frames
#   than asked in some (tests/test_decode.py has them), and decord's .avi are unstable;
# - plain: damaged, cut off and over-reported frames are named, where the others repeat neighbours or never return;
# - fast: a fifth to a third faster than decord, since frames that no other refers to are passed over undecoded;
# - kept up, and it brings FFmpeg along, which torchcodec wants to find on the machine.
BACKENDS = ("pyav", "torchcodec", "decord")
OLDEST_PYAV = "17.1"   # 17 tells a file's own index of its packets, 17.0 crashes on some files
logger = logging.getLogger(__name__)


def resolve_backend(name: str = "auto") -> str:
    """The decoder that `name` stands for; logged once.

    Raises:
        ValueError: unknown, or not installed.
    """
    if name != "auto" and name not in BACKENDS:
        raise ValueError(f"unknown video backend {name!r}: use auto or one of {', '.join(BACKENDS)}")
    return _resolve(name)


@functools.cache
def _resolve(name: str) -> str:
    for backend in BACKENDS if name == "auto" else (name,):
        if loads(backend):
            if name == "auto":
                return _resolve(backend)   # which says it once, whether it was named or found
            first = multiprocessing.parent_process() is None   # a loader's workers do not say it again
            logger.log(logging.INFO if first else logging.DEBUG, "reading videos with %s", backend)
            return backend
    wanted = "no video backend can" if name == "auto" else f"video backend {name} cannot"
    package = f"'av>={OLDEST_PYAV}'" if name in ("auto", "pyav") else name
    raise ValueError(f"{wanted} be loaded: pip install -U {package}")


def loads(backend: str) -> bool:
    """Whether a decoder is installed and can be loaded."""
    module = {"pyav": "av"}.get(backend, backend)
    if importlib.util.find_spec(module) is None:
        return False
    if backend == "pyav" and not _is_new_enough():
        logger.warning("PyAV %s is too old, %s or later is needed: pip install -U 'av>=%s'",
                       importlib.metadata.version("av"), OLDEST_PYAV, OLDEST_PYAV)
        return False
    if backend == "torchcodec":   # installed without FFmpeg's libraries it fails only when it is loaded
        try:
            importlib.import_module("torchcodec.decoders")
        except (ImportError, OSError, RuntimeError) as error:
            logger.warning("torchcodec is installed but does not load: %s", str(error).strip().split("\n")[0])
            return False
    return True


def _is_new_enough() -> bool:
    """Of PyAV; a copy that says no version is taken."""
    try:
        return _numbers(importlib.metadata.version("av")) >= _numbers(OLDEST_PYAV)
    except (importlib.metadata.PackageNotFoundError, TypeError):
        return True


def _numbers(version: str) -> list[int]:
    """[17, 0, 1] of "17.0.1"; what follows the numbers, as in "18.0.0rc1", is left out."""
    return [int(re.match(r"\d+", part)[0]) for part in version.split(".")[:3]]


def open_reader(path: str, backend: str, frame_pattern: str = ""):
    """The reader of a backend, in this process; `frame_pattern` as `FolderReader`. Raises as `open_video`."""
    if is_elsewhere(path):
        try:
            return reader_class(resolve_backend(backend))(path, open_source(path))
        except SourceError as error:
            raise VideoError(path, error) from None
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise VideoError(path, getattr(error, "strerror", None) or error) from None
    if stat.S_ISDIR(status.st_mode):
        from .read_folder import FolderReader
        return FolderReader(path, frame_pattern)
    if not stat.S_ISREG(status.st_mode):
        raise VideoError(path, "neither a file nor a folder")   # a pipe would block for ever
    if status.st_size == 0:
        raise VideoError(path, "the file is empty")
    return reader_class(resolve_backend(backend))(path)


def reader_class(backend: str) -> type:
    """The reader of files with a backend; each decoder is imported only where it is used."""
    if backend == "pyav":
        from .read_pyav import PyAVReader as Reader
    elif backend == "decord":
        from .read_decord import DecordReader as Reader
    else:
        from .read_torchcodec import TorchcodecReader as Reader
    return Reader
