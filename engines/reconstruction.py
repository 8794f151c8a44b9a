"""The reconstruction error L_R of Eq. 6, for any masked autoencoder of VideoMAE's interface."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..models import reconstruction_targets
from .batches import ClipBatch


@dataclass(frozen=True)
class Reconstruction:
    """How L_R is measured (Table 3d). loss: "mse" or "l1"; normalize: targets normalised inside each patch."""

    loss: str = "mse"
    normalize: bool = True

    def errors(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Error of each masked token, mean over its values, float32 (B, M); its mean is L_R (Eq. 6)."""
        difference = prediction.float() - target
        return (difference.abs() if self.loss == "l1" else difference.square()).mean(dim=-1)

    def target(self, batch: ClipBatch, mask: Tensor, patch: "PatchSize") -> Tensor:
        """Pixels of the masked tokens, (B, M, 3 * tubelet * p * p), float32."""
        with torch.no_grad():
            return reconstruction_targets(batch.pixels, mask, patch.patch_size, patch.tubelet_size, self.normalize)


class PatchSize(NamedTuple):
    """patch_size in pixels, tubelet_size in frames."""

    patch_size: int
    tubelet_size: int


def patch_size_of(mae: nn.Module) -> PatchSize:
    """Read from the patch embedding's convolution, so that any VideoMAE fork's model will do."""
    tubelet, patch, _ = mae.encoder.patch_embed.proj.kernel_size
    return PatchSize(patch, tubelet)


def explained_share(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - error / variance of the targets: 0 for a model that predicts the mean, i.e. one still on its plateau."""
    target = target.float()
    residual = (prediction.float() - target).square().mean()
    return 1 - residual / (target - target.mean(dim=(1, 2), keepdim=True)).square().mean()


def tokenize(mae: nn.Module, videos: Tensor, positions: bool = True) -> Tensor:
    """X (line 4): patch embedding plus the encoder's fixed positions, (B, N, D), detached.

    Detached because phase 2 must not move phi; AdaMAE lets its sampling loss train the patch embedding.

    Args:
        positions: False gives the bare patch embedding, for a sampler with positions of its own.
    """
    with torch.no_grad():
        tokens = mae.encoder.patch_embed(videos)
        if positions:
            tokens = tokens + mae.encoder.pos_embed.to(tokens.device).type_as(tokens)
    return tokens.detach()
