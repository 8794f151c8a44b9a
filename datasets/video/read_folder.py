"""A folder of pictures as a video: which files are its frames, in which order, and their pixels."""

import fnmatch
import os
import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .error import VideoError
from .memory import empty_clip

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_SHOWN = 3
_TIME_OF_DAY = re.compile(r"\d\d[-_.:h]\d\d[-_.:m]\d\d|\d{12,}")
_ADVICE = "choose with --frame_pattern, for example '{example}', or take all of them with '*'"


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


def frame_names(path: str, pattern: str = "") -> list[str]:
    """Names of the pictures in folder `path`, in the order of the numbers in them: img_2.jpg before img_10.jpg.

    Names that begin with a dot are left out: a Mac's `._img_1.jpg` is no picture.

    Args:
        path: the folder.
        pattern: as shells write it; only names that match are taken. "*": all, numbered alike or not.

    Raises:
        VideoError: no pictures, none that matches, or those of several videos: different names, or one number twice.
    """
    try:
        names = [name for name in os.listdir(path) if name.lower().endswith(ENDINGS) and not name.startswith(".")]
    except OSError as error:
        raise VideoError(path, error.strerror) from None
    if not names:
        raise VideoError(path, f"the folder holds no pictures ({', '.join(ENDINGS)})")
    chosen = [name for name in names if fnmatch.fnmatchcase(name, pattern or "*")]
    if not chosen:
        raise VideoError(path, f"none of its {len(names)} pictures matches --frame_pattern {pattern!r}, the first is "
                               f"{min(names)}")
    chosen.sort(key=_in_number_order)
    if pattern != "*":
        _check_one_video(path, chosen)
    return chosen


def _in_number_order(name: str) -> tuple[list[int], str]:
    return [int(digits) for digits in re.findall(r"\d+", name)], name


def last_number(name: str) -> int:
    """The number of a picture by its name; 0 without one."""
    digits = re.findall(r"\d+", os.path.splitext(name)[0])
    return int(digits[-1]) if digits else 0


def _check_one_video(path: str, names: Sequence[str]) -> None:
    """Raises VideoError: names that differ in more than their numbers, or that number the frames more than once."""
    stems = defaultdict(list)
    for name in names:
        stems[re.sub(r"\d+", "#", os.path.splitext(name)[0])].append(name)
    if len(stems) > 1:
        kinds = sorted(stems.values(), key=lambda group: ("flow" in group[0].lower(), -len(group)))
        firsts = [group[0] for group in kinds]
        raise VideoError(path, f"pictures of {len(stems)} kinds in one folder, such as {_some(firsts)}: "
                               + _advice(firsts[0]))
    numbers = defaultdict(list)
    for name in names:
        numbers[last_number(name)].append(name)
    twice = next((group for group in numbers.values() if len(group) > 1), None)
    if twice and not all(_TIME_OF_DAY.search(name) for name in twice):
        raise VideoError(path, f"two pictures have the same number, {_some(twice)}: " + _advice(twice[0]))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN])


def _advice(name: str) -> str:
    """The name with a star for its last number."""
    stem, ending = os.path.splitext(name)
    start = re.sub(r"\d+(?=\D*$)", "*", stem, count=1)
    return _ADVICE.format(example=start + ending if start != stem else name)
