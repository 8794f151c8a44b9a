"""The first batch of a hook, looked at at once: what does not fit is said now, and not after m_o epochs."""

import logging
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from ..training.batches import ClipBatch
from .tokens import OTHERWISE

logger = logging.getLogger(__name__)


def check_first_batch(hook: Any, model: nn.Module | Tensor | None, videos: Tensor, batch: ClipBatch,
                      epoch: int) -> None:
    """Try the tokens of a batch whose mask is known, and say from when on the policy acts.

    Args:
        model, videos, epoch: as for `SamplingHook.choose`. batch: what came of the videos.

    Raises:
        ValueError: the tokens do not fit the grid, the loader's masks do not fit the policy's, or the process group is
            younger than the hook.
    """
    processes = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    if processes != hook.runtime.world_size:
        raise ValueError(f"the hook was made for {hook.runtime.world_size} processes and there are {processes}: make "
                         "it after torch.distributed.init_process_group, or every process trains a policy of its own")
    _compare_masks(hook)
    if hook.sampler is None:
        return
    _look_at_videos(hook, batch)
    try:
        tokens = hook.read_tokens(model, videos)
    except RuntimeError as error:
        raise ValueError(f"the tokens of videos of shape {tuple(videos.shape)} cannot be read: {error}; {OTHERWISE}, "
                         "and make the hook when the model is on its device") from error
    wanted = (len(videos), hook.grid.num_tokens, hook.tokens.width)
    if tuple(tokens.shape) != wanted:
        raise ValueError(f"tokens of shape {tuple(tokens.shape)}, wanted are (B, N, D) = {wanted} for the grid "
                         f"{'x'.join(map(str, hook.grid))}")
    first, epochs = hook.training.mae_only_epochs, hook.options.epochs
    if not hook.acts(epoch) and hook.runtime.is_main:
        never = epochs is not None and first >= epochs
        level = logging.WARNING if never or epochs is None else logging.INFO
        logger.log(level, "epoch %d: masks are random before epoch %d (mae_only_epochs)%s", epoch, first,
                   f", and the run has {epochs} epochs: the policy will never act" if never else "")


def _compare_masks(hook: Any) -> None:
    """Warn where the loader's masks show another number of tokens than the policy, or than what was asked for.

    Raises:
        ValueError: the loader's masks are turned round, or both kinds stand in one batch, which cannot be then.
    """
    tokens, policy = hook.grid.num_tokens, hook.sampler is not None
    drawn = hook.sampler.module.num_visible if policy else hook.incoming.per_clip.num_visible
    who = "the policy shows" if policy else "the hook was made for"
    seen = tokens - hook.incoming.hidden
    if seen == drawn:
        return
    if seen == tokens - drawn:
        raise ValueError(f"the loader's masks hide {drawn} of {tokens} tokens, as many as {who}: True or 1 "
                         "must mean masked, so give ~mask")
    message = (f"the loader's masks show {seen} tokens and {who} {drawn}: give num_visible={seen}, or make "
               f"the masks with tats.engines.fork.loader_mask{'' if policy else '; the masks of the loader are used'}")
    if policy and hook.config.random_share > 0:
        raise ValueError(f"{message}; with --random_share both stand in one batch")
    logger.warning("%s", message)


def _look_at_videos(hook: Any, batch: ClipBatch) -> None:
    """Warn of pixels that are not normalised as said, and of sides that the grid does not divide."""
    clips = batch.videos
    low, high = float(batch.pixels.min()), float(batch.pixels.max())
    if not -2 < low <= high < 3:   # nan, too
        logger.warning("undone with mean= and std=, the pixels lie between %.3g and %.3g instead of 0 and 1: the hook "
                       "takes videos as the model takes them, normalised", low, high)
    sides = clips.shape[-3:] if clips.ndim == 5 else (1, *clips.shape[-2:])
    if any(side % parts for side, parts in zip(sides, hook.grid, strict=True)):
        logger.warning("the grid %s does not divide videos of %s: it is (T', H', W') in tokens",
                       "x".join(map(str, hook.grid)), "x".join(map(str, sides)))
