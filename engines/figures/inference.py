"""What a trained policy says about clips: probabilities and masks, for figures and measurements."""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...datasets.lists.seeding import seeded
from ...masking import RandomMasking, TokenSampler
from ..pretrain.interface import patch_size_of, predict, tokenize
from ..pretrain.reconstruction import Reconstruction
from ..training.batches import ClipBatch


class Seen(NamedTuple):
    """A model's view of some clips: probabilities (B, N), mask bool (B, N), prediction (B, M, C), errors (B, M)."""

    probabilities: Tensor
    mask: Tensor
    prediction: Tensor
    errors: Tensor


@torch.no_grad()
def probabilities_of(mae: nn.Module, sampler: TokenSampler | None, batch: ClipBatch) -> Tensor:
    """pi of the sampler, float32 (B, N); uniform without one."""
    if sampler is None:
        return torch.full(batch.mask.shape, 1 / batch.mask.shape[1], device=batch.mask.device)
    return log_policy(mae, sampler, batch).exp()


@torch.no_grad()
def log_policy(mae: nn.Module, sampler: TokenSampler, batch: ClipBatch) -> Tensor:
    """log pi of the sampler, float32 (B, N)."""
    return sampler(tokenize(mae, batch.videos, positions=not sampler.own_positions), log=True)[0]


@torch.no_grad()
def look(mae: nn.Module, sampler: TokenSampler | None, batch: ClipBatch, reconstruction: Reconstruction,
         visible: int | None = None) -> Seen:
    """Draw a mask, reconstruct, measure; without a sampler the loader's mask is used.

    Args:
        visible: another number of visible tokens than the sampler was trained with.
    """
    if sampler is None:
        probabilities, mask = probabilities_of(mae, None, batch), batch.mask
    else:
        log_pi = log_policy(mae, sampler, batch)
        probabilities, mask = log_pi.exp(), sampler.draw(log_pi, batch.keys, visible=visible).mask
    prediction, masked = predict(mae, mae, batch.videos, mask)
    target = reconstruction.target(batch, mask, patch_size_of(mae), masked)
    errors = reconstruction.errors(prediction, target)
    return Seen(probabilities, mask, prediction, errors)


@torch.no_grad()
def error_map(mae: nn.Module, batch: ClipBatch, masking: RandomMasking, reconstruction: Reconstruction,
              draws: int) -> Tensor:
    """The mean error of each token in the draws of random masks that hide it, (B, N): what the policy is trained on.
    There are more draws where a token was hidden in none of them."""
    errors, times = torch.zeros_like(batch.mask, dtype=torch.float32), torch.zeros_like(batch.mask, dtype=torch.float32)
    for draw in itertools.count():
        if draw >= draws and times.all():
            return errors / times
        with seeded(draw):   # the same masks for all models
            mask = torch.stack([masking() for _ in batch.mask]).to(batch.mask.device)
        errors[mask] += look(mae, None, batch._replace(mask=mask), reconstruction).errors.flatten()
        times += mask


@torch.no_grad()
def trajectories(mae: nn.Module, sampler: TokenSampler, batch: ClipBatch, query_index: Tensor) -> Tensor:
    """Where the sampler's attention follows chosen tokens of the first clip, (Q, T', H' * W'). Raises ValueError, as
    `TokenSampler.trajectories`."""
    return sampler.trajectories(tokenize(mae, batch.videos[:1], positions=not sampler.own_positions), query_index)


def mean_trajectory(mae: nn.Module, sampler: TokenSampler, batch: ClipBatch, size: int = 196) -> Tensor:
    """Where the attention of all tokens of the first clip goes on average, (T', H' * W'), `size` queries at a time;
    sums to 1 in every frame. Raises ValueError, as `TokenSampler.trajectories`."""
    queries = torch.arange(batch.mask.shape[1]).split(size)
    return sum(trajectories(mae, sampler, batch, part).sum(dim=0) for part in queries) / batch.mask.shape[1]
