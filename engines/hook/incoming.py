"""From what a loop of one's own has, videos and perhaps masks, to a `ClipBatch`, and what is kept until it learns."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from ...masking import TokenGrid
from ..engine_for_pretraining_ppo import Choice
from ..training.batches import ClipBatch, Normalizer
from .errors import numbers_of


class Pending(NamedTuple):
    """A mask that nothing has been learned from yet; choice is None where nobody drew it but the loader."""

    batch: ClipBatch
    mask: Tensor
    masked: Tensor
    more: bool
    choice: Choice | Tensor | None   # a Choice under PPO, log pi (B, N) under REINFORCE or without training


class Incoming:
    """Args:
        per_clip: `() -> bool (N,)`, draws a mask where the loop has none.
        layout: the videos' dimensions in order, "bcthw", "btchw", "bthwc"; images' "bchw" or "bhwc".

    Attributes:
        hidden: masked tokens of a clip in the newest mask that came.
    """

    def __init__(self, grid: TokenGrid, per_clip: Callable[[], Tensor], normalizer: Normalizer, layout: str):
        self.grid, self.per_clip, self.normalizer, self.layout = grid, per_clip, normalizer, layout
        self.hidden: int | None = None

    def videos(self, videos: Tensor) -> Tensor:
        """(B, C, T, H, W) on the normalizer's device. Raises ValueError: another type, shape or number of channels."""
        if not isinstance(videos, Tensor):
            raise ValueError(f"videos are a {type(videos).__name__} and no tensor")
        if not videos.is_floating_point():
            raise ValueError(f"videos of {str(videos.dtype).removeprefix('torch.')}: the hook takes what the model "
                             "takes, normalised floats")
        if self.layout != "bcthw":
            if videos.ndim != len(self.layout):
                raise ValueError(f"videos of shape {tuple(videos.shape)} with layout={self.layout!r}")
            images = "" if "t" in self.layout else "b c h w"
            videos = rearrange(videos, f"{' '.join(self.layout)} -> {images or 'b c t h w'}")
        try:
            return self.normalizer.checked(videos).to(self.normalizer.mean.device, non_blocking=True)
        except ValueError as error:
            raise ValueError(f"{error}; give layout= for dimensions in another order, such as "
                             '"btchw" or "bthwc", and mean= and std= for other channels') from None

    def batch(self, videos: Tensor, mask: Any, keys: Tensor | None) -> ClipBatch:
        """On the normalizer's device. mask: any shape and type of N numbers a clip; None or empty: one is drawn.

        Raises:
            ValueError: shapes that do not fit.
        """
        device = self.normalizer.mean.device
        videos = self.videos(videos)
        if not len(videos):
            raise ValueError("a batch without videos")
        if mask is None or not len(mask):
            mask = torch.stack([self.per_clip() for _ in range(len(videos))])
        mask = numbers_of(mask, "the loader's mask")
        mask = (mask.flatten(1) if mask.ndim > 1 else mask).bool()
        if tuple(mask.shape) != (len(videos), self.grid.num_tokens):
            raise ValueError(f"a mask of shape {tuple(mask.shape)}: wanted are (B, N) = ({len(videos)}, "
                             f"{self.grid.num_tokens}) for the grid {'x'.join(map(str, self.grid))}")
        if self.hidden is None or mask.device.type == "cpu":   # elsewhere counting would wait for the device
            hidden = mask.sum(dim=1)
            if (hidden != hidden[0]).any():
                raise ValueError(f"a mask whose rows hide {int(hidden.min())} to {int(hidden.max())} tokens: the same "
                                 "number is needed in every row")
            self.hidden = int(hidden[0])
            if self.hidden in (0, self.grid.num_tokens):
                raise ValueError(f"a mask that hides {self.hidden} of {self.grid.num_tokens} tokens: nothing can be "
                                 "learned from it; where the loader has no masks, give None, and one is drawn")
        return ClipBatch(videos, self.normalizer.denormalize(videos.float()), mask.to(device, non_blocking=True),
                         None if keys is None else keys.to(device))
