"""From what a loop of one's own has, videos and perhaps masks, to a `ClipBatch`, and what is kept until it learns."""

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...masking import TokenGrid
from ..engine_for_pretraining_ppo import Choice
from ..training.batches import ClipBatch, Normalizer

logger = logging.getLogger(__name__)


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
        time_first: the videos are (B, T, C, H, W).

    Attributes:
        hidden: masked tokens of a clip in the first mask that came.
    """

    def __init__(self, grid: TokenGrid, per_clip: Callable[[], Tensor], normalizer: Normalizer, time_first: bool):
        self.grid, self.per_clip, self.normalizer, self.time_first = grid, per_clip, normalizer, time_first
        self.hidden: int | None = None

    def batch(self, videos: Tensor, mask: Any, keys: Tensor | None) -> ClipBatch:
        """On the normalizer's device. mask: any shape and type of N numbers a clip; None or empty: one is drawn.

        Raises:
            ValueError: shapes that do not fit.
        """
        device = self.normalizer.mean.device
        if mask is None or not len(mask):
            mask = torch.stack([self.per_clip() for _ in range(len(videos))])
        mask = torch.as_tensor(mask).flatten(1).bool()
        if tuple(mask.shape) != (len(videos), self.grid.num_tokens):
            raise ValueError(f"a mask of shape {tuple(mask.shape)}: wanted are (B, N) = ({len(videos)}, "
                             f"{self.grid.num_tokens}) for the grid {'x'.join(map(str, self.grid))}")
        if self.hidden is None:
            self.hidden = int(mask[0].sum())
        if videos.dtype == torch.uint8:
            raise ValueError("videos of uint8: the hook takes what the model takes, normalised floats")
        if self.time_first:
            videos = videos.transpose(1, 2)
        videos = self.normalizer.checked(videos).to(device, non_blocking=True)
        return ClipBatch(videos, self.normalizer.denormalize(videos.float()), mask.to(device, non_blocking=True),
                         None if keys is None else keys.to(device))

    def compare(self, drawn: int, in_one_batch: bool) -> None:
        """Warn where the policy shows another number of tokens than the loader's masks.

        Args:
            in_one_batch: both stand in one batch, which cannot be then.

        Raises:
            ValueError: `in_one_batch`.
        """
        seen = self.grid.num_tokens - self.hidden
        if seen == drawn:
            return
        message = (f"the loader's masks show {seen} tokens and the policy shows {drawn}: give num_visible={seen}, or "
                   "make the masks with tats.engines.fork.loader_mask")
        if in_one_batch:
            raise ValueError(f"{message}; with --random_share both stand in one batch")
        logger.warning("%s", message)
