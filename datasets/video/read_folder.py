"""A folder of pictures as a video."""

import os
import re

import numpy as np
from PIL import Image, UnidentifiedImageError

from .error import VideoError
from .memory import empty_clip

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


class FolderReader:
    """Pictures in the order of the numbers in their names: img_2.jpg stands before img_10.jpg."""

    def __init__(self, path: str):
        self.path = path
        try:
            names = [name for name in os.listdir(path) if name.lower().endswith(ENDINGS)]
        except OSError as error:
            raise VideoError(path, error.strerror) from None
        if not names:
            raise VideoError(path, f"the folder holds no pictures ({', '.join(ENDINGS)})")
        self._names = sorted(names, key=_in_number_order)
        self.num_frames = len(names)

    def decode(self, wanted: list[int]) -> np.ndarray:
        """Pictures `wanted` (ascending, distinct) -> uint8 (len(wanted), H, W, 3).

        Raises:
            VideoError: one cannot be read, or has another size than the first.
        """
        clip = None
        for slot, number in enumerate(wanted):
            picture = self._load(os.path.join(self.path, self._names[number]))
            clip = empty_clip(self.path, len(wanted), *picture.shape[:2]) if clip is None else clip
            if picture.shape != clip.shape[1:]:
                raise VideoError(self.path, f"{self._names[number]} is {picture.shape[1]}x{picture.shape[0]}, "
                                            f"others are {clip.shape[2]}x{clip.shape[1]}")
            clip[slot] = picture
        return clip

    def close(self) -> None:
        """Nothing is held open."""

    def _load(self, path: str) -> np.ndarray:
        try:
            with Image.open(path) as picture:
                return np.asarray(picture.convert("RGB"))
        except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise VideoError(path, error) from None


def _in_number_order(name: str) -> tuple[list[int], str]:
    return [int(digits) for digits in re.findall(r"\d+", name)], name
