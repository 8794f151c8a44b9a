"""When the frames of a video are shown, in seconds."""

import os

import numpy as np

from ..sources.opening import SourceError, is_elsewhere, open_source
from .error import VideoError


def frame_times(path: str, num_frames: int, fps: float | None = None) -> np.ndarray:
    """float64 (num_frames + 1,): the start of each frame in seconds from the first one's, and the end of the last.

    Args:
        path: of a file that could be opened, or of a folder of pictures.
        num_frames: what `open_video` counts.
        fps: frames a second, for folders of pictures; of files it overrides what they say.

    Raises:
        VideoError: there are no times in it, and `fps` is None.
    """
    if fps:
        return np.arange(num_frames + 1) / fps
    if os.path.isdir(path):
        raise VideoError(path, "a folder of pictures has no times: --fps says how many are shown a second")
    import av

    try:
        place = open_source(path) if is_elsewhere(path) else "file:" + os.path.abspath(path)
        with av.open(place, metadata_errors="ignore") as container:
            covers = av.stream.Disposition.attached_pic
            stream = next(stream for stream in container.streams.video if not stream.disposition & covers)
            rate, unit, name = stream.average_rate or stream.guessed_rate, stream.time_base, container.format.name
            shown = [packet.pts for packet in container.demux(stream) if packet.size and not packet.is_discard]
    except SourceError as error:
        raise VideoError(path, error) from None
    except av.FFmpegError as error:
        raise VideoError(path, error.strerror or type(error).__name__) from None
    known = unit is not None and len(shown) == num_frames and None not in shown and len(set(shown)) == num_frames
    if known and name != "avi":
        times = np.array(sorted(shown), np.float64) * float(unit)
        last = 1 / float(rate) if rate else float(np.diff(times).mean()) if num_frames > 1 else 0.0
        return np.append(times, times[-1] + last) - times[0]
    if not rate:
        raise VideoError(path, "neither its frames nor its header say when they are shown: --fps says it")
    return np.arange(num_frames + 1) / float(rate)
