"""Opening a video file with PyAV: which containers, which of its streams, and how its packets are listed cheaply."""

import os
from typing import BinaryIO

import av

from .error import VideoError

# Containers that hold videos, and nothing that names other files: a playlist called .mp4 could otherwise make the
# program open other files or addresses.
FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,flv,live_flv,asf,ogg,h261,h263,h264,hevc,"
           "vvc,vc1,dirac,dnxhd,cavsvideo,m4v,mjpeg,apng,gif,image2,jpeg_pipe,png_pipe,webp_pipe,y4m,yuv4mpegpipe,"
           "rm,dv,mxf,gxf,swf,nut,nsv,wtv,dhav,pva,ivf,obu")
_OPEN = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
_NOT_ACCEPTED = ("the container {name}is none of those that are read here (mp4, mov, mkv, webm, avi, ts, mpg, flv, "
                 "wmv, ogg and more): convert it, for example ffmpeg -i FILE -c:v libx264 -crf 18 FILE.mp4")
_EINVAL = 22
_LARGE = 16 << 20   # bytes: below, reading all is as fast as being clever
_MOV_BOXES = frozenset((b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"))


def open_container(path: str, file: BinaryIO | None = None) -> av.container.InputContainer:
    """Open a file.

    Args:
        file: what is read instead, where `path` is no local file; whoever opened it closes it.

    Raises:
        VideoError: its container is not accepted.
        av.FFmpegError: it cannot be opened.
    """
    av.logging.set_level(av.logging.PANIC)   # the cause is in our own error; FFmpeg's lines would break the bar
    # "file:" keeps a name with a colon from being read as an address.
    name = "file:" + os.path.abspath(path) if file is None else file
    try:
        if file is not None:
            file.seek(0)
        return av.open(name, options=_OPEN, metadata_errors="ignore")
    except av.FFmpegError as error:
        if error.errno == _EINVAL and (refused := _refused_format(name)):
            raise VideoError(path, _NOT_ACCEPTED.format(name=f"({refused}) ")) from None
        raise


def _refused_format(name: str | BinaryIO) -> str:
    """What FFmpeg takes a file for whose container is not in FORMATS; "" for one that is. Its name is in the log."""
    av.logging.set_level(av.logging.ERROR)
    skips = av.logging.get_skip_repeated()
    av.logging.set_skip_repeated(False)   # the file before this one may have been refused in the same words
    try:
        if not isinstance(name, str):
            name.seek(0)
        with av.logging.Capture() as lines:
            av.open(name, options=_OPEN, metadata_errors="ignore").close()
    except av.FFmpegError:
        pass
    finally:
        av.logging.set_level(av.logging.PANIC)
        av.logging.set_skip_repeated(skips)
    return next((source.split(",")[0] for _, source, text in lines if "not on whitelist" in text), "")


def choose_stream(path: str, container: av.container.InputContainer) -> av.VideoStream:
    """The stream that players show: a default one before others, moving pictures before stills, then the largest.

    Covers are none, and of equals the first is taken.

    Raises:
        VideoError: there is none that can be decoded.
    """
    flags = av.stream.Disposition
    streams = [stream for stream in container.streams.video if not stream.disposition & flags.attached_pic]
    if not streams:
        raise VideoError(path, "no video stream")
    decoded = [stream for stream in streams if stream.codec_context is not None]
    if not decoded:
        raise VideoError(path, "no decoder for its video codec")
    return max(decoded, key=lambda stream: (
        bool(stream.disposition & flags.default) and stream.frames != 1, stream.frames != 1,
        stream.codec_context.width * stream.codec_context.height, stream.frames))


def open_for_listing(path: str) -> av.container.InputContainer | None:
    """A container whose packets hold zeros and cost no reading, for files with an index of their own; else None.

    The container's index says where each packet lies and when it is shown; only its bytes are not read. Fragments keep
    parts of that index between the pictures: those files are read.
    """
    size = os.path.getsize(path)
    if size < _LARGE or not _has_one_index(path, size):
        return None
    file = _File(path, size)
    try:
        container = av.open(file, options={"format_whitelist": FORMATS}, metadata_errors="ignore")
    except BaseException:
        file.close()
        raise
    file.is_skipping = True
    return container


def _has_one_index(path: str, size: int) -> bool:
    """Whether the boxes of an mp4 or mov at its top level hold one moov, and no fragments."""
    with open(path, "rb", buffering=0) as file:
        place, found = 0, False
        while place < size:
            file.seek(place)
            head = file.read(16)
            kind, length = head[4:8], int.from_bytes(head[:4], "big")
            if length == 1:
                length = int.from_bytes(head[8:16], "big")
            if (place == 0 and kind not in _MOV_BOXES) or kind in (b"moof", b"mfra", b"sidx"):
                return False
            found |= kind == b"moov"
            if length < 8:   # 0: up to the end
                break
            place += length
    return found


class _File:
    """A file for av.open that reads nothing any more once `is_skipping` is set: zeros of the right length."""

    def __init__(self, path: str, size: int):
        self._file, self._size, self.is_skipping = open(path, "rb", buffering=0), size, False   # noqa: SIM115

    def read(self, count: int) -> bytes:
        """At most `count` bytes."""
        if not self.is_skipping:
            return self._file.read(count)
        count = max(0, min(count, self._size - self._file.tell()))
        self._file.seek(count, os.SEEK_CUR)
        return bytes(count)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of files."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As of files."""
        return self._file.tell()

    def close(self) -> None:
        """As of files."""
        self._file.close()
