"""Which row comes next, with the key of its randomness: the loader's workers keep no state of their own."""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Sampler

from .seeding import clip_key, mix

_PERMUTATION = 0x7065726D   # sets the permutation's key apart from the keys of the rows


class EpochSampler(Sampler):
    """Yields `(row, key)`; rank r of W takes the places r, r + W, ... of one permutation that all ranks share.

    The permutation depends on (seed, epoch) alone. A global batch of b·W rows is therefore the same set of rows for
    every W with the same b·W, and a run that stopped after any number of steps goes on exactly where it was:
    `set_epoch(e)`, `start(rows that all ranks together have taken)`.

    Args:
        length: rows in the list.
        seed: of the run.
        rank, world_size: which share this process takes.
        shuffle: False keeps the list's order (evaluation); the keys still follow the epoch.
        drop_last: leave out the last `length % world_size` rows, so that all ranks take equally many (training).
            False: every row once, the first ranks may take one more (evaluation).
    """

    def __init__(self, length: int, seed: int = 0, rank: int = 0, world_size: int = 1, shuffle: bool = True,
                 drop_last: bool = True):
        if length < 1:
            raise ValueError(f"nothing to sample from: length {length}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not one of {world_size} processes")
        if drop_last and length < world_size:
            raise ValueError(f"{length} rows cannot be shared by {world_size} processes: use fewer processes")
        self.length, self.seed, self.rank, self.world_size, self.shuffle = length, seed, rank, world_size, shuffle
        self.end = length - length % world_size if drop_last else length
        self.drop_last = drop_last
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch."""
        self.epoch = epoch
        self.start(0)

    def start(self, position: int) -> None:
        """Skip the first `position` places of the epoch's permutation: the rows that all ranks have already taken.

        What is left is shared out evenly, also where another number of ranks has taken the rows before.
        """
        if not 0 <= position <= self.length:
            raise ValueError(f"position {position} is outside the epoch's {self.length} rows")
        self.position = position
        self._stop = self.length - (self.length - position) % self.world_size if self.drop_last else self.length

    def rows(self, start: int, stop: int) -> list[int]:
        """The rows at these places of the epoch's permutation: what all ranks together take there."""
        return self._order()[start:stop].tolist()

    def __len__(self) -> int:
        """Rows that this rank still takes in this epoch."""
        return len(range(self.position + self.rank, self._stop, self.world_size))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rows = self._order()[self.position + self.rank:self._stop:self.world_size]
        epoch = self.epoch   # a loader that prefetches must not see a later set_epoch
        for row in rows:
            yield int(row), clip_key(self.seed, epoch, int(row))

    def _order(self) -> np.ndarray:
        if not self.shuffle:
            return np.arange(self.length)
        generator = torch.Generator().manual_seed(mix(self.seed, self.epoch, _PERMUTATION))
        return torch.randperm(self.length, generator=generator).numpy()
