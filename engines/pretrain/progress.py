"""A reward for what is being learned: the error that a slow copy of the model makes, less that of the present one."""

import copy

import torch
from torch import Tensor, nn

from .outcome import Outcome

DECAY = .99   # the copy is about a hundred steps behind


class Progress:
    """E_i(slow copy) - E_i(present model) of each masked token, under the same mask.

    What the last steps have taken off a token's error. A token that nothing foretells costs both the same, and so does
    one that is known already: both pay nothing. The other sign would pay for what is being forgotten. The copy is an
    exponential moving average over the calls, and starts as the model at the first one, which pays 0.

    Costs one forward without a graph and a second copy of the weights; the copy is part of a checkpoint.
    """

    def __init__(self, decay: float = DECAY):
        self.decay, self.slow = decay, None
        self._waiting: dict | None = None   # weights that were loaded before there was a model

    def __call__(self, outcome: Outcome) -> Tensor:
        """(B, M)."""
        model = outcome.again.mae.module
        if self.slow is None:
            self.slow = copy.deepcopy(model).requires_grad_(False)
            if self._waiting is not None:
                self.slow.load_state_dict(self._waiting)
        reward = outcome.again.errors(outcome.masked, self.slow) - outcome.errors
        self._follow(model)
        return reward

    @torch.no_grad()
    def _follow(self, model: nn.Module) -> None:
        for slow, present in zip(self.slow.state_dict().values(), model.state_dict().values(), strict=True):
            if slow.is_floating_point():
                slow.lerp_(present, 1 - self.decay)
            else:
                slow.copy_(present)

    def state(self) -> dict | None:
        """What a checkpoint keeps: the copy's weights, None before the first call."""
        return self._waiting if self.slow is None else self.slow.state_dict()

    def load(self, state: dict | None) -> None:
        """Go on from what `state` returned."""
        self.slow, self._waiting = None, state
