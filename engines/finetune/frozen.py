"""What frozen features are worth: nearest neighbours, and the network that gives the features."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.runtime import Precision
from .evaluation import RowTable


def features_of(classifier: nn.Module, precision: Precision) -> Callable[[Tensor], Tensor]:
    """Clips (B, 3, T, H, W) -> features (B, D), after fc_norm; classifier in eval mode."""
    def features(clips: Tensor) -> Tensor:
        with precision.autocast():
            return classifier.forward_features(clips)

    return features


def tokens_of(classifier: nn.Module, precision: Precision) -> Callable[[Tensor], Tensor]:
    """Clips (B, 3, T, H, W) -> tokens (B, N, D) in the order (t h w), each through fc_norm by itself; eval mode.

    `features_of` takes the mean first and fc_norm of it then, so that it is not the mean of these.
    """
    def tokens(clips: Tensor) -> Tensor:
        with precision.autocast():
            found = classifier.forward_tokens(clips)
            return found if classifier.fc_norm is None else classifier.fc_norm(found)

    return tokens


def freeze_all_but_head(classifier: nn.Module) -> None:
    """For the linear probe: nothing learns but the last layer."""
    for name, parameter in classifier.named_parameters():
        parameter.requires_grad_(name.startswith("head."))


def knn_scores(train: RowTable, test: RowTable, num_classes: int, k: int, temperature: float) -> RowTable:
    """Each test row's k nearest training rows by cosine vote for their class with weight exp(cosine / temperature).

    Unreadable training rows do not vote.

    Returns:
        The test table with scores (N, C) instead of features, summing to 1.

    Raises:
        ValueError: k or temperature not positive, or no training row can be read.
    """
    if k < 1 or temperature <= 0:
        raise ValueError(f"--knn_k must be at least 1 and --knn_temperature positive, got {k} and {temperature}")
    readable = train.readable
    if not readable.any():
        raise ValueError("no video of the training list can be read")
    bank, labels = F.normalize(train.values[readable], dim=1), train.labels[readable]
    scores = torch.zeros(len(test.labels), num_classes, dtype=torch.float64)
    for part in torch.arange(len(test.labels)).split(1024):
        likeness, nearest = (F.normalize(test.values[part], dim=1) @ bank.T).topk(min(k, len(bank)), dim=1)
        votes = (likeness / temperature).softmax(dim=1)
        scores[part] = scores[part].scatter_add(1, labels[nearest], votes)
    return RowTable(scores, test.labels, test.faults)
