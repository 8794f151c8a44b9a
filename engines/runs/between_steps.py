"""A loader that lets the run act between two optimiser steps."""

from collections.abc import Callable, Iterator, Sequence, Sized


class BetweenSteps:
    """An engine that asks for the next batch has finished its step, so the loops stay as they are. Must be outside of
    all that reads ahead.

    Args:
        update_freq: batches of a step. after_step: called after each of them.
    """

    def __init__(self, loader: Sized, update_freq: int, after_step: Callable[[], None]):
        self.loader, self.update_freq, self.after_step = loader, update_freq, after_step

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Sequence]:
        for index, batch in enumerate(self.loader, start=1):
            yield batch
            if index % self.update_freq == 0:
                self.after_step()
