"""Opening a video file with PyAV: which containers, which of its streams, and how its packets are listed cheaply."""

import os
from typing import BinaryIO

import av

from ..sources.opening import size_of
from ..sources.skipping import HEAD, SkippingFile
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
LARGE = 16 << 20   # bytes: below, reading all is as fast as being clever
_EBML, _CLUSTER, _LOOKED_AT = b"\x1aE\xdf\xa3", b"\x1fC\xb6u", 1 << 16
_UNLISTABLE = (b"\x6d\x80", b"V_MS/VFW")    # in a mkv's head: its element ContentEncodings, and video as in .avi
_NO_PARSER = {"fflags": "+noparse+nofillin"}   # a parser would look into the packets
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


def open_for_listing(path: str, file: BinaryIO | None = None) -> av.container.InputContainer | None:
    """A container whose packets hold zeros and cost little reading; None: this file has to be read.

    An mp4 or mov has an index that says where each packet lies and when it is shown: only the packets' bytes are not
    read. Fragments keep parts of that index between the pictures: those files are read. A mkv or webm has a head in
    front of each packet that says the same: only the heads are read.

    Args:
        file: what is read, where `path` is no local file.
    """
    own = file is None
    file = open(path, "rb", buffering=0) if own else file   # noqa: SIM115 - closed with the container
    size = size_of(file)
    kind = None if size < LARGE else _kind_of(file, size)
    if kind is None:
        if own:
            file.close()
        return None
    file.seek(0)
    skipping = SkippingFile(file, size, owns=own)
    options = {"format_whitelist": FORMATS} | ({} if kind == "mov" else _NO_PARSER)
    try:
        container = av.open(skipping, options=options, metadata_errors="ignore",
                            buffer_size=1 << 15 if kind == "mov" else HEAD)
    except BaseException:
        skipping.close()
        raise
    skipping.skip(0 if kind == "mov" else HEAD)
    return container


def _kind_of(file: BinaryIO, size: int) -> str | None:
    """"mov" or "matroska" where packets can be listed without being read."""
    file.seek(0)
    start = file.read(_LOOKED_AT)
    if start.startswith(_EBML):
        start = start.partition(_CLUSTER)[0]
        # Packets that are compressed, or whose times are those of decoding, mean nothing without their bytes.
        return None if any(mark in start for mark in _UNLISTABLE) else "matroska"
    return "mov" if _has_one_index(file, size) else None


def _has_one_index(file: BinaryIO, size: int) -> bool:
    """Whether the boxes of an mp4 or mov at its top level hold one moov, and no fragments."""
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
