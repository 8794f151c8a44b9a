"""A reward for what a token tells about others: how far their errors fall once it is shown.

`token` pays for what is hard to foresee, also where nobody could; this pays a token for what it does for the tokens
around it. A token that foretells nothing pays nothing, however hard it is itself.
"""

import torch
from torch import Tensor

from .learnable import errors_with_half_shown
from .nearness import nearness, over_the_grid
from .outcome import Outcome

REACH = 1.   # standard deviation of the neighbourhood, in tokens, along time, height and width


def telling(outcome: Outcome) -> Tensor:
    """(B, M): a token's share of what showing its half H of I_m takes off the errors of the other half.

    r_i = sum_j k_ij / (sum_i' k_i'j) (E_j(I_m) - E_j(I_m without H)), i and i' in H, j outside of it, and
    k_ij = exp(-|i - j|^2 / 2) over the grid of tokens: the fall of a token's error is divided among the shown tokens,
    most of it to the near ones. The sum over H is the whole fall. Two forwards without a graph, as `learnable`.
    """
    rest, is_first = errors_with_half_shown(outcome)
    masked, tokens = outcome.masked, outcome.batch.mask.shape[1]
    near = nearness(outcome.again.grid(), REACH, masked.device)
    credit = torch.zeros_like(rest)
    for shown in (is_first, ~is_first):
        divided_among = over_the_grid(shown.float(), masked, tokens) @ near
        fall = over_the_grid((outcome.errors - rest) * ~shown, masked, tokens)
        share = fall / divided_among.clamp_min(torch.finfo(torch.float32).tiny)
        credit += (share @ near).gather(1, masked) * shown
    return credit
