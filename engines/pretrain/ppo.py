"""Equations 7 and 8 of the paper as pure functions, with the readings that its text leaves open.

B: clips, N: tokens, M: masked tokens of a clip. Everything here is float32 and runs outside autocast.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from ...masking import TokenSampler
from ..config.pretraining import SamplerConfig


class Episode(NamedTuple):
    """What phase 1 leaves behind for phase 2 (line 12); but for `forward`, nothing of it is attached to a graph.

    tokens: X (B, N, D) in the autocast dtype. masked: I_m, int64 (B, M), ascending.
    old_log_prob: log pi_old(I_m|X), (B, M). reward: of each masked token, (B, M), or of the clip, (B, 1).
    old_value: psi_old(X_mu), (B,), or None where the policy has no value network.
    masked_probability: P(token is masked), (B, M), of the draw. keys: int64 (B,) or None, names the clips' draws.
    forward: log pi (B, N) and psi (B,) of phase 1 with their graph, where phase 2 may use them instead of its own.
    """

    tokens: Tensor
    masked: Tensor
    old_log_prob: Tensor
    reward: Tensor
    old_value: Tensor | None
    masked_probability: Tensor
    keys: Tensor | None = None
    forward: tuple[Tensor, Tensor | None] | None = None


def token_weights(episode: Episode, weighting: str) -> Tensor:
    """Weights of the masked tokens' terms in Eq. 8, (B, M), mean 1 in every clip.

    Eq. 8 names no distribution over tokens for its expectation. "uniform" is the plain mean over the masked tokens.
    "policy" is a reading, not a new loss: the expectation under pi_old, estimated from the masked tokens by
    pi_old(i) / P(masked_i); its gradient is that of sum_i pi_i E_i and its fixed point pi_i ~ exp(c1 E_i / c3) for
    every c3. With the plain mean the push on a logit does not shrink with its probability while the entropy's pull
    does: masks stay nearly uniform, or collapse. "undivided" leaves out P(masked_i): tokens that are mostly visible,
    the policy's favourites, then count for less than they should. Normalised inside a clip, so that no clip's weight
    depends on which others share its batch.
    """
    if weighting == "uniform":
        return torch.ones_like(episode.old_log_prob)
    weights = episode.old_log_prob.exp()
    if weighting == "policy":
        weights = weights / episode.masked_probability
    return weights / weights.mean(dim=-1, keepdim=True)


def above_baseline(episode: Episode) -> Tensor:
    """L_R - psi_old of the masked tokens, (B, M); L_R where there is no value network."""
    baseline = 0.0 if episode.old_value is None else episode.old_value[:, None]
    return (episode.reward - baseline).expand_as(episode.old_log_prob)


def step_moments(episodes: Sequence[Episode], config: SamplerConfig) -> tuple[Tensor, Tensor] | None:
    """Mean and standard deviation of `above_baseline` for adv_norm "batch", else None.

    Over the clips of a step: its micro-batches and those of all processes, so that no advantage depends on how a step
    is divided. All processes must call it together. A single number has the deviation 0.
    """
    if config.adv_norm != "batch":
        return None
    values = torch.cat([above_baseline(episode).flatten() for episode in episodes])
    count = _sum_of_all(torch.full((), float(values.numel()), device=values.device))
    mean = _sum_of_all(values.sum()) / count
    return mean, (_sum_of_all(((values - mean) ** 2).sum()) / (count - 1).clamp(min=1)).sqrt()


def _sum_of_all(value: Tensor) -> Tensor:
    """Of this value of every process."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(value)
    return value


def advantages(episode: Episode, weights: Tensor, config: SamplerConfig,
               moments: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """A(X, I_m), (B, M); moments: of `step_moments`, None: those of this episode.

    "none" is the paper's L_R - psi_old(X_mu). "clip" (default) standardises the rewards inside each clip and then takes
    out their weighted mean, which is free of the MAE's changing error scale; any per-clip baseline, the value network's
    too, cancels in it. "batch" standardises
    L_R - psi_old over the clips of a step; without a value network it standardises L_R.
    """
    reward = episode.reward
    if config.adv_norm == "clip":
        # Statistics of all tokens, estimated from the masked ones: each counts 1 / P(masked).
        counts = 1 / episode.masked_probability if config.ppo_weighting == "policy" else torch.ones_like(reward)
        shares = counts / counts.sum(dim=-1, keepdim=True)
        mean = (shares * reward).sum(dim=-1, keepdim=True)
        std = (shares * (reward - mean) ** 2).sum(dim=-1, keepdim=True).sqrt()
        standard = (reward - mean) / (std + 1e-6)
        return standard - (weights * standard).mean(dim=-1, keepdim=True)
    advantage = above_baseline(episode)
    if config.adv_norm == "batch":
        mean, deviation = moments or step_moments([episode], config)
        advantage = (advantage - mean) / (deviation + 1e-6)
    return advantage


def clipped_objective(ratio: Tensor, advantage: Tensor, weights: Tensor, clip_epsilon: float) -> Tensor:
    """J_CLIP, Eq. 8: E[min(r A, clip(r, 1 - eps, 1 + eps) A)], per token and averaged.

    Never a product over the masked tokens: the joint ratio of a thousand tokens is 0 or infinite.
    """
    clipped = ratio.clamp(1 - clip_epsilon, 1 + clip_epsilon)
    return (weights * torch.minimum(ratio * advantage, clipped * advantage)).mean()


def entropy(log_pi: Tensor) -> Tensor:
    """H(pi) of each clip in nats, (B,)."""
    return -(log_pi.exp() * log_pi).sum(dim=-1)


def sampling_loss(log_pi: Tensor, value: Tensor | None, masked: Tensor, episode: Episode, config: SamplerConfig,
                  entropy_coef: Tensor | float, moments: tuple[Tensor, Tensor] | None = None
                  ) -> tuple[Tensor, dict[str, Tensor]]:
    """L_S(theta) = -J_PPO(theta), Eq. 7, and detached terms for the log.

    Args:
        log_pi, value: of the current theta, (B, N) and (B,); without a value network Eq. 7 has no value term.
        masked: the masked tokens at which pi_theta is read, int64 (B, M): the recorded I_m, or those of a fresh draw
            (I_m' as printed, paired in ascending token order).
        entropy_coef: c3, which may be adapted during a run; the other coefficients are the flags'.
        moments: see `advantages`.

    The loss is divided by c1: AdamW takes no notice of a common factor until it nears its eps, and at the paper's
    1e-4 the gradients do.
    """
    log_ratio = log_pi.gather(1, masked) - episode.old_log_prob
    ratio = log_ratio.exp()                                                           # r(theta)
    weights = token_weights(episode, config.ppo_weighting)
    advantage = advantages(episode, weights, config, moments)
    policy_term = clipped_objective(ratio, advantage, weights, config.clip_epsilon)
    clip_reward = episode.reward.mean(dim=-1)
    value_term = torch.zeros_like(policy_term) if value is None else ((value - clip_reward) ** 2).mean()
    clip_entropy = entropy(log_pi)
    entropy_term = clip_entropy.mean()
    scale = 1 / config.policy_coef if config.policy_coef else 1.0
    loss = -scale * (config.policy_coef * policy_term - config.value_coef * value_term + entropy_coef * entropy_term)
    terms = {"policy_objective": policy_term.detach(), "reward": clip_reward.mean()}
    if value is not None:
        terms["value_loss"] = value_term.detach()
    if episode.reward.shape[-1] > 1:
        terms["reward_std"] = episode.reward.std(dim=-1).mean()
    return loss, (terms | ratio_terms(log_ratio.detach(), advantage, config.clip_epsilon)
                  | spread(clip_entropy.detach(), log_pi.shape[1]))


def spread(clip_entropy: Tensor, num_tokens: int) -> dict[str, Tensor]:
    """How widely the policy spreads: the entropy's share of log N, and the number of equally likely tokens of that
    entropy, exp H, both the mean of the clips."""
    return {"entropy_share": clip_entropy.mean() / math.log(num_tokens), "effective_tokens": clip_entropy.exp().mean()}


def ratio_terms(log_ratio: Tensor, advantage: Tensor, clip_epsilon: float) -> dict[str, Tensor]:
    """The numbers that tell whether PPO acts: ratio, share of clipped terms, the k3 estimate of KL(pi_old || pi)."""
    ratio = log_ratio.exp()
    return {
        "ratio": ratio.mean(), "ratio_min": ratio.min(), "ratio_max": ratio.max(),
        "clip_fraction": ((ratio - 1).abs() > clip_epsilon).float().mean(),
        "approx_kl": (ratio - 1 - log_ratio).mean(), "advantage": advantage.mean(),
        "advantage_std": advantage.std(correction=min(1, advantage.numel() - 1)),
    }


class EntropyCoefficient:
    """c3: fixed, or adapted so that the entropy's share of log N stays near `target` (a dual step in log c3).

    Args:
        value: c3 to start from. target: share of log N, None keeps `value`. rate: of the dual step.
        floor: c3 never falls below this. device: where c3 is kept, that of the policy: then nothing is copied in a
            step.
    """

    def __init__(self, value: float, target: float | None = None, rate: float = 0.2, floor: float = 1e-5,
                 device: torch.device | str = "cpu"):
        self.device, self.target, self.rate, self.floor = torch.device(device), target, rate, floor
        self.value = torch.tensor(value)

    @property
    def value(self) -> Tensor:
        """c3, float32 ()."""
        return self._value

    @value.setter
    def value(self, value: Tensor) -> None:
        self._value = value.to(self.device)

    def update(self, entropy_share: Tensor, skip: Tensor | None = None) -> None:
        """One dual step, on the device: c3 grows while the policy is sharper than the target.

        skip: bool (), True leaves it as it is: theta's step was skipped too.
        """
        if self.target is not None:
            before = self.value.to(entropy_share.device)
            grown = (before * (self.rate * (self.target - entropy_share)).exp()).clamp(min=self.floor)
            self.value = grown if skip is None else torch.where(skip, before, grown)


def entropy_coefficient(sampler: TokenSampler | None, config: SamplerConfig,
                        device: torch.device) -> EntropyCoefficient:
    """c3 of a policy, on its device.

    Raises:
        ValueError: the entropy of this policy never falls to the share of log N that --target_entropy wants.
    """
    target = config.target_entropy
    if sampler is not None and target is not None:
        least = sampler.least_entropy / math.log(max(2, sampler.grid.num_tokens))
        if target <= least:
            raise ValueError(f"--target_entropy {target:g} cannot be reached: the sharpest policy that shows tokens by "
                             f"such blocks has {least:.3f} of log N; give more than that, or smaller --tats_block")
    return EntropyCoefficient(config.entropy_coef, target, floor=0.1 * config.policy_coef, device=device)
