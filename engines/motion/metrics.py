"""Does the policy look at what moves? Measured where the truth is known.

B: clips, N: tokens. `moving` and `textured` are bool (B, N): tokens that a moving object covers, and tokens of static
objects with the same texture. A pure texture detector has an AUROC of about .9 against `moving`, but a moving AUROC of
.5: read them together.
"""

from typing import NamedTuple

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor


class MotionMetrics(NamedTuple):
    """auroc, average_precision: of pi against moving tokens. moving_auroc: moving against textured static tokens only.

    enrichment: share of moving tokens among the visible ones over their share among all; texture_enrichment: the same
    for textured static tokens. 1 is a mask that does not care. AUROCs and precision are means over clips.
    """

    auroc: float
    average_precision: float
    moving_auroc: float
    enrichment: float
    texture_enrichment: float


def motion_metrics(probabilities: Tensor, masks: Tensor, moving: Tensor, textured: Tensor) -> MotionMetrics:
    """All of `MotionMetrics` over a set of clips.

    Args:
        probabilities: pi, (B, N). masks: bool (B, N) or (draws, B, N), True = masked, drawn from pi.

    Raises:
        ValueError: no clip has both moving and other tokens.
    """
    textured = textured & ~moving
    whole, precise, against_texture = [], [], []
    for pi, moves, static in zip(probabilities.double().cpu().numpy(), moving.cpu().numpy(), textured.cpu().numpy(),
                                 strict=True):
        if moves.any() and not moves.all():
            whole.append(roc_auc_score(moves, pi))
            precise.append(average_precision_score(moves, pi))
        if moves.any() and static.any():
            either = moves | static
            against_texture.append(roc_auc_score(moves[either], pi[either]))
    if not whole or not against_texture:
        raise ValueError("no clip with moving, static and textured tokens: the truth cannot rank anything")
    visible = ~masks.reshape(-1, *moving.shape[-2:]).cpu()
    return MotionMetrics(float(np.mean(whole)), float(np.mean(precise)), float(np.mean(against_texture)),
                         enrichment(visible, moving.cpu()), enrichment(visible, textured.cpu()))


def enrichment(visible: Tensor, kind: Tensor) -> float:
    """Share of tokens of a kind among the visible ones over their share among all. visible: (draws, B, N).

    NaN where there are no such tokens.
    """
    return float((visible & kind).sum() / visible.sum() / kind.float().mean())
