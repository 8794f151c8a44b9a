"""How near tokens are to each other, and numbers of tokens averaged over those around them.

B: clips, N: tokens, M: masked tokens of a clip.
"""

import torch
from torch import Tensor

from ...masking.grid import TokenGrid

COMPARED_REACH = 1.   # of averaged error maps: what a policy that is paid with --reward_reach 1 is to be compared with
_LEAST_REACH = 1e-6   # of it and of anything below only the token itself is near


def nearness(grid: TokenGrid, reach: float, device: torch.device) -> Tensor:
    """k_ij = exp(-|i - j|^2 / (2 reach^2)), float32 (N, N); |i - j| in tokens along time, height and width."""
    places = torch.cartesian_prod(*(torch.arange(float(side), device=device) for side in grid))
    return torch.exp((torch.cdist(places, places) / max(reach, _LEAST_REACH)) ** 2 / -2)


def over_the_grid(values: Tensor, masked: Tensor, tokens: int) -> Tensor:
    """Numbers of the masked tokens I_m, both (B, M), at their places: (B, N), 0 elsewhere."""
    return values.new_zeros(len(values), tokens).scatter_(1, masked, values)


class Around:
    """Averages numbers of masked tokens over the masked tokens around each.

    Args:
        grid: of the tokens. reach: standard deviation of the neighbourhood, in tokens along time, height and width.
    """

    def __init__(self, grid: TokenGrid, reach: float):
        self.grid, self.reach = grid, reach
        self._near: Tensor | None = None   # made on the device of the first numbers

    def __call__(self, values: Tensor, masked: Tensor) -> Tensor:
        """sum_j k_ij r_j / sum_j k_ij over j in I_m: r and I_m (B, M) -> (B, M)."""
        if self._near is None or self._near.device != values.device:
            self._near = nearness(self.grid, self.reach, values.device)

        def summed(numbers: Tensor) -> Tensor:
            return over_the_grid(numbers, masked, self.grid.num_tokens) @ self._near

        values = values.float()
        return (summed(values) / summed(torch.ones_like(values))).gather(1, masked)

    def of_all(self, values: Tensor) -> Tensor:
        """The same with all tokens masked: a map (B, N) -> (B, N)."""
        return self(values, torch.arange(self.grid.num_tokens, device=values.device).expand(len(values), -1))
