"""Two decoders on the same clips: do they see the same pictures?"""

import logging
from typing import NamedTuple

import numpy as np

from .lists.list_file import ClipList
from .lists.seeding import mix
from .video.backends import BACKENDS, loads
from .video.decode import Decoding, VideoError

logger = logging.getLogger(__name__)

MAX_DIFFERENCE = 3.0   # mean over a picture, of 255: the rounding of colours stays under 2
CLIP_FRAMES = 16


class Disagreement(ValueError):
    """Two decoders see different pictures: one line with the files and the ways on."""


class Comparison(NamedTuple):
    """One video: the largest mean difference of a picture (0 to 255), or why there is none."""

    path: str
    difference: float
    note: str

    @property
    def differs(self) -> bool:
        """More than rounding."""
        return self.difference > MAX_DIFFERENCE


def verify_decode(clips: ClipList, decoding: Decoding, count: int, seed: int = 0) -> list[Comparison]:
    """Read `count` random videos of a list with its decoder and with another installed decoder; log what they say.

    A video that one of the two cannot read is noted and is no disagreement: training names it, if it meets it.

    Raises:
        Disagreement: some pictures differ.
        ValueError: there is no second decoder.
    """
    decoding = decoding.resolved()
    first = decoding.backend
    second = next((name for name in BACKENDS if name != first and loads(name)), None)
    if second is None:
        others = " or ".join({"pyav": "av"}.get(name, name) for name in BACKENDS if name != first)
        raise ValueError(f"--verify_decode needs a second decoder beside {first}: install {others}")
    rows = np.random.default_rng(mix(seed, 4)).permutation(len(clips))[:count]
    found = [compare(clips.paths[row], decoding, decoding._replace(backend=second)) for row in sorted(rows)]
    odd = [one for one in found if one.note]
    if odd:
        width = max(len(one.path) for one in odd)
        logger.warning("%s and %s:\n%s", first, second,
                       "\n".join(f"  {one.path:<{width}}  {one.note}" for one in odd))
    differing = [one.path for one in found if one.differs]
    if differing:
        raise Disagreement(f"{first} and {second} see different pictures in {len(differing)} of {len(found)} videos: "
                           f"{', '.join(differing[:5])}; look at them, then leave them out of the list, choose the "
                           "other --video_backend, or go on without --verify_decode")
    logger.info("%s and %s see the same pictures in %d of %d videos, %d cannot be compared", first, second,
                len(found) - len(odd), len(found), len(odd))
    return found


def compare(path: str, one: Decoding, other: Decoding) -> Comparison:
    """The pictures of two decoders at the same numbers, spread over the video."""
    clips, first, second = [], one.backend, other.backend
    for decoding in (one, other):
        try:
            with decoding.open(path) as video:
                total = video.num_frames
                # The first decoder says which: a count that differs shows in the pictures, if it matters.
                indices = clips[0][0] if clips else np.unique(np.linspace(0, total - 1, CLIP_FRAMES).astype(int))
                if indices[-1] >= total:
                    return Comparison(path, 255., f"{second} finds {total} frames and not {clips[0][1]}")
                clips.append((indices, total, video.read(indices)))
        except VideoError as error:
            return Comparison(path, 0., f"{decoding.backend} cannot read it: {error.cause}")
    left, right = (clip[2].astype(np.int16) for clip in clips)
    if left.shape != right.shape:
        return Comparison(path, 255., f"{first}'s pictures are {_size(left)}, {second}'s {_size(right)}")
    difference = float(np.abs(left - right).mean(axis=(1, 2, 3)).max())
    note = f"pictures differ by {difference:.1f} of 255" if difference > MAX_DIFFERENCE else ""
    return Comparison(path, difference, note)


def _size(clip: np.ndarray) -> str:
    return f"{clip.shape[2]}x{clip.shape[1]}"
