"""Randomness that belongs to a sample: one integer key fixes everything that is drawn for it, in whatever worker."""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch

_MASK64 = (1 << 64) - 1


def mix(*numbers: int) -> int:
    """One 63-bit number out of several: equal for equal numbers, unrelated for neighbours (splitmix64's finaliser)."""
    state = 0
    for number in numbers:
        state = (state + (number & _MASK64) + 0x9E3779B97F4A7C15) & _MASK64
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK64
        state ^= state >> 31
    return state >> 1


def clip_key(seed: int, epoch: int, row: int) -> int:
    """The key of row `row` in epoch `epoch` of a run with seed `seed`: int64, not negative.

    It depends on neither worker, rank nor batch, so a clip and its mask are the same for any number of workers and
    processes, and different in every epoch.
    """
    return mix(seed, epoch, row)


@contextlib.contextmanager
def seeded(key: int) -> Iterator[None]:
    """Inside the block torch (CPU), numpy and random draw from `key`; after it they go on where they were."""
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.random.default_generator.manual_seed(key)   # torch.manual_seed would also wake CUDA
    np.random.seed(key % (1 << 32))
    random.seed(key)
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])
