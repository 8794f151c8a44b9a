"""What changes a whole training batch on the device: random erasing, mixup, CutMix, label smoothing.

All three are timm's. They know pictures (B, C, H, W): a clip goes in as a picture of 3 T channels, so that every frame
gets the same box and the label's weight is the share of the pixels. (On (B, C, T, H, W) timm's CutMix cuts frames and
rows.)
"""

import torch
import torch.nn.functional as F
from timm.data import Mixup
from timm.data.random_erasing import RandomErasing
from torch import Tensor

from ..config.finetuning import AugmentConfig


class BatchAugment:
    """Random erasing, then mixup or CutMix, on normalised clips; the boxes and weights come from `random` and numpy.

    Args:
        config: the flags.
        num_classes: C.
        batch: clips that it will see at once.

    Raises:
        ValueError: mixing with an odd batch, or a setting that timm does not take.
    """

    def __init__(self, config: AugmentConfig, num_classes: int, batch: int, device: torch.device):
        self.smoothing = config.smoothing
        mixes = config.mixup > 0 or config.cutmix > 0 or config.cutmix_minmax is not None
        if mixes and batch % 2:
            raise ValueError(f"mixup and CutMix pair the clips of a batch, and {batch} (batch_size x num_sample) is "
                             "odd: use an even --batch_size, or --mixup 0 --cutmix 0")
        if config.cutmix_minmax is not None and len(config.cutmix_minmax) != 2:
            raise ValueError(f"--cutmix_minmax takes two numbers, got {config.cutmix_minmax}")
        self.erase = RandomErasing(config.reprob, mode=config.remode, max_count=config.recount,
                                   device=str(device)) if config.reprob > 0 else None
        self.mix = Mixup(config.mixup, config.cutmix, config.cutmix_minmax, config.mixup_prob,
                         config.mixup_switch_prob, config.mixup_mode, label_smoothing=config.smoothing,
                         num_classes=num_classes) if mixes else None

    def __call__(self, clips: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised float clips (B, 3, T, H, W), changed in place, and labels (B,) -> the same and the targets.

        The targets are (B, C) weights where clips are mixed (smoothed as well), else the labels.
        """
        pictures = clips.flatten(1, 2)   # a view: (B, 3 T, H, W)
        if self.erase is not None:
            pictures = self.erase(pictures)
        if self.mix is not None:
            pictures, labels = self.mix(pictures, labels)
        return pictures.view_as(clips), labels

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in float32; labels (B,) are smoothed here, weights (B, C) already were."""
        smoothing = self.smoothing if targets.ndim == 1 else 0.0
        return F.cross_entropy(logits.float(), targets, label_smoothing=smoothing)
