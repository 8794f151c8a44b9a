"""What the masked autoencoder has to predict."""

import torch
from einops import rearrange
from torch import Tensor

from . import kernels
from .mae import take, token_order
from .mixed_precision import pieces


def reconstruction_targets(pixels: Tensor, bool_masked_pos: Tensor, patch_size: int, tubelet_size: int,
                           normalize: bool = True, masked: Tensor | None = None) -> Tensor:
    """Pixels of the masked tokens, in the order of the model's prediction.

    Args:
        pixels: (B, C, T, H, W) in [0, 1], not normalised with a data set's mean and std.
        bool_masked_pos: (B, N), True = masked.
        normalize: take each token's mean and deviation out, per channel, as VideoMAE does (the deviation with the
            unbiased variance, plus 1e-6). A constant patch gives zeros.
        masked: indices of the masked tokens, int64 (B, M), ascending, where the caller has them.

    Returns:
        (B, M, tubelet * patch^2 * C), pixels in the order (t h w c).
    """
    masked = token_order(bool_masked_pos).masked if masked is None else masked
    if not kernels.wants_large(pixels):
        return _targets(pixels, masked, (tubelet_size, patch_size), normalize)
    found = pixels.new_empty(*masked.shape, pixels.shape[1] * tubelet_size * patch_size**2)
    for clips in pieces(found):   # what is made between would set the step's peak of memory
        _targets(pixels[clips], masked[clips], (tubelet_size, patch_size), normalize, found[clips])
    return found


def _targets(pixels: Tensor, masked: Tensor, size: tuple[int, int], normalize: bool,
             out: Tensor | None = None) -> Tensor:
    """Of all clips at once. size: tubelet and patch. out: where they are written."""
    patches = take(rearrange(pixels, "b c (t p0) (h p1) (w p2) -> b (t h w) (p0 p1 p2 c)", p0=size[0], p1=size[1],
                             p2=size[1]), masked)
    if not normalize:
        return patches if out is None else out.copy_(patches)
    values = patches.unflatten(-1, (-1, pixels.shape[1]))                             # (B, M, pixels, C)
    deviation = values.var(dim=2, keepdim=True).sqrt() + 1e-6
    return torch.div(values - values.mean(dim=2, keepdim=True), deviation,
                     out=None if out is None else out.view_as(values)).flatten(2)
