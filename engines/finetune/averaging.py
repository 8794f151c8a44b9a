"""The moving average of a classifier's weights, also where they are DeepSpeed's bf16 copies."""

from timm.utils import ModelEmaV3
from torch import nn


class WeightAverage(ModelEmaV3):
    """timm's, whose average stays in float32 where the weights are bf16 or fp16: older timm (1.0.9) raises there."""

    def apply_update_(self, model: nn.Module, decay: float) -> None:
        """As timm's."""
        pairs = list(zip(self.module.state_dict().values(), model.state_dict().values(), strict=True))
        if all(average.dtype == weight.dtype for average, weight in pairs):
            super().apply_update_(model, decay)
            return
        for average, weight in pairs:
            if average.is_floating_point():
                average.lerp_(weight.to(average), 1 - decay)
            else:
                average.copy_(weight)
