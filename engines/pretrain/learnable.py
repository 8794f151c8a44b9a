"""Rewards from the error of a masked token that stays when far more is visible.

A token that nothing foretells, noise, a flat patch whose target is normalised, what moves, costs as much with its
surroundings in sight as without. A token that is hard only because little is shown costs less then: `learnable` pays
for the difference, `lasting` for what stays.
"""

import torch
from torch import Tensor

from ...masking import uniform_noise
from .outcome import Outcome

_STREAM = -3   # of the halves' draw: -1 and -2 are taken


def learnable(outcome: Outcome) -> Tensor:
    """E_i(I_m) - E_i(H), (B, M), H being the half of I_m that holds i: the other half is shown, too."""
    rest, _ = errors_with_half_shown(outcome)
    return outcome.errors - rest


def lasting(outcome: Outcome) -> Tensor:
    """E_i(H), (B, M), the part of E_i(I_m) that `learnable` leaves out: what the surroundings do not tell is shown."""
    return errors_with_half_shown(outcome)[0]


def errors_with_half_shown(outcome: Outcome) -> tuple[Tensor, Tensor]:
    """E_i(H), float32 (B, M), of a random half H of I_m that holds i; and whether that is the first half, bool (B, M).

    Every masked token is asked about once, in two forwards without a graph, each with about half of the masked tokens
    visible besides. Their weights are those after the step that gave E_i(I_m).
    """
    masked, rest = outcome.masked, torch.empty_like(outcome.errors)
    is_first = torch.zeros_like(masked, dtype=torch.bool)
    order = uniform_noise(tuple(masked.shape), outcome.batch.keys, masked.device, _STREAM).argsort(dim=1)
    halves = [half.sort(dim=1).values for half in order.tensor_split(2, dim=1)]   # places in I_m, ascending
    is_first.scatter_(1, halves[0], True)
    for places in halves:
        if places.shape[1]:
            rest.scatter_(1, places, outcome.again.errors(masked.gather(1, places)))
    return rest, is_first
