"""Memory for decoded frames, with a bound: what a hostile header says is not believed."""

import numpy as np

from .error import VideoError

MAX_CLIP_BYTES = 4 << 30   # a count or a size out of a hostile header must not take the machine's memory


def empty_clip(path: str, frames: int, height: int, width: int) -> np.ndarray:
    """Memory for a clip, uint8 (frames, height, width, 3).

    Raises:
        VideoError: more than MAX_CLIP_BYTES.
    """
    size = frames * height * width * 3
    if size > MAX_CLIP_BYTES:
        raise VideoError(path, f"{frames} frames of {width}x{height} would take {size / 2**30:.1f} GiB")
    return np.empty((frames, height, width, 3), np.uint8)
