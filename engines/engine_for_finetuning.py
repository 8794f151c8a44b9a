"""Fine-tuning in three parts: train an epoch, validate, test all views of every video.

B: clips of a batch, V: views of a video, C: classes.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from timm.utils import ModelEmaV3
from torch import Tensor

from .core.meters import Meters
from .core.runtime import Runtime
from .finetune.evaluation import RowTable, accuracies, merge
from .finetune.mixing import BatchAugment
from .training.batches import Normalizer, grouped
from .training.learner import Learner

PerClip = Callable[[Tensor], Tensor]   # normalised clips (B, 3, T, H, W) -> (B, K) scores or features


@dataclass(frozen=True)
class FinetuneSetup:
    """What every step of a run shares.

    update_freq: micro-batches an optimiser step. ema: follows the weights after every step.
    """

    normalizer: Normalizer
    augment: BatchAugment
    update_freq: int = 1
    ema: ModelEmaV3 | None = None


@dataclass(frozen=True)
class EvaluationSetup:
    """What every evaluation of a run shares. clips: at most so many go through the network at once."""

    normalizer: Normalizer
    runtime: Runtime
    clips: int = 64


def train_one_epoch(loader: Sequence, learner: Learner, setup: FinetuneSetup, log: Meters) -> None:
    """One pass over the loader, which yields (uint8 clips (B, 3, T, H, W), labels (B,))."""
    for _, more, (videos, labels) in grouped(loader, setup.update_freq):
        clips = setup.normalizer.clips(videos)
        clips, targets = setup.augment(clips, labels.to(clips.device, non_blocking=True))
        with learner.accumulating(more):
            logits = learner(clips)
            loss = setup.augment.loss(logits, targets)
            learner.backward(loss / setup.update_freq)
        right = targets if targets.ndim == 1 else targets.argmax(dim=1)
        log(loss=loss.detach(), class_acc=(logits.detach().argmax(dim=1) == right).float().mean())
        if not more:
            log(grad_norm=learner.step())
            if setup.ema is not None:
                setup.ema.update(learner.module)


@torch.no_grad()
def evaluate_rows(loader: Iterable, per_clip: PerClip, setup: EvaluationSetup, length: int) -> RowTable:
    """The mean over its views of every video's values, gathered from all processes, each row of the list once.

    Args:
        loader: yields (rows (B,), labels (B,), uint8 views (B, V, 3, T, H, W), faults (B,)), see `TestViews`; the rows
            are those of `evaluation_rows`.
        length: rows of the list.
    """
    all_rows, all_values, all_labels, faults = [], [], [], {}
    for rows, labels, videos, causes in loader:
        clips = videos.flatten(0, 1)
        values = torch.cat([per_clip(setup.normalizer.clips(part)).double() for part in clips.split(setup.clips)])
        all_rows.append(rows)
        all_labels.append(labels)
        all_values.append(values.view(len(rows), -1, values.shape[1]).mean(dim=1))
        faults |= {int(row): cause for row, cause in zip(rows, causes, strict=True) if cause}
    return merge(torch.cat(all_rows), torch.cat(all_values), torch.cat(all_labels), faults, setup.runtime, length)


def probabilities(net: Callable[[Tensor], Tensor]) -> PerClip:
    """The softmax of a network's logits, in float64: two views' mean is then that of probabilities, as VideoMAE's."""
    return lambda clips: net(clips).double().softmax(dim=1)


def validate(loader: Iterable, net: Callable[[Tensor], Tensor], setup: EvaluationSetup, length: int,
             source: str = "the list") -> dict[str, float]:
    """acc1 and acc5 in percent of all rows, and the loss of those that can be read. The network is in eval mode.

    Raises:
        ValueError: none of the videos of the list `source` can be read.
    """
    table = evaluate_rows(loader, probabilities(net), setup, length)
    table.must_hold_something(source)
    result, readable = accuracies(table), table.readable
    own = table.values.gather(1, table.labels[:, None])[readable]
    loss = -own.clamp_min(torch.finfo(torch.float64).tiny).log().mean()
    return {"loss": float(loss), "acc1": result["top1"], "acc5": result["top5"], "unreadable": len(table.faults)}


def test_views(loader: Iterable, net: Callable[[Tensor], Tensor], setup: EvaluationSetup, length: int) -> RowTable:
    """Probabilities of every test video, averaged over its segments and crops. The network is in eval mode."""
    return evaluate_rows(loader, probabilities(net), setup, length)
