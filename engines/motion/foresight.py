"""What is a prediction of a moving token made of: of what is there, or of the background behind it?

The error of such tokens does not tell. A model that fills in the background wherever it does not expect an object is
further off there than one that predicts nothing, and may foresee part of the motion all the same.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Foresight(NamedTuple):
    """prediction = foreseen * truth + filled_in * background, fitted over all moving tokens that are hidden.

    (1, 0) foresees what moves, (0, 1) paints the background over it, (0, 0) says nothing about either.
    """

    foreseen: float
    filled_in: float


def foresight(prediction: Tensor, truth: Tensor, background: Tensor) -> Foresight:
    """Least squares, each value of a token less its mean over the tokens.

    Args:
        prediction, truth, background: (n, C), of n moving tokens; what the model says, its target, and what would be
            its target if nothing moved in the clip.

    Raises:
        ValueError: truth and background cannot be told apart: too few tokens, or nothing that moves.
    """
    prediction, truth, background = (
        (values.double() - values.double().mean(dim=0)).flatten() for values in (prediction, truth, background))
    both = torch.stack([truth, background], dim=1)
    if torch.linalg.matrix_rank(both) < 2:
        raise ValueError(f"no foresight can be measured on {len(truth)} values: what moves is what it hides")
    return Foresight(*torch.linalg.lstsq(both, prediction[:, None]).solution.flatten().tolist())
