"""What the policy of a hook thinks of clips, without training: for pictures and measurements."""

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
