"""Registered rewards and metrics are tried on made-up outcomes before the first step, not after hours of it.

Nothing of the run changes, its random numbers included.
"""

import io
from collections.abc import Callable

import torch
from torch import Tensor

from ...masking import gumbel_top_k, masked_indices
from ..core import runtime
from ..core.metrics import measuring
from ..training.batches import Normalizer
from ..training.learner import Learner
from .interface import patch_size_of
from .outcome import Again, Outcome
from .reconstruction import Reconstruction
from .rewards import REWARDS, Reward
from .users_code import blaming, is_ours, measured

CLIPS = 2


def try_registered(reward: Reward, reconstruction: Reconstruction, learners: tuple[Learner, Learner | None],
                   per_clip: Callable[[], Tensor], phases: tuple[bool, bool]) -> None:
    """Call what a user has registered and this run is going to call.

    Args:
        learners: of f_phi and g_theta. per_clip: makes the loader's masks, bool (N,).
        phases: whether there are steps with the loader's masks, and with the sampler's.

    Raises:
        ValueError: a reward or a metric raises, or returns something else than is wanted; it is named.
    """
    (mae, sampler), (random, drawn) = learners, phases
    rewarded = drawn and sampler.optimizer is not None and not is_ours(reward.of)
    if not rewarded and not measuring():
        return
    before, training = runtime.rng_state(), mae.module.training
    mae.module.eval()
    try:
        if random:
            measured(_made_up(reconstruction, mae, torch.stack([per_clip() for _ in range(CLIPS)])))
        if drawn:
            keys, tokens = torch.arange(CLIPS), sampler.module.grid.num_tokens
            log_pi = torch.randn(CLIPS, tokens).log_softmax(dim=1)
            mask = gumbel_top_k(log_pi, sampler.module.num_visible, keys).mask
            outcome = _made_up(reconstruction, mae, mask, log_pi)
            measured(outcome)
            if rewarded:
                _try_reward(reward.name, outcome)
    finally:
        mae.module.train(training)
        runtime.set_rng_state(before)


def _made_up(reconstruction: Reconstruction, mae: Learner, mask: Tensor, log_pi: Tensor | None = None) -> Outcome:
    """Noise for clips, and for the errors on them, as a step of the run has them."""
    embed, device = mae.module.encoder.patch_embed, next(mae.module.parameters()).device
    videos = torch.randint(256, (CLIPS, embed.proj.in_channels, embed.num_frames, *embed.img_size), dtype=torch.uint8)
    batch = Normalizer(device).prepare((videos, mask), device)._replace(keys=torch.arange(CLIPS, device=device))
    masked = masked_indices(batch.mask, int(mask[0].sum()))
    errors = .5 + torch.rand(masked.shape, device=device)
    return Outcome(errors, masked, batch, None if log_pi is None else log_pi.to(device),
                   Again(mae, batch, reconstruction, patch_size_of(mae.module)))


def _try_reward(name: str, outcome: Outcome) -> None:
    """On an object of its own, where the reward remembers."""
    trial = REWARDS[name].begin()
    paid = trial.pay(outcome)
    if bad := int((~paid.isfinite()).sum()):
        raise ValueError(f"the reward {name!r} is not finite for {bad} of {paid.numel()} tokens of a made-up outcome, "
                         "two clips of noise with errors between .5 and 1.5")
    if trial.remembers:
        with blaming(f"the reward {name!r}, saved and loaded as a checkpoint does it,", trial.of):
            file = io.BytesIO()
            torch.save(trial.state(), file)
            file.seek(0)
            trial.load(torch.load(file, weights_only=True))
