"""How the tokens of the tested clips move: measured once in the clips themselves, and kept.

V: clips, N: tokens.
"""

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ...datasets.files import written_whole
from ...datasets.transforms.pretraining import crop_views
from ...datasets.video.decode import open_video
from ...datasets.video.frame_numbers import view_indices
from ...datasets.windows import frames_by_time
from ...masking import TokenGrid
from ..motion.optical_flow import TokenMotion, opencv, token_motion
from ..pretrain.interface import clip_size, grid_of
from .manifest import Manifest

logger = logging.getLogger(__name__)

FLOW_SIDE = 192   # side of the frames in which flow is measured, about; a whole multiple of the model's


class Geometry(NamedTuple):
    """What a model sees of a clip: its middle `frames` frames, `size` pixels square, as tokens of `grid`."""

    grid: TokenGrid
    frames: int
    size: int


class Truth(NamedTuple):
    """The middle view of each tested clip, uint8 (V, 3, T, S, S), how its tokens move, each (V, N), and the clips'
    numbers in the manifest (V,)."""

    clips: Tensor
    motion: TokenMotion
    rows: list[int]


def geometry_of(mae: nn.Module) -> Geometry:
    """Of a pre-training model."""
    grid = grid_of(mae)
    return Geometry(grid, grid.frames * mae.tubelet_size, clip_size(mae))


def truth_file(data: Path, geometry: Geometry) -> Path:
    """Where the truth for models of this geometry is kept."""
    return data / f"truth-{geometry.frames}x{geometry.size}-{'x'.join(map(str, geometry.grid))}.npz"


def write_truth(manifest: Manifest, data: Path, geometry: Geometry, fps: float) -> None:
    """Measure the tested clips, in their own size and at `fps` frames a second, where that has not been done.

    Raises:
        ValueError: OpenCV is missing.
        VideoError: a clip cannot be read.
    """
    path = truth_file(data, geometry)
    if path.is_file():
        return
    opencv()   # before anything is decoded
    side = geometry.size * max(1, round(FLOW_SIDE / geometry.size))
    paths = [str((manifest.folder / manifest.rows[row].path).resolve()) for row in manifest.tested]
    found, held = [], 0
    for source in paths:
        view, differ = _middle(source, geometry.frames, side, fps)
        found.append(token_motion(view, geometry.grid, geometry.size))
        held += differ < geometry.frames
    if held:
        logger.warning("%d of %d tested clips are too short or too slow for %d different frames at --fps %g: frames "
                       "are repeated, between which nothing moves", held, len(paths), geometry.frames, fps)
    motion = {kind: torch.cat([getattr(one, kind) for _, one in found]).float().numpy() for kind in TokenMotion._fields}
    with written_whole(path, "wb") as file:
        np.savez(file, clips=torch.cat([seen for seen, _ in found]).numpy(), rows=np.array(manifest.tested), **motion)


def _middle(path: str, frames: int, side: int, fps: float) -> tuple[Tensor, int]:
    """(the tests' middle view, uint8 (1, 3, T, side, side); how many of its frames differ in number)."""
    with open_video(path) as video:
        shown = frames_by_time(path, video, fps)
        numbers = shown[view_indices("dense", len(shown), frames)[0]]
        return crop_views(video.read(numbers), side, 1)[0][None], len(np.unique(numbers))


def read_truth(data: Path, geometry: Geometry) -> Truth:
    """What `write_truth` wrote. Raises FileNotFoundError: nothing."""
    with np.load(truth_file(data, geometry)) as stored:
        motion = TokenMotion(*(torch.from_numpy(stored[kind]) for kind in TokenMotion._fields))
        return Truth(torch.from_numpy(stored["clips"]), motion, stored["rows"].tolist())
