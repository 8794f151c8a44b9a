"""Learning-rate and weight-decay schedules as functions of the optimiser step; nothing is counted in secret."""

import logging
import math
from dataclasses import dataclass

from ..config.common import OptimConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CosineSchedule:
    """VideoMAE's per-step schedule: linear warm-up from `start` over W steps (reached at step W-1), then cosine.

    Steps past the end keep the last value, so that an uneven number of steps an epoch cannot run off the table.
    """

    base: float
    final: float
    total_steps: int
    warmup_steps: int = 0
    start: float = 0.0

    def __call__(self, step: int) -> float:
        if step < self.warmup_steps:
            share = step / (self.warmup_steps - 1) if self.warmup_steps > 1 else 0.0
            return self.start + (self.base - self.start) * share
        length = max(1, self.total_steps - self.warmup_steps)
        position = min(step - self.warmup_steps, length - 1)
        return self.final + 0.5 * (self.base - self.final) * (1 + math.cos(math.pi * position / length))


def schedules_of(optim: OptimConfig, steps_per_epoch: int, processes: int) -> tuple[CosineSchedule, CosineSchedule]:
    """(learning rate, weight decay) of a run; the rate is --lr for 256 clips a step, scaled to the clips of a step."""
    clips = optim.clips_a_step(processes)
    scale, total = clips / 256, optim.epochs * steps_per_epoch
    warmup = optim.warmup_steps if optim.warmup_steps >= 0 else optim.warmup_epochs * steps_per_epoch
    decay_end = optim.weight_decay if optim.weight_decay_end is None else optim.weight_decay_end
    logger.info("%d clips a step on %d process(es): learning rate %.3g x %d / 256 = %.3g at the peak", clips, processes,
                optim.lr, clips, optim.lr * scale)
    if warmup >= total > 0:
        logger.warning("the warm-up takes all %d steps of the run (--warmup_epochs %d, --epochs %d): the learning rate "
                       "rises to the end and never falls; lower --warmup_epochs, or --warmup_steps where that "
                       "is given", total, optim.warmup_epochs, optim.epochs)
    return (CosineSchedule(optim.lr * scale, optim.min_lr * scale, total, min(warmup, total)),
            CosineSchedule(optim.weight_decay, decay_end, total))
