"""How well a linear reading of single frozen tokens ranks flow: one more map, of features instead of a policy.

V: clips, N: tokens, D: numbers of a token.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ..compare_masks.tokens import linear_reading
from ..motion.optical_flow import TokenMotion
from ..motion.rank_correlation import ranks
from ..pretrain.interface import grid_of
from ..training.batches import Normalizer
from .maps import BATCH, map_lines
from .truth import geometry_of, read_truth


def measure_reading(mae: nn.Module, data: Path, folds: Mapping[int, int], tested: tuple[int, ...]) -> pd.DataFrame:
    """Lines as those of `measure_maps`, of the map "features": a ridge regression of frozen tokens on flow, in
    clips of the tested folds; it is trained on the clips of the other folds.

    Args:
        mae: the autoencoder, whose encoder is read. data: folder of the prepared clips. folds: of the clips by their
            numbers in the manifest.
    """
    truth = read_truth(data, geometry_of(mae))
    own = np.array([folds[row] for row in truth.rows])
    normalizer = Normalizer(torch.device("cpu"))
    tokens = torch.cat([frozen_tokens(mae, normalizer.clips(part)) for part in truth.clips.split(BATCH)])
    scores = read_flow(tokens.numpy(), truth.motion.flow, own, tested)
    asked = torch.from_numpy(np.isin(own, tested))
    motion = TokenMotion(*(kind[asked] for kind in truth.motion))
    rows = [row for row, fold in zip(truth.rows, own, strict=True) if fold in tested]
    return map_lines("features", scores[asked], motion).assign(row=rows)


@torch.no_grad()
def frozen_tokens(mae: nn.Module, videos: Tensor) -> Tensor:
    """(B, C, T, H, W) -> what the encoder makes of all tokens, (B, N, D)."""
    grid = grid_of(mae)
    return mae.encoder(videos, torch.arange(grid.num_tokens).expand(len(videos), -1))


def read_flow(tokens: np.ndarray, flow: Tensor, folds: np.ndarray, tested: tuple[int, ...]) -> Tensor:
    """The regression's answers to the tested folds' tokens, float64 (V, N), NaN elsewhere. Its target is the rank of a
    token's flow among all that it is trained on: flow itself is nearly 0 in most tokens, and large in a few.

    Args:
        tokens: (V, N, D). flow: (V, N). folds: (V,).
    """
    found, width = np.full(tokens.shape[:2], np.nan), tokens.shape[2]
    for fold in tested:
        test = folds == fold
        target = ranks(flow[torch.from_numpy(~test)].reshape(1, -1))[0].numpy()
        answers = linear_reading(tokens[~test].reshape(-1, width), target, tokens[test].reshape(-1, width))
        found[test] = answers.reshape(-1, tokens.shape[1])
    return torch.from_numpy(found)
