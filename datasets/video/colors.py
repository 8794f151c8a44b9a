"""Decoded frames as RGB, upright."""

import av
import numpy as np
from av.video.reformatter import VideoReformatter

_UNSPECIFIED, _BT2020, _BT2020_CONSTANT = 2, 9, 10   # AVColorSpace
_RANGES = 3                                          # of AVColorRange: unspecified, limited, full


class ToRGB:
    """Kept for a whole clip: a new reformatter a frame costs more than a small frame's decoding."""

    def __init__(self):
        self._reformatter = VideoReformatter()
        self.restart()

    def restart(self) -> None:
        """Decoding goes on at another place: what the frames before it said of their orientation holds no longer."""
        self._rotation, self._matrix, self._has_looked = 0, None, False

    def look(self, frame: av.VideoFrame) -> None:
        """See a frame, wanted or not: a stream says how it is turned with its key frames, and means those that follow.

        Only the first is asked for more than its angle, which does not tell of mirrors: to ask ties PyAV's objects into
        cycles.
        """
        if not self._has_looked or (frame.rotation and frame.rotation != self._rotation):
            self._has_looked = True
            self._matrix = display_matrix(frame) or self._matrix
            self._rotation = frame.rotation

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """uint8 (H, W, 3), turned and mirrored as the file says; after `look`.

        Raises:
            av.FFmpegError: its pixel format has no way to RGB.
        """
        picture = self._rgb(frame)
        return picture if self._matrix is None else as_shown(picture, self._matrix)

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
    """(a, b, c, d) of its file: x is shown at a x + c y, and y at b x + d y; None without."""
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
