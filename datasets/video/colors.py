"""Decoded frames as RGB, upright."""

import av
import numpy as np
from av.video.reformatter import VideoReformatter

_UNSPECIFIED, _BT2020, _BT2020_CONSTANT = 2, 9, 10   # AVColorSpace
_RANGES = 3                                          # of AVColorRange: unspecified, limited, full


class ToRGB:
    """Kept for a whole clip: a new reformatter a frame costs more than a small frame's decoding."""

    def __init__(self):
        self._reformatter, self._is_flipped = VideoReformatter(), None

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """uint8 (H, W, 3), turned and mirrored as the file says.

        Raises:
            av.FFmpegError: its pixel format has no way to RGB.
        """
        picture = self._rgb(frame)
        if frame.rotation:
            return as_shown(picture, display_matrix(frame))
        if self._is_flipped is None:   # upside down is no rotation: the first frame is looked at, and stands for all
            matrix = display_matrix(frame)
            self._is_flipped = matrix is not None and matrix[3] < 0
        return picture[::-1] if self._is_flipped else picture

    def _rgb(self, frame: av.VideoFrame) -> np.ndarray:
        try:
            return self._reformatter.reformat(frame, format="rgb24").to_ndarray()
        except (av.FFmpegError, OSError):
            tags = frame.colorspace, frame.color_range
            # What players do: BT.2020's constant luminance as the other BT.2020, what is not known as if not tagged.
            frame.colorspace = _BT2020 if tags[0] == _BT2020_CONSTANT else _UNSPECIFIED
            frame.color_range = tags[1] if tags[1] in range(_RANGES) else 0
            if tags == (frame.colorspace, frame.color_range):
                raise
            self._reformatter = VideoReformatter()
            return self._reformatter.reformat(frame, format="rgb24").to_ndarray()


def display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int] | None:
    """(a, b, c, d) of its file: x is shown at a x + c y, and y at b x + d y; None without.

    Not asked for every frame, since it ties PyAV's objects into cycles.
    """
    found = frame.side_data.get("DISPLAYMATRIX")
    if found is None:
        return None
    a, b, _, c, d = np.frombuffer(bytes(found), np.int32)[:5].tolist()
    return a, b, c, d


def as_shown(picture: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """(H, W, 3) turned and mirrored as players do."""
    a, b, c, d = matrix
    if abs(b) > abs(a):
        picture, a, d = picture.swapaxes(0, 1), c, b
    return picture[::-1 if d < 0 else 1, ::-1 if a < 0 else 1]
