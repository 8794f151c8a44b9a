"""Drawing tokens without replacement from a categorical distribution (Sec. 3.2: I_v ~ Categorical(N, pi)).

B: clips, N: tokens, N_v: visible tokens.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Draw(NamedTuple):
    """One draw of N_v visible tokens a clip.

    mask: bool (B, N), True = masked (I_m).
    threshold: float32 (B,), kappa, the N_v-th largest perturbed log-probability: a token was masked because its own
        value did not exceed it.
    """

    mask: Tensor
    threshold: Tensor


def uniform_noise(shape: tuple[int, int], keys: Tensor | None, device: torch.device, stream: int = 0) -> Tensor:
    """Uniform numbers in (0, 1), float32 (B, N).

    With `keys`, int64 (B,), row b depends on keys[b] and `stream` alone (a counter hash, SplitMix64's finaliser): the
    same clip gets the same draw on any rank, in any batch and on any device. Without, torch's generator is used.
    """
    if keys is None:
        bits = torch.randint(0, 1 << 24, shape, device=device)
    else:
        token = torch.arange(1, shape[1] + 1, device=device) * -7046029254386353131  # 0x9E3779B97F4A7C15
        bits = _mix(_mix(keys.to(device)[:, None] + stream) + token) >> 40 & 0xFFFFFF
    # The largest of the 2^24 values would be rounded to 1, whose Gumbel value is infinite.
    return ((bits.float() + 0.5) / (1 << 24)).clamp_(max=1 - 2**-24)


def _mix(x: Tensor) -> Tensor:
    """SplitMix64's finaliser on int64 (arithmetic wraps; shifts are made logical by the masks)."""
    x = (x ^ (x >> 30 & (1 << 34) - 1)) * -4658895280553007687  # 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27 & (1 << 37) - 1)) * -7723592293110705685  # 0x94D049BB133111EB
    return x ^ (x >> 31 & (1 << 33) - 1)


def gumbel_top_k(log_probabilities: Tensor, num_visible: int, keys: Tensor | None = None, stream: int = 0) -> Draw:
    """Draw `num_visible` distinct tokens a clip with the law of sequential sampling without replacement.

    Gumbel top-k on float32 logits: `torch.multinomial` silently returns tokens of probability 0 when too few others
    are left, this never does while log-probabilities are finite.

    Args:
        log_probabilities: (B, N), any additive constant per clip is allowed.
        keys: int64 (B,) or None, see `uniform_noise`.
        stream: distinguishes several draws for the same keys.
    """
    logits = log_probabilities.detach().float()
    noise = uniform_noise(tuple(logits.shape), keys, logits.device, stream)
    perturbed = logits - torch.log(-torch.log(noise))
    top = perturbed.topk(num_visible, dim=-1)
    mask = torch.ones_like(logits, dtype=torch.bool).scatter_(1, top.indices, False)
    return Draw(mask, top.values[:, -1])


def mixed_with_uniform(log_probabilities: Tensor, share: float) -> Tensor:
    """log((1 - share) pi + share / N), (B, N): each token of the draw is one of any with probability `share`.

    Args:
        log_probabilities: log pi, normalised. share: in [0, 1).
    """
    if not share:
        return log_probabilities
    uniform = torch.full_like(log_probabilities, math.log(share / log_probabilities.shape[-1]))
    return torch.logaddexp(log_probabilities + math.log1p(-share), uniform)


def masked_probability(log_probabilities: Tensor, threshold: Tensor, floor: float = 0.1) -> Tensor:
    """P(masked token i is masked | the other tokens' noise) = exp(-exp(log pi_i - kappa)), not below `floor`.

    For a masked token the N_v-th largest value overall is the N_v-th largest of the others, so sum over I_m of f_i / P
    estimates sum_i f_i without bias. (The (N_v+1)-th value, which serves for visible tokens, overestimates it.)

    Args:
        log_probabilities: (B, M) of the tokens in question; threshold: (B,), from the same draw.
    """
    return torch.exp(-torch.exp(log_probabilities.float() - threshold[:, None])).clamp(min=floor)


def some_of(masked: Tensor, count: int, keys: Tensor | None = None, stream: int = 0) -> Tensor:
    """`count` of the tokens I_m of each clip, int64 (B, count), ascending; any `count` of them are as likely.

    Args:
        masked: int64 (B, M), ascending. keys, stream: name the draw, see `uniform_noise`.
    """
    noise = uniform_noise(tuple(masked.shape), keys, masked.device, stream)
    return masked.gather(1, noise.topk(count, dim=-1).indices.sort(dim=-1).values)


def masked_indices(mask: Tensor, num_masked: int) -> Tensor:
    """Indices of the masked tokens, int64 (B, num_masked), ascending; without the device sync of `nonzero`."""
    return mask.to(torch.uint8).sort(dim=-1, descending=True, stable=True).indices[:, :num_masked]

