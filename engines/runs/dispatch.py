"""The engine that a masking strategy is trained with: the one place that chooses it."""

from collections.abc import Sequence

from .. import engine_for_pretraining, engine_for_pretraining_ppo
from ..core.meters import Meters
from ..engine_for_pretraining_ppo import EpisodeBuffer, PPOTraining
from ..training.learner import Learner


def train_one_epoch(learner: str | None, epoch: int, loader: Sequence, networks: tuple[Learner, Learner | None],
                    buffer: EpisodeBuffer, training: PPOTraining, log: Meters) -> None:
    """One epoch of Algorithm 1 where the row's `learner` is "ppo", else of AdaMAE's engine.

    Args:
        learner: `Masking.learner` of the run's row. networks: f_phi, and the sampler or None.
    """
    mae, sampler = networks
    if learner == "ppo":
        engine_for_pretraining_ppo.train_one_epoch(epoch, loader, mae, sampler, buffer, training, log)
    else:
        engine_for_pretraining.train_one_epoch(epoch, loader, mae, sampler, training.setup, log)
