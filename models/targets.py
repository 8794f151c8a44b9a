"""What the masked autoencoder has to predict."""

from einops import rearrange
from torch import Tensor

from .mae import take, token_order


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
    patches = rearrange(pixels, "b c (t p0) (h p1) (w p2) -> b (t h w) (p0 p1 p2 c)", p0=tubelet_size, p1=patch_size,
                        p2=patch_size)
    patches = take(patches, token_order(bool_masked_pos).masked if masked is None else masked)
    if not normalize:
        return patches
    values = rearrange(patches, "b m (p c) -> b m p c", c=pixels.shape[1])
    values = (values - values.mean(dim=2, keepdim=True)) / (values.var(dim=2, keepdim=True).sqrt() + 1e-6)
    return rearrange(values, "b m p c -> b m (p c)")
