"""A folder of pictures as a video."""

import os

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .error import VideoError
from .frame_names import frame_names, last_number
from .memory import empty_clip


class FolderReader:
    """Pictures in the order of the numbers in their names, see `frame_names`."""

    def __init__(self, path: str, frame_pattern: str = ""):
        self.path = path
        self._names = frame_names(path, frame_pattern)
        self.num_frames = len(self._names)
        self.first_number = last_number(self._names[0])

    def decode(self, wanted: list[int]) -> np.ndarray:
        """Pictures `wanted` (ascending, distinct) -> uint8 (len(wanted), H, W, 3).

        Raises:
            VideoError: one cannot be read, or has another size than the first.
        """
        clip = None
        for slot, number in enumerate(wanted):
            picture = self._load(self._names[number])
            clip = empty_clip(self.path, len(wanted), *picture.shape[:2]) if clip is None else clip
            if picture.shape != clip.shape[1:]:
                raise VideoError(self.path, f"{self._names[number]} is {picture.shape[1]}x{picture.shape[0]}, "
                                            f"others are {clip.shape[2]}x{clip.shape[1]}")
            clip[slot] = picture
        return clip

    def close(self) -> None:
        """Nothing is held open."""

    def _load(self, name: str) -> np.ndarray:
        try:
            with Image.open(os.path.join(self.path, name)) as picture:
                return _rgb(picture)
        except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            cause = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise VideoError(self.path, f"picture {name}: {str(cause).replace(self.path + os.sep, '')}") from None


def _rgb(picture: Image.Image) -> np.ndarray:
    """uint8 (H, W, 3), upright by the picture's own word; 16 bits are scaled to 8, transparency is left out."""
    upright = ImageOps.exif_transpose(picture)
    if upright.mode == "I" or upright.mode.startswith("I;16"):   # grey of 16 bits: convert() would cut off at 255
        grey = (np.asarray(upright).astype(np.uint32) + 128) // 257
        return np.repeat(np.minimum(grey, 255).astype(np.uint8)[..., None], 3, axis=2)
    return np.asarray(upright.convert("RGB"))
