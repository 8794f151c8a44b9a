"""From tokens back to pictures: reconstructed frames, and token maps at the size of the frames.

B: clips, N: tokens in the order (t h w), M: masked tokens.
"""

import torch
from einops import rearrange, repeat
from torch import Tensor

from ...masking import TokenGrid, masked_indices
from ..pretrain.interface import PatchSize


def _patches(pixels: Tensor, patch: PatchSize) -> Tensor:
    """(B, 3, T, H, W) -> (B, N, pixels of a token, 3)."""
    return rearrange(pixels, "b c (t p0) (h p1) (w p2) -> b (t h w) (p0 p1 p2) c", p0=patch.tubelet_size,
                     p1=patch.patch_size, p2=patch.patch_size)


def _frames(patches: Tensor, grid: TokenGrid, patch: PatchSize) -> Tensor:
    """The inverse of `_patches`."""
    return rearrange(patches, "b (t h w) (p0 p1 p2) c -> b c (t p0) (h p1) (w p2)", t=grid.frames, h=grid.height,
                     w=grid.width, p0=patch.tubelet_size, p1=patch.patch_size, p2=patch.patch_size)


def reconstructed_frames(pixels: Tensor, mask: Tensor, prediction: Tensor, patch: PatchSize, normalized: bool = True,
                         leak: bool = True) -> Tensor:
    """Frames in which the masked tokens are the model's prediction, (B, 3, T, H, W) in [0, 1].

    Args:
        pixels: the true frames in [0, 1]. prediction: (B, M, 3 * pixels of a token).
        normalized: the model predicts patches normalised inside themselves, as VideoMAE does. Frames then need each
            patch's mean and deviation: those of the true patch with `leak`, which shows more than the model knows, or
            the mean and deviation of the clip's visible pixels without.
    """
    grid = TokenGrid(pixels.shape[2] // patch.tubelet_size, pixels.shape[3] // patch.patch_size,
                     pixels.shape[4] // patch.patch_size)
    truth = _patches(pixels, patch)
    hidden = masked_indices(mask, prediction.shape[1])
    places = repeat(hidden, "b m -> b m p c", p=truth.shape[2], c=3)
    predicted = rearrange(prediction.float(), "b m (p c) -> b m p c", c=3)
    if normalized and leak:
        patch_of = truth.gather(1, places)
        predicted = predicted * (patch_of.var(dim=2, keepdim=True).sqrt() + 1e-6) + patch_of.mean(dim=2, keepdim=True)
    elif normalized:
        seen = truth.masked_fill(mask[:, :, None, None], torch.nan).flatten(1, 2)
        mean = seen.nanmean(dim=1)[:, None, None]
        deviation = ((seen - mean[:, 0]) ** 2).nanmean(dim=1).sqrt()[:, None, None]
        predicted = predicted * deviation + mean
    return _frames(truth.scatter(1, places, predicted), grid, patch).clamp(0, 1)


def error_map(errors: Tensor, mask: Tensor) -> Tensor:
    """Errors of the masked tokens (B, M) on the whole grid, (B, N), NaN where a token was visible."""
    everywhere = torch.full(mask.shape, torch.nan, device=errors.device)
    return everywhere.scatter(1, masked_indices(mask, errors.shape[1]), errors)


def token_map(values: Tensor, grid: TokenGrid, patch: PatchSize) -> Tensor:
    """Values of tokens (B, N), one pixel a patch, repeated over the frames of a tubelet: (B, T, H', W')."""
    maps = rearrange(values, "b (t h w) -> b t h w", t=grid.frames, h=grid.height, w=grid.width)
    return maps.repeat_interleave(patch.tubelet_size, dim=1)
