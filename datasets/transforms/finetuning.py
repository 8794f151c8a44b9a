"""The training transform of fine-tuning: RandAugment, resized crop, flip; every frame of a clip gets the same draw.

Random erasing, mixup and CutMix follow on the device, on normalised clips, for the whole batch.
"""

import random
from collections.abc import Callable

import numpy as np
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from timm.data.transforms import str_to_pil_interp
from torch import Tensor

from .pretraining import ResizedCrop

SCALE = (.08, 1.)   # area share of the crop, as VideoMAE


class SameForAllFrames:
    """A random transform of pictures for clips: `random` and numpy.random are put back before each frame."""

    def __init__(self, transform: Callable[[Image.Image], Image.Image]):
        self.transform = transform

    def __call__(self, clip: np.ndarray) -> np.ndarray:
        """uint8 (T, H, W, 3) -> uint8 (T, H, W, 3)."""
        state = random.getstate(), np.random.get_state()
        frames = []
        for frame in clip:
            random.setstate(state[0])
            np.random.set_state(state[1])
            frames.append(np.asarray(self.transform(Image.fromarray(frame))))
        return np.stack(frames)


class FinetuneTransform:
    """RandAugment on the whole frames, then the resized crop and, where allowed, the flip.

    Args:
        size: S, side of the clip in pixels.
        flip: may a clip be mirrored.
        aa: RandAugment in timm's words, e.g. rand-m9-mstd0.5-inc1; "" or "none" for none.
        interpolation: RandAugment's resampling: bilinear, bicubic or random.
        scale: least and largest share of the frame's area that the crop takes.

    Raises:
        ValueError: `aa` is something else, or `scale` no shares.
    """

    def __init__(self, size: int, flip: bool, aa: str = "rand-m9-mstd0.5-inc1", interpolation: str = "bicubic",
                 scale: tuple[float, float] = SCALE):
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"--crop_scale takes two shares of the frame's area, the smaller first, got {scale}")
        self.augment = rand_augment(aa, size, interpolation)
        self.crop = ResizedCrop(size, flip, scale)

    def __call__(self, clip: np.ndarray) -> Tensor:
        """uint8 (T, H, W, 3) -> uint8 (3, T, S, S)."""
        return self.crop(self.augment(clip) if self.augment else clip)


def rand_augment(aa: str, size: int, interpolation: str = "bicubic") -> SameForAllFrames | None:
    """timm's RandAugment for clips, None for "" and "none".

    Raises:
        ValueError: not a RandAugment setting.
    """
    if aa in ("", "none", "None"):
        return None
    if not aa.startswith("rand"):
        raise ValueError(f"--aa {aa!r}: only RandAugment is known, e.g. rand-m9-mstd0.5-inc1, or '' for none")
    options: dict[str, object] = {"translate_const": int(size * .45)}
    if interpolation != "random":
        options["interpolation"] = str_to_pil_interp(interpolation)
    try:
        return SameForAllFrames(_keep_a_bit(rand_augment_transform(aa, options)))
    except (AssertionError, ValueError) as error:
        raise ValueError(f"--aa {aa!r} is not a RandAugment setting ({error}); use e.g. rand-m9-mstd0.5-inc1") from None


def _keep_a_bit(augment):
    """At full magnitude timm posterises to 0 bits: a black picture, and an error from Pillow 12 on. Keep one bit."""
    for op in augment.ops:
        if op.name.startswith("Posterize"):
            op.level_fn = _AtLeastOne(op.level_fn)
    return augment


class _AtLeastOne:   # not a closure: workers that are spawned pickle it
    def __init__(self, level_fn):
        self.level_fn = level_fn

    def __call__(self, level, hparams):
        return (max(1, self.level_fn(level, hparams)[0]),)
