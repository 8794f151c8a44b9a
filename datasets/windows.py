"""Windows that slide over long videos: which frames each one takes, and when it starts and ends."""

import os
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from .lists.list_file import ClipList
from .sources.opening import SourceError, is_elsewhere, open_source
from .transforms.pretraining import crop_views
from .video.decode import AS_INSTALLED, Decoding, OpenVideo, VideoError
from .video.frame_numbers import frames_at_rate

_FRAMES_AT_ONCE = 64   # decoded frames that a worker holds, of whatever size


class Windows(NamedTuple):
    """size and stride: of a window, in seconds or in frames."""

    size: float
    stride: float
    in_seconds: bool

    @classmethod
    def parse(cls, size: str, stride: str) -> "Windows":
        """From the command line: two whole numbers of frames, or two numbers of seconds with an s behind them.

        Raises:
            ValueError: something else, or a mixture.
        """
        found = [re.fullmatch(r"(\d+(?:\.\d+)?)(s?)", text.strip()) for text in (size, stride)]
        units = {match[2] for match in found if match}
        if None in found or len(units) != 1 or not all(float(match[1]) > 0 for match in found) or (
                units == {""} and any("." in match[1] for match in found)):
            raise ValueError(f"--windows takes a size and a stride above 0, both in frames (64 16) or both in seconds "
                             f"(2.5s 1s), got {size} {stride}")
        return cls(float(found[0][1]), float(found[1][1]), units == {"s"})

    def spans(self, times: np.ndarray) -> np.ndarray:
        """int64 (W, 2), first frame and the one behind the last of each window.

        Window k begins k strides after the video does; only whole windows count, but a video shorter than one is one.

        Args:
            times: (F + 1,), from `frame_times`.
        """
        frames = len(times) - 1
        length = times[-1] if self.in_seconds else frames
        count = max(1, int((length - self.size) / self.stride + 1e-6) + 1) if length > self.size else 1
        starts = self.stride * np.arange(count)
        if not self.in_seconds:
            return np.stack([starts, np.minimum(starts + self.size, frames)], axis=1).astype(np.int64)
        first = np.searchsorted(times[:-1], starts - 1e-6)
        behind = np.searchsorted(times[:-1], starts + self.size - 1e-6)
        first = np.minimum(first, frames - 1)
        return np.stack([first, np.maximum(behind, first + 1)], axis=1)   # a gap without frames: the next one

    def seconds(self, spans: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """float64 (W,) each: start and end of the windows, at most the video's end. Windows in seconds lie on their own
        grid, those in frames where their frames lie."""
        if not self.in_seconds:
            return times[spans[:, 0]], times[spans[:, 1]]
        starts = self.stride * np.arange(len(spans))
        return starts, np.minimum(starts + self.size, times[-1])


def sampled(span: Sequence[int], num_frames: int) -> np.ndarray:
    """int64 (num_frames,): the middle frame of each of num_frames equal parts of a window; all of them where the window
    has num_frames."""
    first, behind = span
    return first + ((np.arange(num_frames) + .5) * (behind - first) / num_frames).astype(np.int64)


class Chunk(NamedTuple):
    """Some consecutive windows of one video.

    Fields:
        row: of the list.
        clips: uint8 (K, 3, T, S, S).
        starts, ends: float64 (K,), seconds.
        last: whether the video has no more.
        fault: why the video cannot be read; "" where it can.
    """

    row: int
    clips: Tensor
    starts: np.ndarray
    ends: np.ndarray
    last: bool
    fault: str = ""


class WindowClips(IterableDataset):
    """Yields the `Chunk`s of videos one after another; the workers of a loader share out the videos.

    Args:
        rows: of the list, those that are wanted. shape: (T, S) of a clip.
        fps: see `frame_times`. decoding: how videos are read.
    """

    def __init__(self, clip_list: ClipList, rows: Sequence[int], windows: Windows, shape: tuple[int, int], *,
                 fps: float | None = None, decoding: Decoding = AS_INSTALLED):
        self.clip_list, self.rows, self.windows = clip_list, list(rows), windows
        (self.num_frames, self.size), self.fps = shape, fps
        self.decoding = decoding.resolved()

    def __iter__(self) -> Iterator[Chunk]:
        worker = get_worker_info()
        for row in self.rows[worker.id::worker.num_workers] if worker else self.rows:
            try:
                yield from self._chunks(row)
            except VideoError as error:
                empty = torch.zeros(0, 3, self.num_frames, self.size, self.size, dtype=torch.uint8)
                yield Chunk(row, empty, np.zeros(0), np.zeros(0), True, str(error))

    def _chunks(self, row: int) -> Iterator[Chunk]:
        with self.clip_list.opened(row, self.decoding.open) as video:
            times = self._times(row, video)
            first, times = times[0], times - times[0]
            spans = self.windows.spans(times)
            starts, ends = self.windows.seconds(spans, times)
            at_once = max(1, _FRAMES_AT_ONCE // self.num_frames)
            for place in range(0, len(spans), at_once):
                part = slice(place, place + at_once)
                indices = np.stack([sampled(span, self.num_frames) for span in spans[part]])
                frames = video.read(indices.reshape(-1))
                frames = frames.reshape(*indices.shape, *frames.shape[1:])
                clips = torch.stack([crop_views(clip, self.size, 1, None)[0] for clip in frames])
                yield Chunk(row, clips, first + starts[part], first + ends[part], part.stop >= len(spans))

    def _times(self, row: int, video: OpenVideo) -> np.ndarray:
        try:
            return frame_times(self.clip_list.paths[row], video.start, video.num_frames, self.fps)
        except NoTimes as error:
            raise VideoError(error.path, f"{error.cause}: --fps says how many are shown a second") from None


class NoTimes(VideoError):
    """A video that does not say when its frames are shown."""


def frame_times(path: str, start: int, count: int, fps: float | None = None) -> np.ndarray:
    """float64 (count + 1,): the start of each frame in seconds from the video's first one, and the end of the last.

    Args:
        path: of a video that could be opened, or of a folder of pictures.
        start, count: which of the frames that `open_video` counts.
        fps: frames a second, for folders of pictures; of files it overrides what they say.

    Raises:
        NoTimes: there are no times in it, and `fps` is None.
        VideoError: it cannot be read.
    """
    numbers = np.arange(start, start + count + 1)
    if fps:
        return numbers / fps
    if os.path.isdir(path):
        raise NoTimes(path, "a folder of pictures has no times")
    times, rate = _stored(path)
    if times is not None and len(times) >= start + count:
        step = 1 / rate if rate else float(np.diff(times).mean()) if len(times) > 1 else 0.0
        return np.append(times, times[-1] + step)[numbers] - times[0]
    if not rate:
        raise NoTimes(path, "neither its frames nor its header say when they are shown")
    return numbers / rate


def frames_by_time(path: str, video: OpenVideo, fps: float) -> np.ndarray:
    """int64 (K,): numbers of the frames of an open video that are shown at `fps` frames a second, see `frames_at_rate`.

    Raises:
        VideoError: nothing says when they are shown, or it cannot be read.
    """
    try:
        return frames_at_rate(frame_times(path, video.start, video.num_frames), fps)
    except NoTimes as error:
        raise VideoError(error.path, f"{error.cause}: leave --fps out") from None


def _stored(path: str) -> tuple[np.ndarray | None, float | None]:
    """(when its frames are shown, frames a second), None for what a file does not say."""
    import av

    from .video.container_file import choose_stream, open_container
    from .video.packet_index import index_of

    file = None
    try:
        file = open_source(path) if is_elsewhere(path) else None
        with open_container(path, file) as container:
            stream = choose_stream(path, container)
            rate = stream.average_rate or stream.guessed_rate
            times = index_of(path, container, stream, file).times
            return None if times is None else times * float(stream.time_base), float(rate) if rate else None
    except SourceError as error:
        raise VideoError(path, error) from None
    except av.FFmpegError as error:
        raise VideoError(path, error.strerror or type(error).__name__) from None
    finally:
        if file is not None:
            file.close()
