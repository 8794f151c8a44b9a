"""Learning-rate and weight-decay schedules as functions of the optimiser step; nothing is counted in secret."""

import math
from dataclasses import dataclass


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
