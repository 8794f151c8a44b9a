"""Cells of the token grid: what a coarse policy sees the means of, or what is shown or hidden as one."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from einops import rearrange, repeat
from torch import Tensor

from .grid import TokenGrid


class Cells(NamedTuple):
    """The token grid (T', H', W') divided into cells of `size` tokens along time, height and width."""

    grid: TokenGrid
    size: tuple[int, int, int]

    @property
    def coarse(self) -> TokenGrid:
        """The grid of the cells."""
        return TokenGrid(*(side // part for side, part in zip(self.grid, self.size, strict=True)))

    @property
    def tokens(self) -> int:
        """Of one cell."""
        return math.prod(self.size)

    @property
    def is_fine(self) -> bool:
        """Whether a cell is one token."""
        return self.tokens == 1

    def mean(self, tokens: Tensor) -> Tensor:
        """(B, N, D) -> (B, N / cell, D), in the order of the coarse grid."""
        return rearrange(tokens, "b (t i h j w k) d -> b (t h w) (i j k) d", **self._sides()).mean(dim=2)

    def spread(self, values: Tensor) -> Tensor:
        """(B, N / cell) -> (B, N): each token has its cell's value."""
        return repeat(values, "b (t h w) -> b (t i h j w k)", **self._sides())

    def of(self, index: Tensor) -> Tensor:
        """The cells that hold the tokens `index`, int64 of any shape."""
        _, height, width = self.grid
        time, row, column = index // (height * width), index // width % height, index % width
        i, j, k = self.size
        return (time // i * (height // j) + row // j) * (width // k) + column // k

    def first(self, values: Tensor) -> Tensor:
        """(B, N) -> (B, N / cell): the value of the first token of each cell."""
        return rearrange(values, "b (t i h j w k) -> b (t h w) (i j k)", **self._sides())[..., 0]

    def _sides(self) -> dict[str, int]:
        return dict(zip("thwijk", (*self.coarse, *self.size), strict=True))


def cells_of(grid: TokenGrid, size: Sequence[int], flag: str = "--tats_merge") -> Cells:
    """Raises ValueError: the grid cannot be divided as `flag` wants."""
    if len(size) != 3 or any(part < 1 or side % part for side, part in zip(grid, size, strict=False)):
        raise ValueError(f"cells of {'x'.join(map(str, size))} tokens do not divide the token grid "
                         f"{'x'.join(map(str, grid))}: {flag} wants three divisors of its sides")
    return Cells(TokenGrid(*grid), tuple(size))
