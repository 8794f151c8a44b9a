"""What the policy of a hook thinks of clips, without training: for validation, pictures and measurements."""

from typing import Any

import torch
from torch import Tensor, nn

from .sampling import SamplingHook


@torch.no_grad()
def probabilities(sampling: SamplingHook, model: nn.Module | Tensor | None, videos: Tensor) -> Tensor:
    """pi, float32 (B, N), of the tokens of `videos`, in the order (t h w).

    Args:
        model, videos: as for `SamplingHook.choose`.

    Raises:
        ValueError: the strategy has no policy, or the shapes do not fit.
    """
    if sampling.sampler is None:
        raise ValueError(f"--mask_type {sampling.mask_type} has no policy to look at")
    with torch.autocast(sampling.device.type, enabled=False):
        return sampling.sampler.module(sampling.read_tokens(model, videos), log=True)[0].exp()


@torch.no_grad()
def validation_mask(sampling: SamplingHook, model: nn.Module | Tensor | None, videos: Tensor,
                    mask: Any = None) -> Tensor:
    """A mask for validation, bool (B, N), True = masked: as `choose` would give it now, and nothing is learned from it.

    The hook stays as it is: a mask that waits for its `learn`, the epoch and its numbers too. The draw takes from
    torch's generator, as any other does.

    Args:
        model, videos, mask: as for `SamplingHook.choose`.

    Raises:
        ValueError: shapes that do not fit the grid.
    """
    hidden = sampling.incoming.hidden
    try:
        batch = sampling.incoming.batch(videos, mask, None)
    finally:
        sampling.incoming.hidden = hidden
    if not sampling.acts(sampling.next_epoch):
        return batch.mask
    net = sampling.sampler.module
    with torch.autocast(sampling.device.type, enabled=False):
        return net.draw(net(sampling.read_tokens(model, videos), log=True)[0]).mask
