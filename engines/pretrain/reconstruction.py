"""The reconstruction error L_R of Eq. 6, for any masked autoencoder of VideoMAE's interface."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...models import kernels, reconstruction_targets
from ...models.mixed_precision import squared_errors
from ..training.batches import ClipBatch
from .interface import PatchSize

_ROUNDING = 1e-12   # of the targets' mean square: a variance below it is that of numbers that are all the same


@dataclass(frozen=True)
class Reconstruction:
    """How L_R is measured (Table 3d).

    loss: "mse" or "l1". normalize: targets normalised inside each patch.
    targets: `targets(pixels, mask) -> (B, M, C)` in the place of the pixels: of pixels (B, 3, T, H, W) in [0, 1] and a
        mask bool (B, N), the values that the model predicts for each masked token, in ascending order of the tokens.
    """

    loss: str = "mse"
    normalize: bool = True
    targets: Callable[[Tensor, Tensor], Tensor] | None = None

    def errors(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Error of each masked token, mean over its values, float32 (B, M); its mean is L_R (Eq. 6)."""
        if self.loss == "mse" and kernels.wants_large(prediction) and target.dtype == torch.float32:
            return squared_errors(prediction, target)   # without float32 copies of the batch
        difference = prediction.float() - target
        return (difference.abs() if self.loss == "l1" else difference.square()).mean(dim=-1)

    def loss_of(self, errors: Tensor, prediction: Tensor, target: Tensor) -> Tensor:
        """L_R, the mean of the errors."""
        del prediction, target
        return errors.mean()

    def target(self, batch: ClipBatch, mask: Tensor, patch: PatchSize, masked: Tensor | None = None) -> Tensor:
        """Pixels of the masked tokens, (B, M, 3 * tubelet * p * p), float32. masked: I_m, where it is known."""
        with torch.no_grad():
            if self.targets is not None:
                return self.targets(batch.pixels, mask).float()
            return reconstruction_targets(batch.pixels, mask, patch.patch_size, patch.tubelet_size, self.normalize,
                                          masked)


def explained_variance(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - error / variance of the targets: 0 for a model that predicts the mean, i.e. one still on its plateau.

    NaN where all targets of a clip are the same number, in every clip: there is nothing to explain.
    """
    target = target.float()
    residual = (prediction.float() - target).square().mean()
    variance = (target - target.mean(dim=(1, 2), keepdim=True)).square().mean()
    return torch.where(variance > _ROUNDING * target.square().mean(), 1 - residual / variance, torch.nan)
