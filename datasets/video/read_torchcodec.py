"""Reading with torchcodec.

Known of it (0.17): after a seek it returns other frames than asked in H.264 with gradual refresh, and a file
that was cut off passes for a shorter one.
"""

import re
from typing import BinaryIO

import numpy as np

from .error import VideoError
from .memory import empty_clip


class TorchcodecReader:
    """A file opened with torchcodec. One thread; its exact index of frames, not the container's word."""

    first_number = 0

    def __init__(self, path: str, file: BinaryIO | None = None):
        if path.lower().endswith(".avi"):   # seen with 0.17: other frames than PyAV's and decord's, which agree
            raise VideoError(path, "torchcodec takes the frames of .avi in a wrong order: use another video backend")
        from torchcodec.decoders import VideoDecoder
        self.path = path
        try:
            source = path
            if file is not None:
                with file:
                    source = file.read()
            self._video = VideoDecoder(source, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")
            self.num_frames = len(self._video)
        except (RuntimeError, ValueError) as error:
            raise VideoError(path, _cause(error)) from None
        if self.num_frames == 0:
            raise VideoError(path, "no frames in the video stream")

    def decode(self, wanted: list[int]) -> np.ndarray:
        """Frames `wanted` (ascending, distinct) -> uint8 (len(wanted), H, W, 3).

        Raises:
            VideoError: one of them cannot be decoded.
        """
        size = self._video.metadata
        empty_clip(self.path, len(wanted), size.height or 0, size.width or 0)
        try:
            return self._video.get_frames_at(wanted).data.numpy()
        except (RuntimeError, IndexError) as error:
            raise VideoError(self.path, _cause(error)) from None

    def close(self) -> None:
        """Free the decoder."""
        self._video = None


def _cause(error: Exception) -> str:
    """torchcodec's message without the place in its source."""
    return re.sub(r"^\w+, \S+\.cpp:\d+, ", "", str(error).strip().split("\n")[0])
