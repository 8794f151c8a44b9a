"""Write one video anew: smaller pictures, H.264, a key frame every few frames; all its frames, or so many a second."""

import os
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np

from .lists.columns import WHOLE
from .video.container_file import choose_stream, open_container
from .video.decode import OpenVideo, VideoError, open_video
from .windows import frames_by_time

_READ_AT_ONCE = 128 << 20   # bytes of raw frames in memory
_DEFAULT_RATE = 25          # for folders of pictures, which have none

# Three of four frames are such that no other refers to them: the reader skips those that it does not want. No entropy
# coding and no filter that cost time to undo. CPU time of `PretrainClips` for a clip at 224, before and after:
# 1280x720 H.264 193 -> 19 ms, 340x256 H.264 40 -> 16 ms, 320x240 MPEG-4 (UCF101's .avi) 15 -> 16 ms: leave those.
_FAST_TO_READ = {"bf": "3", "b-pyramid": "none", "b_strategy": "0", "sc_threshold": "0", "tune": "fastdecode"}


class Encoding(NamedTuple):
    """How the videos are written: the shorter side in pixels, frames between key frames, quality, and speed.

    fps: frames a second, the ones that are shown at those times; None: all frames.
    same_bytes: on every run. Plain C code does that, slowly; with AVX-512's some videos come out otherwise each time.
    """

    short_side: int = 256
    gop: int = 8
    crf: int = 20
    preset: str = "fast"
    fps: float | None = None
    same_bytes: bool = False


class Job(NamedTuple):
    """One video: where it is, where it goes, and which part of it, as lists of pictures say it."""

    source: str
    target: str
    span: tuple[int, int] = WHOLE


def encode(job: Job, encoding: Encoding, frame_pattern: str = "") -> str:
    """Write `job.target`, whole or not at all; returns why it failed, "" when it did not."""
    part = f"{job.target}.{os.getpid()}.part"   # two programs may write the same video at once
    try:
        os.makedirs(os.path.dirname(job.target), exist_ok=True)
        _encode(job, part, encoding, frame_pattern)
        os.replace(part, job.target)
    except VideoError as error:
        return error.cause
    except (av.FFmpegError, OSError) as error:
        return f"cannot be written: {error.strerror or error}"
    finally:
        if os.path.exists(part):
            os.unlink(part)
    return ""


def _encode(job: Job, target: str, encoding: Encoding, frame_pattern: str) -> None:
    with open_video(job.source, frame_pattern=frame_pattern) as video, av.open(target, "w", format="mp4") as container:
        if job.span != WHOLE:
            video.restrict(*job.span)
        rate = Fraction(encoding.fps).limit_denominator(1000) if encoding.fps else _frame_rate(job.source)
        stream = container.add_stream("libx264", rate=rate)
        frames = _wanted_frames(video, job.source, encoding.fps)
        first = video.read([0])
        height, width = first.shape[1:3]
        stream.height, stream.width = scaled_size(height, width, encoding.short_side)
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1   # processes are the parallel part
        stream.options = {"crf": str(encoding.crf), "preset": encoding.preset, "g": str(encoding.gop), **_FAST_TO_READ}
        if encoding.same_bytes:
            stream.options |= {"x264-params": "asm=0"}
        at_once = max(1, _READ_AT_ONCE // first.nbytes)
        for start in range(0, len(frames), at_once):
            for picture in video.read(frames[start:start + at_once]):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame = frame.reformat(stream.width, stream.height, "yuv420p", interpolation="BICUBIC")
                container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _wanted_frames(video: OpenVideo, source: str, fps: float | None) -> np.ndarray:
    """The numbers of the frames that the new video has."""
    return np.arange(video.num_frames) if fps is None else frames_by_time(source, video, fps)


def _frame_rate(source: str):
    if os.path.isdir(source):
        return _DEFAULT_RATE
    with open_container(source) as container:
        return choose_stream(source, container).average_rate or _DEFAULT_RATE


def scaled_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(height, width) with the shorter side at most `short_side`, never enlarged, both even as yuv420p needs."""
    scale = min(1.0, short_side / min(height, width))
    return tuple(max(2, round(side * scale / 2) * 2) for side in (height, width))
