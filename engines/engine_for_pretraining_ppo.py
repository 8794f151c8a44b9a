"""Algorithm 1: joint training of the masked autoencoder f_phi and of TATS g_theta by PPO.

`L6` marks line 6 of the algorithm. Freezing is by construction: phase 1 never steps theta, phase 2 never runs f_phi.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..masking import masked_indices, masked_probability, mixed_with_uniform, uniform_noise
from .config.pretraining import SamplerConfig
from .core.meters import Meters
from .engine_for_pretraining import PretrainSetup, micro_batches, train_mae
from .pretrain.interface import tokenize
from .pretrain.ppo import EntropyCoefficient, Episode, PPOSettings, sampling_loss
from .training.batches import ClipBatch
from .training.learner import Learner


@dataclass(frozen=True)
class PPOTraining:
    """The schedule of Algorithm 1 and the reading of its losses.

    mae_only_epochs: m_o, epochs of random masking before the policy acts. update_every: k, steps between phases 2.
    ppo_epochs: passes over the buffer in phase 2 (the paper: one).
    ratio: "recorded" reads pi_theta at the recorded I_m, the usual PPO ratio. "resampled" is the printed form: pi_theta
        of a fresh draw I_m' over pi_old of I_m, paired in ascending token order; mostly different tokens (a match in
        4-10 % of the places in a prototype), so credit goes to neighbours.
    reuse_forward: keep phase 1's forward of g_theta for phase 2 where the two are the same computation.
    random_share: of the clips get a random mask instead of the policy's (not in the paper, which has none).
    context_share: of each clip's visible tokens come from anywhere instead of the policy (not in the paper either).
    target_kl: no further pass once KL(pi_old || pi_theta) in the last one was above it (not in the paper).
    """

    setup: PretrainSetup
    ppo: PPOSettings
    entropy: EntropyCoefficient
    mae_only_epochs: int = 10
    update_every: int = 1
    ppo_epochs: int = 1
    ratio: str = "recorded"
    reuse_forward: bool = True
    random_share: float = 0.0
    context_share: float = 0.0
    target_kl: float | None = None

    @classmethod
    def from_flags(cls, config: SamplerConfig, setup: PretrainSetup, entropy: EntropyCoefficient,
                   random_share: float = 0.0) -> "PPOTraining":
        """From the flags, with their recipe resolved, but for `random_share`, which depends on the epoch."""
        ppo = PPOSettings(config.clip_epsilon, config.policy_coef, config.value_coef, config.entropy_coef,
                          config.reward, config.ppo_weighting, config.adv_norm)
        return cls(setup, ppo, entropy, config.mae_only_epochs, config.update_every, config.ppo_epochs,
                   config.ppo_ratio, config.reuse_forward, random_share, config.context_share, config.target_kl)

    @property
    def reuses(self) -> bool:
        """With k = 1 and one pass theta has not moved since phase 1, whose forward can serve: r(theta) is exactly 1."""
        once = self.update_every == 1 and self.ppo_epochs == 1 and self.setup.update_freq == 1
        return self.reuse_forward and once and self.ratio == "recorded"


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
        loader: yields (videos, random mask[, keys]), see `Normalizer.prepare`.
        mae: f_phi, any model with `encoder.patch_embed` and `forward(videos, bool_masked_pos)`.
        tats: g_theta.
    """
    setup = training.setup
    k_steps = training.update_every * setup.update_freq  # episodes
    for _, more, batch in micro_batches(loader, setup):                               # L3
        if epoch < training.mae_only_epochs:                                          # L5: m_o
            train_mae(mae, batch, batch.mask, more, setup, log)                       # L6-7: the loader's random mask
            continue
        buffer.update(phase_one(mae, tats, batch, more, training, log))               # L9-13
        if not more and len(buffer) >= k_steps:                                       # L14: k, over a resume too
            phase_two(tats, buffer, training, log)                                    # L15-22
    if len(buffer):
        phase_two(tats, buffer, training, log)  # no episode is carried into an epoch whose MAE has moved on


def phase_one(mae: Learner, tats: Learner, batch: ClipBatch, more: bool, training: PPOTraining,
              log: Meters) -> Episode:
    """L9-12: draw a mask from pi_old with theta frozen, train the MAE on it, record the episode."""
    with mae.precision.autocast():
        tokens = tokenize(mae.module, batch.videos, positions=not tats.module.own_positions)   # L4: X
    with torch.set_grad_enabled(training.reuses):
        log_pi, value = tats(tokens, log=True)                                        # L9
    mae.check(probability=log_pi)  # f_phi does not learn from a mask that means nothing
    drawn_from = mixed_with_uniform(log_pi.detach(), training.context_share)
    draw = tats.module.draw(drawn_from, batch.keys)                                   # L10
    mask, is_random = with_random_masks(draw.mask, batch, training.random_share)
    errors = train_mae(mae, batch, mask, more, training.setup, log)                   # L11
    hidden = masked_indices(mask, errors.shape[1])                                    # I_m
    if training.setup.diagnostics is not None:
        training.setup.diagnostics.policy(log_pi.detach(), batch.pixels)
        training.setup.diagnostics.value(value.detach(), errors.mean(dim=-1))
    chance = masked_probability(drawn_from.gather(1, hidden), draw.threshold)
    # Under a random mask every token is hidden with probability rho, those that the policy would show too.
    chance = torch.where(is_random, hidden.shape[1] / mask.shape[1], chance)
    return Episode(tokens, hidden, log_pi.detach().gather(1, hidden), errors, value.detach(), chance,   # L12
                   batch.keys, (log_pi, value) if training.reuses else None)


def with_random_masks(mask: Tensor, batch: ClipBatch, share: float) -> tuple[Tensor, Tensor]:
    """The policy's masks (B, N) with the loader's random ones in place of `share` of them, and which, bool (B, 1)."""
    is_random = uniform_noise((len(mask), 1), batch.keys, mask.device, stream=-1) < share
    return torch.where(is_random, batch.mask, mask), is_random


def phase_two(tats: Learner, buffer: EpisodeBuffer, training: PPOTraining, log: Meters) -> None:
    """L15-22: optimise theta on the recorded episodes, which hold all that is needed of f_phi, and empty the buffer."""
    micro = training.setup.update_freq
    for turn in range(training.ppo_epochs):
        divergences = []
        for place, episode in enumerate(buffer):                                      # L16
            more = (place + 1) % micro != 0
            with tats.accumulating(more):
                log_pi, value = episode.forward or tats(episode.tokens, log=True)     # L17
                hidden = episode.hidden
                if training.ratio == "resampled":                                     # L18: I_m' as printed
                    drawn_from = mixed_with_uniform(log_pi, training.context_share)
                    fresh = tats.module.draw(drawn_from, episode.keys, stream=1 + turn)
                    hidden = masked_indices(fresh.mask, hidden.shape[1])
                settings = training.ppo._replace(entropy_coef=training.entropy.value.to(log_pi.device))
                loss, terms = sampling_loss(log_pi, value, hidden, episode, settings)
                tats.check(probability=log_pi, reward=episode.error)
                tats.backward(loss / micro)                                           # L19
            log(sampling_loss=loss.detach(), entropy_coef=training.entropy.value, **terms)
            divergences.append(terms["approx_kl"])
            if not more:
                log(sampler_grad_norm=tats.step())
                training.entropy.update(terms["entropy_share"], skip=tats.health.bad)
        if training.target_kl is not None and tats.largest(torch.stack(divergences).mean()) > training.target_kl:
            break
    log(ppo_passes=turn + 1)
    buffer.reset()                                                                    # L22
