"""Reading with decord, for those whose runs must stay as they were. It is no longer maintained.

Known of it: after a seek it returns other frames than asked in H.264 with open groups or gradual refresh and in
MPEG-4 with B-frames; it may return a neighbour where a frame is damaged, without a word; files that announce
more frames than they hold can keep it in native code for ever; it turns pictures as the file says, but does not
mirror them. The reader for PyAV has none of these faults.
"""

import io
import re
from typing import BinaryIO

import numpy as np
import torch  # noqa: F401  (loaded before decord: the other order crashes in native code)

from .error import VideoError
from .memory import empty_clip

_NARROW = "decord takes the padding of pictures this narrow for pixels: use another video backend"


class DecordReader:
    """A file opened with decord. One thread; made in the worker that uses it, never before a fork."""

    first_number = 0

    def __init__(self, path: str, file: BinaryIO | None = None):
        import decord
        self._error = decord.DECORDError
        self.path = path
        try:
            if file is not None:   # decord copies it into its own memory
                with file:
                    file = io.BytesIO(file.read())
            self._video = decord.VideoReader(path if file is None else file, num_threads=1)
            self.num_frames = len(self._video)
        except (self._error, RuntimeError) as error:
            raise VideoError(path, _cause(error)) from None
        if self.num_frames == 0:
            raise VideoError(path, "no frames in the video stream")

    def decode(self, wanted: list[int]) -> np.ndarray:
        """Frames `wanted` (ascending, distinct) -> uint8 (len(wanted), H, W, 3).

        Raises:
            VideoError: decord fails on one of them.
        """
        try:
            if self.path.lower().endswith(".avi"):
                return self._decode_in_order(wanted)
            return self._video.get_batch(wanted).asnumpy()
        except (self._error, StopIteration, IndexError) as error:
            raise VideoError(self.path, _cause(error)) from None

    def close(self) -> None:
        """Free the reader."""
        self._video = None

    def _decode_in_order(self, wanted: list[int]) -> np.ndarray:
        """Every frame from the first to the last wanted one: decord's seeking in .avi gives unstable frames."""
        slots, clip = {number: slot for slot, number in enumerate(wanted)}, None
        self._video.seek(0)
        for number in range(wanted[-1] + 1):
            frame = self._video.next()
            if number in slots:
                picture = frame.asnumpy()
                if picture.shape[2] != 3:
                    raise VideoError(self.path, _NARROW)
                clip = empty_clip(self.path, len(wanted), *picture.shape[:2]) if clip is None else clip
                clip[slots[number]] = picture
        return clip


def _cause(error: Exception) -> str:
    """decord's message without the places in its source and the list of native frames."""
    text = str(error).strip().split("\n")[0]
    if "size must exactly match" in text:
        return _NARROW
    return re.sub(r"^(\[[\d:]+\] |\S+\.cc:\d+: )+", "", text) or type(error).__name__
