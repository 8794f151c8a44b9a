"""From decoded frames to the clip that goes to the device: uint8 in, uint8 out, the same crop in every frame.

T frames, H x W pixels in, S x S pixels out. Random ones draw from torch's global generator.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

MULTI_SCALES = (1, .875, .75, .66)   # Table 4, as VideoMAE
Transform = Callable[[np.ndarray | Tensor], Tensor]


def as_frames(clip: np.ndarray | Tensor) -> Tensor:
    """uint8 (T, H, W, 3) -> uint8 (T, 3, H, W), without a copy.

    Raises:
        ValueError: another shape or type.
    """
    clip = torch.as_tensor(clip)
    if clip.ndim != 4 or clip.shape[3] != 3 or clip.dtype != torch.uint8:
        raise ValueError(f"expected uint8 frames (T, H, W, 3), got {clip.dtype} {tuple(clip.shape)}")
    return clip.permute(0, 3, 1, 2)


def as_clip(frames: Tensor) -> Tensor:
    """(T, 3, S, S) -> (3, T, S, S), contiguous: what the networks take."""
    return frames.transpose(0, 1).contiguous()


def resize(frames: Tensor, height: int, width: int) -> Tensor:
    """(T, 3, H, W) -> (T, 3, height, width), bilinear, smoothed when it shrinks."""
    if frames.shape[-2:] == (height, width):
        return frames
    return F.resize(frames, [height, width], antialias=True)


def resize_short_side(frames: Tensor, size: int) -> Tensor:
    """(T, 3, H, W) -> the shorter side is `size`, the other in proportion (rounded down), bilinear."""
    height, width = frames.shape[-2:]
    short = min(height, width)
    return resize(frames, size * height // short, size * width // short)


class MultiScaleCrop:
    """Table 4's crop: sides from MULTI_SCALES of the short side, at one of 13 fixed places, resized to S x S.

    Height and width take neighbouring scales at most (`max_distort` apart). The crop is cut before the resize.
    """

    def __init__(self, size: int, scales: tuple[float, ...] = MULTI_SCALES, max_distort: int = 1):
        self.size, self.scales, self.max_distort = size, scales, max_distort

    def __call__(self, clip: np.ndarray | Tensor) -> Tensor:
        """uint8 (T, H, W, 3) -> uint8 (3, T, S, S)."""
        frames = as_frames(clip)
        shapes = self.shapes(*frames.shape[-2:])
        height, width = shapes[int(torch.randint(len(shapes), ()))]
        corners = fixed_corners(frames.shape[-2] - height, frames.shape[-1] - width)
        top, left = corners[int(torch.randint(len(corners), ()))]
        return as_clip(resize(frames[..., top:top + height, left:left + width], self.size, self.size))

    def shapes(self, height: int, width: int) -> list[tuple[int, int]]:
        """The (height, width) of the crops of a frame; a side within two pixels of S is S (no resampling for them)."""
        short = min(height, width)
        sides = [max(1, int(short * scale)) for scale in self.scales]
        sides = [min(self.size, short) if abs(side - self.size) < 3 else side for side in sides]
        return [(tall, wide) for i, tall in enumerate(sides) for j, wide in enumerate(sides)
                if abs(i - j) <= self.max_distort]


def fixed_corners(slack_height: int, slack_width: int) -> list[tuple[int, int]]:
    """The 13 (top, left) corners: on a 5 x 5 lattice over the slack, every other point, as a draught-board.

    Steps are whole quarters of the slack, as in VideoMAE, so the last ones may stop up to three pixels short.
    """
    step_y, step_x = slack_height // 4, slack_width // 4
    return [(y * step_y, x * step_x) for y in range(5) for x in range(5) if (x + y) % 2 == 0]


class ResizedCrop:
    """Sec. 8.1's crop: an area share from `scale`, a shape from [3/4, 4/3], anywhere, to S x S; then the flip."""

    def __init__(self, size: int, flip: bool, scale: tuple[float, float] = (.5, 1.)):
        self.crop = v2.RandomResizedCrop(size, scale=scale, ratio=(.75, 1.3333), antialias=True)
        self.flip = v2.RandomHorizontalFlip(.5 if flip else 0.)

    def __call__(self, clip: np.ndarray | Tensor) -> Tensor:
        """uint8 (T, H, W, 3) -> uint8 (3, T, S, S)."""
        return as_clip(self.flip(self.crop(as_frames(clip))))


class CenterCrop:
    """Short side to S, the middle S x S."""

    def __init__(self, size: int):
        self.size = size

    def __call__(self, clip: np.ndarray | Tensor) -> Tensor:
        """uint8 (T, H, W, 3) -> uint8 (3, T, S, S)."""
        return crop_views(clip, self.size, 1)[0]


class Resize:
    """The whole frame to S x S, whatever its shape."""

    def __init__(self, size: int):
        self.size = size

    def __call__(self, clip: np.ndarray | Tensor) -> Tensor:
        """uint8 (T, H, W, 3) -> uint8 (3, T, S, S)."""
        return as_clip(resize(as_frames(clip), self.size, self.size))


def crop_views(clip: np.ndarray | Tensor, size: int, crops: int, short_side: int | None = None) -> list[Tensor]:
    """uint8 (T, H, W, 3) -> `crops` x uint8 (3, T, S, S): short side to S, then squares along the longer side.

    They are spread evenly from one end to the other (VideoMAE's test crops); one crop is the middle one. With a
    `short_side` larger than S the squares lie in the middle of the shorter side.
    """
    if crops < 1:
        raise ValueError(f"crops must be at least 1, got {crops}")
    frames = resize_short_side(as_frames(clip), short_side or size)
    slack = max(frames.shape[-2:]) - size
    starts = [slack // 2] if crops == 1 else [view * slack // (crops - 1) for view in range(crops)]
    along = 2 if frames.shape[2] > frames.shape[3] else 3
    across = 5 - along
    frames = frames.narrow(across, (frames.shape[across] - size) // 2, size)
    return [as_clip(frames.narrow(along, start, size)) for start in starts]


PRETRAIN_TRANSFORMS = {
    "multiscale": lambda size, flip: MultiScaleCrop(size),   # Table 4: never flips
    "rrc": ResizedCrop,
    "center": lambda size, flip: CenterCrop(size),
    "resize": lambda size, flip: Resize(size),
}


def pretrain_transform(name: str, size: int, flip: bool = False) -> Transform:
    """The transform of that name: uint8 (T, H, W, 3) -> uint8 (3, T, size, size).

    Args:
        name: a key of PRETRAIN_TRANSFORMS.
        size: side of the clip in pixels.
        flip: may "rrc" mirror the clip (not where left and right are part of the class).

    Raises:
        ValueError: an unknown name.
    """
    if name not in PRETRAIN_TRANSFORMS:
        raise ValueError(f"unknown augmentation {name!r}: use one of {', '.join(PRETRAIN_TRANSFORMS)}")
    return PRETRAIN_TRANSFORMS[name](size, flip)
