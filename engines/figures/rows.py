"""The rows of the paper's figures for one clip, from a model and a policy."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ...masking import TokenGrid
from ..pretrain.interface import grid_of, patch_size_of
from ..pretrain.reconstruction import Reconstruction
from ..training.batches import ClipBatch
from .inference import look, mean_trajectory, trajectories
from .pictures import error_map, reconstructed_frames, token_map
from .sheet import Row

TRUE_PATCHES = "patch mean and deviation of the reconstruction are the true ones"    # for captions, see `leak`
MASKED = 0.8    # light grey of the masked tokens: dark and medium tones are what videos are made of


def sheet_rows(mae: nn.Module, sampler: nn.Module | None, batch: ClipBatch, reconstruction: Reconstruction,
               visible: int, leak: bool, title: str = "mask") -> list[Row]:
    """The rows of the paper's sheet for one clip; the sampling probability is drawn as a multiple of uniform.

    Args:
        reconstruction: the loss that the errors are of. leak: see `reconstructed_frames`. visible: number of visible
            tokens, which only a policy asks for. title: of the mask's row.
    """
    patch, grid = patch_size_of(mae), grid_of(mae)
    seen = look(mae, sampler, batch, reconstruction, visible)
    shown = _images(reconstructed_frames(batch.pixels, seen.mask, seen.prediction, patch, reconstruction.normalize,
                                         leak))
    errors = token_map(error_map(seen.errors, seen.mask), grid, patch)[0].cpu().numpy()
    rows = [frames_row(batch.pixels), Row("reconstruction", shown),
            Row("error\n(grey: visible)", errors, "magma", (0.0, float(np.nanquantile(errors, 0.99))), bar=True)]
    if sampler is not None:
        share = token_map(seen.probabilities * grid.num_tokens, grid, patch)[0].cpu().numpy()
        rows.append(Row("probability\n(1 = uniform)", share, "viridis", (0.0, float(share.max())), bar=True))
    return [*rows, mask_row(title, batch.pixels, seen.mask, mae)]


def frames_row(pixels: Tensor) -> Row:
    """The first clip of (B, 3, T, H, W) in [0, 1]."""
    return Row("frames", _images(pixels))


def mask_row(title: str, pixels: Tensor, mask: Tensor, mae: nn.Module) -> Row:
    """The visible tokens of the first clip as they are, the masked ones grey; their number stands below the title."""
    patch = patch_size_of(mae)
    hidden = token_map(mask.float(), grid_of(mae), patch)
    hidden = hidden.repeat_interleave(patch.patch_size, 2).repeat_interleave(patch.patch_size, 3)
    images = _images(pixels * (1 - hidden[:, None]) + MASKED * hidden[:, None])
    return Row(f"{title}\n{int((~mask[0]).sum())} visible", images)


def trajectory_rows(mae: nn.Module, sampler: nn.Module, batch: ClipBatch, tokens: Sequence[int]) -> list[Row]:
    """Fig. 3: for each query token, where the last block of the sampler follows it, over grey frames.

    Weights sum to 1 in every frame and are drawn as a multiple of uniform, mean of the heads. The query is outlined
    in its own frames.

    Raises:
        ValueError: the sampler has no trajectory attention, or not that many tokens.
    """
    maps = trajectories(mae, sampler, batch, torch.tensor(list(tokens)))
    rows = []
    for token, weights in zip(tokens, maps, strict=True):
        row = _over_grey(f"query {place_of(token, grid_of(mae))}", weights, batch, mae)
        _outline(row.images, token, grid_of(mae), patch_size_of(mae))
        rows.append(row)
    return rows


def all_patches_row(mae: nn.Module, sampler: nn.Module, batch: ClipBatch) -> Row:
    """Fig. 3 over all space-time patches: the same as `trajectory_rows` in the mean of all queries. Raises likewise."""
    return _over_grey("all patches", mean_trajectory(mae, sampler, batch), batch, mae)


def _over_grey(title: str, weights: Tensor, batch: ClipBatch, mae: nn.Module) -> Row:
    """Weights (T', H' * W') that sum to 1 in every frame, as multiples of uniform, over the clip's grey frames."""
    from matplotlib import colormaps

    patch, grid = patch_size_of(mae), grid_of(mae)
    grey = _images(batch.pixels).mean(axis=-1, keepdims=True).repeat(3, axis=-1)    # colours are the attention's alone
    share = token_map(weights.reshape(1, -1) * grid.tokens_per_frame, grid, patch)[0].cpu().numpy()
    high = max(float(share.max()), 2.0)
    fine = share.repeat(patch.patch_size, axis=1).repeat(patch.patch_size, axis=2)
    strength = np.clip(fine / high, 0, 1)
    blend = 0.3 + 0.65 * np.sqrt(strength)[..., None]
    picture = (1 - blend) * grey + blend * colormaps["inferno"](strength)[..., :3]
    return Row(f"{title}\n(1 = uniform)", picture, "inferno", (0.0, high), bar=True)


def place_of(token: int, grid: TokenGrid) -> str:
    """A token as "t,h,w"."""
    slice_, place = divmod(token, grid.tokens_per_frame)
    return ",".join(map(str, (slice_, *divmod(place, grid.width))))


def token_at(place: str, grid: TokenGrid) -> int:
    """The token at "t,h,w", each counted from 0.

    Raises:
        ValueError: not three numbers inside the grid.
    """
    try:
        t, h, w = (int(number) for number in place.split(","))
    except ValueError:
        raise ValueError(f"--trajectories takes tokens as t,h,w, e.g. 0,3,4; got {place!r}") from None
    if not (0 <= t < grid.frames and 0 <= h < grid.height and 0 <= w < grid.width):
        raise ValueError(f"--trajectories {place}: the token grid is {'x'.join(map(str, grid))}, counted from 0")
    return (t * grid.height + h) * grid.width + w


def _outline(pictures: np.ndarray, token: int, grid: TokenGrid, patch) -> None:
    """A green frame of a pixel or two around a token, in the frames of its slice."""
    t, h, w = (int(number) for number in place_of(token, grid).split(","))
    side, edge = patch.patch_size, max(1, patch.patch_size // 8)
    for picture in pictures[t * patch.tubelet_size:(t + 1) * patch.tubelet_size]:
        cell = picture[h * side:(h + 1) * side, w * side:(w + 1) * side]
        inner = cell[edge:-edge, edge:-edge].copy()
        cell[:] = (0.2, 1.0, 0.3)
        cell[edge:-edge, edge:-edge] = inner


def _images(pixels: Tensor) -> np.ndarray:
    return pixels[0].permute(1, 2, 3, 0).clamp(0, 1).cpu().numpy()
