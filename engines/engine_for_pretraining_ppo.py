"""Algorithm 1: joint training of the masked autoencoder f_phi and of TATS g_theta by PPO.

`L6` marks line 6 of the algorithm. Freezing is by construction: phase 1 never steps theta, phase 2 never runs f_phi.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from ..masking import masked_indices, masked_probability, mixed_with_uniform, uniform_noise
from .config.pretraining import SamplerConfig
from .core.meters import Meters
from .engine_for_pretraining import PretrainSetup, micro_batches, tokens_of, train_mae
from .pretrain.outcome import Outcome
from .pretrain.ppo import EntropyCoefficient, Episode, sampling_loss, step_moments
from .training.batches import ClipBatch
from .training.learner import Learner


@dataclass
class PPOTraining:
    """What Algorithm 1 needs beside the two networks.

    config: the flags of the policy, with their recipe resolved: k is `update_every`, and so on.
    entropy: c3, which may be adapted.
    epochs: of the whole run, which `random_share_final` is reached in; None where nobody knows.

    Attributes:
        mae_only_epochs: m_o, epochs of random masking before the policy acts. It may grow during a run, see
            `--mae_only_explained`.
    """

    setup: PretrainSetup
    config: SamplerConfig
    entropy: EntropyCoefficient
    epochs: int | None = None
    mae_only_epochs: int = field(init=False)

    def __post_init__(self):
        self.mae_only_epochs = self.config.mae_only_epochs

    @property
    def reuses(self) -> bool:
        """With k = 1 and one pass theta has not moved since phase 1, whose forward can serve: r(theta) is exactly 1."""
        once = self.config.update_every == 1 and self.config.ppo_epochs == 1 and self.setup.update_freq == 1
        return self.config.reuse_forward and once and self.config.ppo_ratio == "recorded"

    def random_share(self, epoch: int) -> float:
        """Share of the clips that get a random mask instead of the policy's in `epoch`, from 0 (not in the paper)."""
        first, last = self.config.random_share, self.config.random_share_final
        if last is None or self.epochs is None:
            return first
        done = max(0, epoch - self.mae_only_epochs) / max(1, self.epochs - 1 - self.mae_only_epochs)
        return first + (last - first) * done


class EpisodeBuffer:
    """The memory buffer M_b: the episodes of at most k steps (k * update_freq micro-batches)."""

    def __init__(self):
        self._episodes: list[Episode] = []

    def update(self, episode: Episode) -> None:
        """L13."""
        self._episodes.append(episode)

    def reset(self) -> None:
        """L22."""
        self._episodes.clear()

    def trim(self, size: int) -> None:
        """Forget the last episodes that do not fill a step of `size` micro-batches."""
        del self._episodes[len(self) // size * size:]

    def state(self) -> list[list[Tensor | None]]:
        """The episodes as plain lists of tensors on the CPU, for a checkpoint. Without phase 1's graph: where that is
        kept, phase 2 follows at once and the buffer is empty between two steps."""
        return [[None if value is None else value.cpu() for value in episode[:-1]] for episode in self._episodes]

    def load(self, state: list[list[Tensor | None]], device: torch.device) -> None:
        """Put back what `state` returned."""
        self._episodes = [Episode(*(None if value is None else value.to(device) for value in values))
                          for values in state]

    def __len__(self) -> int:
        return len(self._episodes)

    def __iter__(self) -> Iterator[Episode]:
        return iter(self._episodes)


def train_one_epoch(epoch: int, loader: Sequence, mae: Learner, tats: Learner, buffer: EpisodeBuffer,
                    training: PPOTraining, log: Meters) -> None:
    """Lines 3-25 of Algorithm 1 for one epoch; `epoch` counts from 0, so e <= m_o reads epoch < m_o here.

    Args:
        loader: yields (videos, random mask), or `PretrainSample`s, see `Normalizer.prepare`.
        mae: f_phi, any model with `encoder.patch_embed` and `forward(videos, bool_masked_pos)`.
        tats: g_theta, a `TokenSampler`.
    """
    setup = training.setup
    k_steps = training.config.update_every * setup.update_freq  # episodes
    random_share = training.random_share(epoch)
    for _, more, batch in micro_batches(loader, setup):                               # L3
        if epoch < training.mae_only_epochs:                                          # L5: m_o
            train_mae(mae, batch, batch.mask, more, setup, log)                       # L6-7: the loader's random mask
            continue
        buffer.update(phase_one(mae, tats, batch, more, training, log, random_share))  # L9-13
        if not more and len(buffer) >= k_steps:                                       # L14: k, over a resume too
            phase_two(tats, buffer, training, log)                                    # L15-22
    if len(buffer) and training.config.flush_buffer:
        phase_two(tats, buffer, training, log)  # no episode is carried into an epoch whose MAE has moved on


def phase_one(mae: Learner, tats: Learner, batch: ClipBatch, more: bool, training: PPOTraining, log: Meters,
              random_share: float = 0.0) -> Episode:
    """L9-12: draw masks from pi_old with theta frozen, train the MAE on them, record the episode."""
    choice = choose_masks(tokens_of(mae, tats, batch), tats, batch, training, random_share)  # L4, L9-10
    mae.check(probability=choice.log_pi)  # f_phi does not learn from a mask that means nothing
    outcome = train_mae(mae, batch, choice.mask, more, training.setup, log, choice.log_pi.detach())   # L11
    return recorded(choice, outcome, training)                                        # L12


class Choice(NamedTuple):
    """What phase 1 chose for a batch.

    tokens: X (B, N, D). log_pi, value: of pi_old, (B, N) and (B,) or None, with their graph where phase 2 reuses it.
    mask: bool (B, N), True = masked. is_random: bool (B, 1), whose mask is the loader's.
    drawn_from: log-probabilities (B, N) of the draw. threshold: (B,), its kappa.
    """

    tokens: Tensor
    log_pi: Tensor
    value: Tensor | None
    mask: Tensor
    is_random: Tensor
    drawn_from: Tensor
    threshold: Tensor


def choose_masks(tokens: Tensor, tats: Learner, batch: ClipBatch, training: PPOTraining, random_share: float) -> Choice:
    """L9-10: draw a mask from pi_old(tokens), X (B, N, D), with theta frozen."""
    with torch.set_grad_enabled(training.reuses):
        log_pi, value = tats(tokens, log=True)                                        # L9
    # Not in the paper: a share of each clip's visible tokens may come from anywhere, and a share of the clips may get
    # the loader's random mask.
    drawn_from = mixed_with_uniform(log_pi.detach(), training.config.context_share)
    draw = tats.module.draw(drawn_from, batch.keys)                                   # L10
    mask, is_random = with_random_masks(draw.mask, batch, random_share)
    if training.setup.diagnostics is not None:
        training.setup.diagnostics.policy(log_pi.detach(), batch.pixels)
    return Choice(tokens, log_pi, value, mask, is_random, drawn_from, draw.threshold)


def with_random_masks(mask: Tensor, batch: ClipBatch, share: float) -> tuple[Tensor, Tensor]:
    """The policy's masks (B, N) with the loader's random ones in place of `share` of them, and which, bool (B, 1)."""
    is_random = uniform_noise((len(mask), 1), batch.keys, mask.device, stream=-1) < share
    return torch.where(is_random, batch.mask, mask), is_random


def recorded(choice: Choice, outcome: Outcome, training: PPOTraining) -> Episode:
    """L12: the episode of a choice and of what came of it."""
    reward, masked = training.setup.reward.pay(outcome), outcome.masked               # L_R, I_m
    value = None if choice.value is None else choice.value.detach()
    if training.setup.diagnostics is not None and value is not None:
        training.setup.diagnostics.value(value, reward.mean(dim=-1))
    probability = masked_probability(choice.drawn_from.gather(1, masked), choice.threshold)
    # Under a random mask every token is masked with probability rho, those that the policy would show too.
    probability = torch.where(choice.is_random, masked.shape[1] / choice.mask.shape[1], probability)
    return Episode(choice.tokens, masked, outcome.log_pi.gather(1, masked), reward, value, probability,
                   outcome.batch.keys, (choice.log_pi, choice.value) if training.reuses else None)


def phase_two(tats: Learner, buffer: EpisodeBuffer, training: PPOTraining, log: Meters) -> None:
    """L15-22: optimise theta on the recorded episodes, which hold all that is needed of f_phi, and empty the buffer."""
    config, micro, episodes = training.config, training.setup.update_freq, list(buffer)
    for turn in range(config.ppo_epochs):                                             # the paper: one pass
        divergences = []
        for place, episode in enumerate(episodes):                                    # L16
            more = (place + 1) % micro != 0
            if place % micro == 0:
                moments = step_moments(episodes[place:place + micro], config)
            with tats.accumulating(more):
                log_pi, value = episode.forward or tats(episode.tokens, log=True)     # L17
                masked = episode.masked
                if config.ppo_ratio == "resampled":                                   # L18: I_m' as printed
                    drawn_from = mixed_with_uniform(log_pi, config.context_share)
                    fresh = tats.module.draw(drawn_from, episode.keys, stream=1 + turn)
                    masked = masked_indices(fresh.mask, masked.shape[1])
                entropy_coef = training.entropy.value.to(log_pi.device)               # c3
                loss, terms = sampling_loss(log_pi, value, masked, episode, config, entropy_coef, moments)
                tats.check(probability=log_pi, reward=episode.reward)
                tats.backward(loss / micro)                                           # L19
            log(sampling_loss=loss.detach(), entropy_coef=entropy_coef, **terms)
            divergences.append(terms["approx_kl"])
            if not more:
                log(sampler_grad_norm=tats.step())
                training.entropy.update(terms["entropy_share"], skip=tats.health.bad)
        target = config.target_kl
        if target is not None and tats.largest(torch.stack(divergences).mean()) > target:
            break
    log(ppo_passes=turn + 1)
    buffer.reset()                                                                    # L22
