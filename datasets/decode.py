"""Frames out of video files, behind one function with three decoders."""

import contextlib
import functools
import importlib.util
import logging
import os
import stat
from collections.abc import Iterator, Sequence

import numpy as np

from .kept_videos import KeptVideos
from .video_error import VideoError

__all__ = ["BACKENDS", "OpenVideo", "VideoError", "keep_videos", "open_video", "resolve_backend"]

# "auto" takes the first that is installed and loads. PyAV stands first because of what its reader does on real files:
# - right: in ordinary files all three give the same bytes, but after a seek decord and torchcodec return other frames
#   than asked in some (tests/test_decode.py has them), and decord's .avi are unstable;
# - plain: damaged, cut off and over-reported frames are named, where the others repeat neighbours or never return;
# - fast: a fifth to a third faster than decord, since frames that no other refers to are passed over undecoded;
# - kept up, and it brings FFmpeg along, which torchcodec wants to find on the machine.
BACKENDS = ("pyav", "torchcodec", "decord")
MAX_CLIP_BYTES = 4 << 30   # a count or a size out of a hostile header must not take the machine's memory
_KEPT: list[KeptVideos] = []   # at most one
logger = logging.getLogger(__name__)


class OpenVideo:
    """An open video.

    Attributes:
        num_frames: frames it holds, in the order of presentation.
    """

    def __init__(self, path: str, reader):
        self._path, self._reader = path, reader
        self.num_frames: int = reader.num_frames

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Frames `indices` (T,), in any order, repeated or not -> uint8 (T, H, W, 3), RGB, upright.

        Each frame that is needed is decoded once, in order.

        Raises:
            VideoError: a frame cannot be decoded.
            ValueError: an index outside [0, num_frames).
        """
        indices = np.asarray(indices)
        wanted, places = np.unique(indices, return_inverse=True)
        if len(wanted) == 0 or wanted[0] < 0 or wanted[-1] >= self.num_frames:
            raise ValueError(f"{self._path}: frames {wanted[:1]} to {wanted[-1:]} asked of {self.num_frames}")
        frames = self._reader.decode([int(index) for index in wanted])
        return frames if len(wanted) == len(indices) and (np.diff(places) == 1).all() else frames[places]

    def close(self) -> None:
        """Give the decoder back; reading is over."""
        self._reader.close()


@contextlib.contextmanager
def open_video(path: str | os.PathLike, backend: str = "auto", seconds: float = 0) -> Iterator[OpenVideo]:
    """Open a video file, or a folder of pictures in the order of the numbers in their names, for a `with` block.

    Args:
        path: of the file or folder.
        backend: "auto" or one of BACKENDS (folders need none).
        seconds: decode in a process of its own, which may take that long over opening and over each `read`; 0: decode
            in this process, without a limit.

    Raises:
        VideoError: it cannot be opened, takes too long, crashes the decoder or holds no frames: path and cause in one
            line.
        ValueError: the backend is unknown or not installed.
    """
    path = os.fspath(path)
    make = functools.partial(_reader, path, backend, seconds)
    video = OpenVideo(path, _KEPT[0].reader(path, make) if _KEPT else make())
    try:
        yield video
    finally:
        video.close()


def _reader(path: str, backend: str, seconds: float):
    if not seconds:
        return open_reader(path, backend)
    from .decoder_process import GuardedReader
    return GuardedReader(path, resolve_backend(backend), seconds)


def keep_videos(mebibytes: float) -> None:
    """From now on `open_video` keeps decoded videos in this process's memory, up to `mebibytes`; 0 forgets them all.

    What is kept stays when the same is asked for again.
    """
    if not (_KEPT and _KEPT[0].mebibytes == mebibytes):
        _KEPT[:] = [KeptVideos(mebibytes)] if mebibytes else []


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
            logger.info("reading videos with %s", backend)
            return backend
    wanted = "no video backend" if name == "auto" else f"video backend {name}"
    raise ValueError(f"{wanted} can be loaded: install {'av' if name in ('auto', 'pyav') else name}")


def loads(backend: str) -> bool:
    """Whether a decoder is installed and can be loaded."""
    module = {"pyav": "av"}.get(backend, backend)
    if importlib.util.find_spec(module) is None:
        return False
    if backend == "torchcodec":   # installed without FFmpeg's libraries it fails only when it is loaded
        try:
            importlib.import_module("torchcodec.decoders")
        except (ImportError, OSError, RuntimeError) as error:
            logger.warning("torchcodec is installed but does not load: %s", str(error).strip().split("\n")[0])
            return False
    return True


def open_reader(path: str, backend: str):
    """The reader of a backend, in this process. Raises as `open_video`."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise VideoError(path, getattr(error, "strerror", None) or error) from None
    if stat.S_ISDIR(status.st_mode):
        from .read_folder import FolderReader
        return FolderReader(path)
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


def empty_clip(path: str, frames: int, height: int, width: int) -> np.ndarray:
    """Memory for a clip, uint8 (frames, height, width, 3).

    Raises:
        VideoError: more than MAX_CLIP_BYTES.
    """
    size = frames * height * width * 3
    if size > MAX_CLIP_BYTES:
        raise VideoError(path, f"{frames} frames of {width}x{height} would take {size / 2**30:.1f} GiB")
    return np.empty((frames, height, width, 3), np.uint8)
