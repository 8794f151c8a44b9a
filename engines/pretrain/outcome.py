"""What the autoencoder made of a mask, and further looks at the same clips.

B: clips, N: tokens, M: masked tokens of a clip.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...masking.grid import TokenGrid
from ..training.batches import ClipBatch
from ..training.learner import Learner
from .interface import PatchSize, grid_of, predict
from .reconstruction import Reconstruction


@dataclass(frozen=True)
class Again:
    """Further forwards on the clips of an outcome, without a graph. Each costs a third of a training step, or more
    where more tokens are visible."""

    mae: Learner
    batch: ClipBatch
    reconstruction: Reconstruction
    patch: PatchSize

    def errors(self, hidden: Tensor, net: nn.Module | None = None) -> Tensor:
        """L_R of the tokens `hidden`, int64 (B, K), ascending, where these and no others are masked: float32 (B, K).

        Args:
            net: another network of the model's class; None: the model, with the weights after the outcome's step.
        """
        net = self.mae.module if net is None else net
        mask = torch.zeros_like(self.batch.mask).scatter_(1, hidden, True)
        with torch.no_grad(), self.mae.precision.autocast():
            prediction, masked = predict(net, net, self.batch.videos, mask, hidden.shape[1])
            target = self.reconstruction.target(self.batch, mask, self.patch, masked)
            return self.reconstruction.errors(prediction, target)

    def grid(self) -> TokenGrid:
        """The tokens' places: token i is the i-th of the grid in the order time, height, width."""
        return grid_of(self.mae.module)


class Outcome(NamedTuple):
    """What the autoencoder made of a mask; nothing of it is attached to a graph.

    errors: L_R of each masked token, float32 (B, M). masked: I_m, int64 (B, M), ascending. batch: the clips.
    log_pi: of the policy that drew the mask, float32 (B, N); None for masks of the loader.
    again: further looks at these clips; None where the loop is not ours and gives the errors alone.
    """

    errors: Tensor
    masked: Tensor
    batch: ClipBatch
    log_pi: Tensor | None = None
    again: Again | None = None
