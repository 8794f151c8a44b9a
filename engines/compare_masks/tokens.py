"""What single frozen tokens know, read linearly: which show a thing, which of these move, of which texture it is.

A clip's one label leaves differences of several points to chance; a test split has thousands of tokens.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ...datasets.lists.list_file import read_list
from ...datasets.moving_shapes import require_frames, truth_for
from ...masking import TokenGrid
from ..core import checkpointing
from ..pretrain.interface import grid_of
from ..runs.pretraining_build import rebuild
from .frozen import extracted
from .plan import Cell, Plan, checkpoint_file

MOST = 512   # clips of a split


class Tokens(NamedTuple):
    """n tokens of many clips: features float (n, D), moving and still bool (n,), texture int (n,), that of the clip."""

    features: np.ndarray
    moving: np.ndarray
    still: np.ndarray
    texture: np.ndarray


def measure_tokens(plan: Plan, cell: Cell) -> dict[str, float]:
    """`read_tokens` on the test split, of the frozen encoder that a cell's pre-training ended with; it sees all."""
    checkpoint, out = checkpoint_file(plan, cell), plan.out / cell.name / "tokens.npz"
    mae, _, _ = rebuild(checkpointing.load(checkpoint), sampler_weights=False)
    grid, frames = grid_of(mae), range(grid_of(mae).frames * mae.tubelet_size)
    train, test = (_tokens(plan.data / split, checkpoint, out, grid, frames) for split in ("train", "test"))
    return read_tokens(train, test)


def _tokens(split: Path, checkpoint: str, out: Path, grid: TokenGrid, frames: range) -> Tokens:
    """Of the first MOST clips of a split, the file DATA/train or DATA/test without its ending; `out` is not kept."""
    require_frames(read_list(f"{split}.csv"), len(frames))
    features, paths = (column[:MOST] for column in extracted(checkpoint, f"{split}.csv", out, "--per_token", "--device",
                                                             "cpu"))
    truth, texture = truth_for(split.parent, split.name), read_list(f"{split}_appearance.csv").labels[:MOST]
    rows = [truth.row_of(path) for path in paths]
    moving, still = (np.concatenate([kind(row, frames, grid) for row in rows])
                     for kind in (truth.moving, truth.static_texture))
    return Tokens(features.reshape(len(moving), -1), moving, still, np.repeat(texture, features.shape[1]))


def linear_reading(features: np.ndarray, target: np.ndarray, others: np.ndarray) -> np.ndarray:
    """A ridge regression on standardised features (n, D), target (n,) or (n, C): its answers to `others` (m, D).
    In double precision: features of an untrained network are nearly multiples of each other."""
    return make_pipeline(StandardScaler(), Ridge()).fit(np.float64(features), target).predict(np.float64(others))


def read_tokens(train: Tokens, test: Tokens) -> dict[str, float]:
    """Linear readings that are trained on `train` and asked on `test`, in percent.

    token_things: AUROC of the tokens that show a thing among all. token_motion: of those that move among these.
    token_texture: top-1 of the texture, of these.
    """
    shown, asked = train.moving | train.still, test.moving | test.still
    own, others = train.features[shown], test.features[asked]
    things = linear_reading(train.features, shown, test.features)
    motion = linear_reading(own, train.moving[shown], others)
    textures = linear_reading(own, np.eye(train.texture.max() + 1)[train.texture[shown]], others).argmax(axis=1)
    found = {"token_things": roc_auc_score(asked, things), "token_motion": roc_auc_score(test.moving[asked], motion),
             "token_texture": (textures == test.texture[asked]).mean()}
    return {name: 100 * float(value) for name, value in found.items()}
