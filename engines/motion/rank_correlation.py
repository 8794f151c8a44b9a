"""Spearman's rank correlation of token maps, and the part of it that a third map does not explain. B: clips, N: tokens.
"""

import torch
from scipy.stats import rankdata
from torch import Tensor

from ..pretrain.diagnostics import correlation


def ranks(values: Tensor) -> Tensor:
    """The rank of each token in its clip, from 1, float64 (B, N); equal values share the mean of their ranks."""
    return torch.from_numpy(rankdata(values.double().cpu().numpy(), axis=1))


def rank_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's rho of each row of two (B, N), float64 (B,); NaN where a row is constant: it ranks nothing."""
    return correlation(ranks(first), ranks(second))


def partial_rank_correlation(first: Tensor, second: Tensor, given: Tensor) -> Tensor:
    """What is left of rho(first, second) once both are freed of their linear relation to `given`, in ranks, (B,).

    (r12 - r13 r23) / sqrt((1 - r13^2)(1 - r23^2)); NaN where either is a monotone function of `given`, or a row is
    constant: then nothing is left to correlate.
    """
    r12, r13, r23 = (rank_correlation(*pair) for pair in ((first, second), (first, given), (second, given)))
    rest = (1 - r13.square()) * (1 - r23.square())
    return torch.where(rest > 1e-9, (r12 - r13 * r23) / rest.clamp(min=1e-9).sqrt(), torch.nan)
