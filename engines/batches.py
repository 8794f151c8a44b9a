"""From a loader's batch to what the networks take, on the device."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor


class ClipBatch(NamedTuple):
    """A batch on the device.

    videos: (B, 3, T, H, W) float32, normalised with ImageNet's mean and std. pixels: the same in [0, 1], for targets.
    mask: bool (B, N), True = masked, made in the loader. keys: int64 (B,), names each clip's random draws, or None.
    """

    videos: Tensor
    pixels: Tensor
    mask: Tensor
    keys: Tensor | None


class Normalizer:
    """ImageNet's mean and std on one device, made once and not in every step."""

    def __init__(self, device: torch.device):
        self.mean = torch.tensor(IMAGENET_DEFAULT_MEAN, device=device).view(1, 3, 1, 1, 1)
        self.std = torch.tensor(IMAGENET_DEFAULT_STD, device=device).view(1, 3, 1, 1, 1)

    def normalize(self, pixels: Tensor) -> Tensor:
        """Pixels in [0, 1] (B, 3, T, H, W) -> what VideoMAE's networks see."""
        return (pixels - self.mean) / self.std

    def denormalize(self, videos: Tensor) -> Tensor:
        """The inverse of `normalize`."""
        return videos * self.std + self.mean

    def prepare(self, batch: Sequence[Tensor], device: torch.device) -> ClipBatch:
        """A loader's (videos, mask[, keys]) -> `ClipBatch`.

        uint8 videos are normalised here, on the device (a quarter of the bytes over the bus); float videos are taken
        as already normalised, as VideoMAE's own loader yields them.
        """
        videos, mask, *rest = batch
        videos = videos.to(device, non_blocking=True)
        mask = mask.to(device, non_blocking=True).flatten(1).bool()
        if videos.dtype == torch.uint8:
            pixels = videos.float() / 255
            videos = self.normalize(pixels)
        else:
            pixels = self.denormalize(videos.float())
        return ClipBatch(videos, pixels, mask, rest[0].to(device, non_blocking=True) if rest else None)
