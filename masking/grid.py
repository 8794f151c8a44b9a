"""The token grid, and the only place where a mask ratio becomes a number of tokens."""

from fractions import Fraction
from numbers import Real
from typing import NamedTuple


class TokenGrid(NamedTuple):
    """Tokens of a clip: T' = frames / tubelet slices of H' x W' patches, flattened in the order (t h w)."""

    frames: int
    height: int
    width: int

    @property
    def num_tokens(self) -> int:
        """N = T' * H' * W'."""
        return self.frames * self.height * self.width

    @property
    def tokens_per_frame(self) -> int:
        """H' * W', the tokens of one time slice."""
        return self.height * self.width


def num_visible(grid: TokenGrid, mask_ratio: float) -> int:
    """N_v = floor(N * (1 - rho)), at least one token (Sec. 3.2; 78 of 1568 at rho = .95).

    Raises:
        ValueError: rho is outside (0, 1).
    """
    return max(1, floor_share(TokenGrid(*grid).num_tokens, 1 - exact_ratio(mask_ratio)))


def exact_ratio(mask_ratio: float) -> Fraction:
    """rho as the decimal that was typed: int(160 * (1 - .9)) is 15 in floats, 16 tokens were meant."""
    if not isinstance(mask_ratio, Real) or not 0.0 < mask_ratio < 1.0:
        raise ValueError(f"mask_ratio must lie between 0 and 1 (exclusive), got {mask_ratio!r}")
    return Fraction(str(mask_ratio))


def floor_share(count: int, share: Fraction) -> int:
    """floor(count * share), exactly."""
    return int(count * share)


def checked_visible(grid: TokenGrid, count: int, unit: int = 1) -> int:
    """`count`, if a strategy that shows tokens in groups of `unit` can show that many.

    Raises:
        ValueError: it cannot; the nearest count that it can show is named.
    """
    if not 0 < count < grid.num_tokens:
        raise ValueError(f"num_visible must lie between 1 and {grid.num_tokens - 1} for the token grid "
                         f"{'x'.join(map(str, grid))}, got {count}")
    if unit >= grid.num_tokens:
        raise ValueError(f"groups of {unit} tokens are the whole token grid {'x'.join(map(str, grid))}: nothing would "
                         "be hidden; use smaller ones")
    if count % unit:
        nearest = min(max(1, round(count / unit)), grid.num_tokens // unit - 1) * unit
        raise ValueError(f"this masking shows tokens in groups of {unit}: {count} visible ones, as num_visible "
                         f"or the mask ratio has it, cannot be met; give --num_visible {nearest}, the nearest")
    return count
