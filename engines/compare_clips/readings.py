"""What features of clips are worth: the answers of simple classifiers to every clip, none of whose group they saw.

n: clips, D: numbers of a clip, C: classes.
"""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..finetune.evaluation import RowTable
from ..finetune.frozen import knn_scores

_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.)
_MIDDLE = 1e-2
_NEIGHBOURS, _TEMPERATURE = 20, .07

Classifier = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def answers_by_fold(features: np.ndarray, labels: np.ndarray, folds: np.ndarray, tested: tuple[int, ...],
                    classify: Classifier) -> np.ndarray:
    """The class that each clip is taken for by a classifier that is trained on the other folds, int64 (n,).

    Args:
        features: (n, D). labels: (n,). folds: (n,), -1: always trained on. tested: the folds that are asked for.
        classify: (features and labels and folds of the training clips, features of the others) -> their classes.

    Returns:
        -1 for the clips of folds that are not asked for.
    """
    found = np.full(len(labels), -1)
    for fold in tested:
        test = folds == fold
        found[test] = classify(features[~test], labels[~test], folds[~test], features[test])
    return found


def linear(features: np.ndarray, labels: np.ndarray, folds: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Logistic regression on standardised features; its penalty is the best in the training folds, each left out in
    turn: no group helps to choose for itself."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    splits = [(train, test) for train, test in PredefinedSplit(folds).split()
              if len(np.unique(labels[train])) == len(np.unique(labels))]
    if len(splits) < 2:   # two folds in all, or folds of one class: nothing is left to choose with
        return probe.set_params(logisticregression__C=_MIDDLE).fit(features, labels).predict(others)
    search = GridSearchCV(probe, {"logisticregression__C": _PENALTIES}, cv=splits)
    return search.fit(features, labels).predict(others)


def nearest(features: np.ndarray, labels: np.ndarray, folds: np.ndarray, others: np.ndarray) -> np.ndarray:
    """k nearest neighbours by cosine, as `--eval_mode knn`."""
    del folds
    train = RowTable(torch.from_numpy(features).double(), torch.from_numpy(labels), {})
    test = RowTable(torch.from_numpy(others).double(), torch.full((len(others),), -1), {})
    scores = knn_scores(train, test, int(labels.max()) + 1, _NEIGHBOURS, _TEMPERATURE)
    return scores.values.argmax(dim=1).numpy()


def difference_statistics(parts: Iterable[np.ndarray]) -> np.ndarray:
    """Nine statistics of the frame differences of a clip: what can be read off its motion without any model.

    Of the mean absolute difference of neighbouring frames, step by step: mean, deviation, maximum; of its mean over
    time, pixel by pixel: deviation, 90th percentile, maximum; of the share of pixels that change by more than a tenth,
    step by step: mean, deviation, maximum.

    Args:
        parts: the frames in order, uint8 (T, H, W, 3) each, at least two together; a long clip comes in several.
    """
    steps, share, total, last = [], [], 0., None
    for frames in parts:
        grey = frames.mean(axis=3) / 255
        grey = grey if last is None else np.concatenate([last, grey])
        change, last = np.abs(np.diff(grey, axis=0)), grey[-1:]
        steps.append(change.mean(axis=(1, 2)))
        share.append((change > .1).mean(axis=(1, 2)))
        total = total + change.sum(axis=0)
    steps, share = np.concatenate(steps), np.concatenate(share)
    places = total / len(steps)
    return np.array([steps.mean(), steps.std(), steps.max(), places.std(), np.percentile(places, 90), places.max(),
                     share.mean(), share.std(), share.max()])
