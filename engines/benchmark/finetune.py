"""A fine-tuning step of the classifier: forward, cross-entropy, backward, AdamW."""

import contextlib
import warnings

import torch
import torch.nn.functional as F

from ...models import create_model
from ..core.runtime import choose_precision
from ..training.optim import make_optimizer, parameter_groups
from .originals import Clone
from .steps import StepSize

MODEL, CLASSES = "vit_base_patch16_224", 400   # as VideoMAE on Kinetics


class FinetuneStep:
    """ViT-B on all tokens of 16 x 224 x 224, drop path .1, as VideoMAE fine-tunes it.

    Args:
        clone: of VideoMAE, whose network and optimiser are then taken instead of ours.
    """

    def __init__(self, size: StepSize, clone: Clone | None = None):
        options = {"num_classes": CLASSES, "drop_path_rate": 0.1, "all_frames": size.frames, "img_size": size.size}
        device = torch.device(size.device)
        self.code = clone.code if clone is not None else contextlib.nullcontext
        if clone is None:
            self.model = create_model(MODEL, **options).to(device)
            self.optimizer = make_optimizer(parameter_groups(self.model, 0.05))
        else:
            with clone.code(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.model = clone.load("modeling_finetune").vit_base_patch16_224(**options).to(device)
            self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.0)
        self.precision = choose_precision(size.amp, device)
        self.videos = torch.randn(size.batch_size, 3, size.frames, size.size, size.size, device=device)
        self.labels = torch.arange(size.batch_size, device=device)

    def __call__(self) -> None:
        with self.code(), self.precision.autocast():
            logits = self.model(self.videos)
        F.cross_entropy(logits.float(), self.labels).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
