"""Fixed positions of tokens, as tables that no checkpoint holds."""

from collections.abc import Sequence

import torch
from torch import Tensor


def sincos_table(num_positions: int, dim: int, base: float = 10000.0) -> Tensor:
    """VideoMAE's sinusoid over the flattened token index, (1, num_positions, dim): even channels sine, odd cosine."""
    return _sinusoid(torch.arange(num_positions), dim, base)[None].float()


def sincos3d_table(grid: Sequence[int], dim: int, base: float = 10000.0) -> Tensor:
    """A sinusoid of each of t, h and w in its own third of the channels, (1, N, dim), tokens in the order (t h w).

    The "3D periodic positional encoding" of the paper's text (Sec. 3.1); its ancestors' code uses the flattened index.
    """
    per_axis = dim // 6 * 2
    widths = (dim - 2 * per_axis, per_axis, per_axis)
    axes = torch.meshgrid(*(torch.arange(size) for size in grid), indexing="ij")
    return torch.cat([_sinusoid(axis.flatten(), width, base) for axis, width in zip(axes, widths, strict=True)],
                     dim=-1)[None].float()


def position_table(kind: str, grid: Sequence[int], dim: int, base: float) -> Tensor:
    """The table of that kind for a grid.

    Raises:
        ValueError: kind is neither "sincos1d" nor "sincos3d".
    """
    if kind == "sincos1d":
        return sincos_table(grid[0] * grid[1] * grid[2], dim, base)
    if kind == "sincos3d":
        return sincos3d_table(grid, dim, base)
    raise ValueError(f"pos_embed must be 'sincos1d' or 'sincos3d', got {kind!r}")


def _sinusoid(positions: Tensor, dim: int, base: float) -> Tensor:
    channels = torch.arange(dim)
    # float64: at base 10000 and position 1567 a float32 angle is off by more than the checks against VideoMAE allow.
    angles = positions.double()[:, None] / base ** (2 * (channels // 2).double() / dim)
    return torch.where(channels % 2 == 0, angles.sin(), angles.cos())
