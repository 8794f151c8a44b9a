"""Pre-training with masks from the loader (random, tube, frame) or from a sampler trained by REINFORCE (AdaMAE)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..masking import some_of
from .core.meters import Meters
from .core.metrics import measuring
from .pretrain.diagnostics import Diagnostics
from .pretrain.interface import PatchSize, predict, tokenize
from .pretrain.outcome import Again, Outcome
from .pretrain.ppo import entropy, spread
from .pretrain.reconstruction import Reconstruction, explained_variance
from .pretrain.rewards import REWARDS, Reward
from .training.batches import ClipBatch, Normalizer, grouped
from .training.learner import Learner

EXPLAINED_EVERY = 10  # steps between two readings of the explained variance, which costs a pass over the targets


@dataclass(frozen=True)
class PretrainSetup:
    """What every step of a run shares.

    update_freq: micro-batches an optimiser step. sampling_coef: weight of AdaMAE's sampling loss (1e-4 as published).
    reward: what a sampler is paid for. diagnostics: told of masks, policies and values, where wanted.
    decoder_mask_ratio: share of I_m that the decoder leaves out. Loss and reward are then those of the others, which
        stand for all: they are drawn uniformly.
    """

    device: torch.device
    normalizer: Normalizer
    reconstruction: Reconstruction
    patch: PatchSize
    update_freq: int = 1
    sampling_coef: float = 1e-4
    reward: Reward = REWARDS["token"]
    diagnostics: Diagnostics | None = None
    decoder_mask_ratio: float = 0.0


def micro_batches(loader: Iterable, setup: PretrainSetup) -> Iterator[tuple[int, bool, ClipBatch]]:
    """(step, more, batch): the optimiser step from 1, whether more micro-batches of it follow, the batch on the device.

    What is left over at the end of the loader and does not fill a step is not trained on.
    """
    for step, more, batch in grouped(loader, setup.update_freq):
        yield step, more, setup.normalizer.prepare(batch, setup.device)


def decoded_tokens(decoder_mask_ratio: float, batch: ClipBatch) -> Callable[[Tensor], Tensor] | None:
    """What picks the tokens of I_m that the decoder predicts; None where it predicts all, as in the paper."""
    if not decoder_mask_ratio:
        return None
    return lambda masked: some_of(masked, max(1, round((1 - decoder_mask_ratio) * masked.shape[1])), batch.keys, -3)


def train_mae(mae: Learner, batch: ClipBatch, mask: Tensor, more: bool, setup: PretrainSetup, log: Meters,
              log_pi: Tensor | None = None) -> Outcome:
    """Optimise L_R(phi) on one micro-batch (lines 7 and 11 of Algorithm 1), and say what came of the mask.

    Args:
        log_pi: of the policy that drew `mask`, (B, N), without gradient.
    """
    with mae.accumulating(more):
        prediction, masked = predict(mae, mae.module, batch.videos, mask, getattr(mae.module, "num_masked", None),
                                     decoded_tokens(setup.decoder_mask_ratio, batch))
        target = setup.reconstruction.target(batch, mask, setup.patch, masked)
        errors = setup.reconstruction.errors(prediction, target)
        loss = setup.reconstruction.loss_of(errors, prediction, target)
        mae.backward(loss / setup.update_freq)
    if mae.steps % EXPLAINED_EVERY == 0:
        log(explained_variance=explained_variance(prediction.detach(), target))
    log(loss=loss.detach())
    if setup.diagnostics is not None:
        setup.diagnostics.mask(mask)
    outcome = Outcome(errors.detach(), masked, batch, log_pi, Again(mae, batch, setup.reconstruction, setup.patch))
    log(**{metric.name: metric.measure(outcome) for metric in measuring()})
    if not more:
        log(grad_norm=mae.step())
    return outcome


def train_one_epoch(epoch: int, loader: Sequence, mae: Learner, sampler: Learner | None, setup: PretrainSetup,
                    log: Meters) -> None:
    """One epoch; `epoch` counts from 0 and is only there for the common signature.

    Args:
        loader: yields (videos, mask), or `PretrainSample`s, see `Normalizer.prepare`.
        sampler: None to use the loader's masks, else one that is trained by REINFORCE, or not at all.
    """
    del epoch
    for _, more, batch in micro_batches(loader, setup):
        if sampler is None:
            train_mae(mae, batch, batch.mask, more, setup, log)
        else:
            train_with_sampler(mae, sampler, batch, more, setup, log)


def train_with_sampler(mae: Learner, sampler: Learner, batch: ClipBatch, more: bool, setup: PretrainSetup,
                       log: Meters) -> None:
    """One micro-batch of joint training as AdaMAE does it: its sampler draws, the errors are its reward."""
    log_pi, mask = draw_masks(tokens_of(mae, sampler, batch), sampler, batch, more, setup)
    mae.check(probability=log_pi)
    outcome = train_mae(mae, batch, mask, more, setup, log, log_pi.detach())
    if sampler.optimizer is not None:
        reinforce(sampler, log_pi, outcome, more, setup, log)


def tokens_of(mae: Learner, sampler: Learner, batch: ClipBatch) -> Tensor:
    """X (line 4), (B, N, D), as this sampler wants it."""
    with mae.precision.autocast():
        return tokenize(mae.module, batch.videos, positions=not sampler.module.own_positions)


def draw_masks(tokens: Tensor, sampler: Learner, batch: ClipBatch, more: bool,
               setup: PretrainSetup) -> tuple[Tensor, Tensor]:
    """(log pi (B, N) with its graph, mask bool (B, N)) of a sampler that REINFORCE trains, or nothing."""
    with sampler.accumulating(more):
        log_pi, _ = sampler(tokens, log=True)
        sampler.check(probability=log_pi)
        mask = sampler.module.draw(log_pi, batch.keys).mask
    if setup.diagnostics is not None:
        setup.diagnostics.policy(log_pi.detach(), batch.pixels)
    return log_pi, mask


def reinforce(sampler: Learner, log_pi: Tensor, outcome: Outcome, more: bool, setup: PretrainSetup,
              log: Meters) -> None:
    """Optimise the sampler on what came of its masks.

    Args:
        log_pi: (B, N), with its graph.
    """
    reward = setup.reward.of(outcome)
    with sampler.accumulating(more):
        sampler.check(reward=reward)
        loss = reinforce_loss(log_pi, outcome.masked, reward).mean()
        sampler.backward(setup.sampling_coef * loss / setup.update_freq)
    log(sampling_loss=loss.detach(), reward=reward.mean(),
        reward_std=reward.std(dim=-1).mean() if setup.reward.per_token else None,
        **spread(entropy(log_pi.detach()), log_pi.shape[1]))
    if not more:
        log(sampler_grad_norm=sampler.step())


def reinforce_loss(log_pi: Tensor, masked: Tensor, reward: Tensor) -> Tensor:
    """AdaMAE's sampling loss of each clip, -mean over I_m of log p(i) * reward(i), (B,); its coefficient is 1e-4.

    Args:
        log_pi: (B, N). masked: I_m, int64 (B, M). reward: (B, M), or (B, 1).
    """
    return -(log_pi.gather(1, masked) * reward).mean(dim=-1)
