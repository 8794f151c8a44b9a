"""Does a policy look at what moves in real clips? Its token map, and that of the errors that pay it, against motion.

V: clips, N: tokens.
"""

import math
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from ...datasets.lists.seeding import mix, seeded
from ...masking import RandomMasking, find_masking
from ..core import checkpointing
from ..figures.inference import error_map, log_policy, look
from ..motion.optical_flow import TokenMotion
from ..motion.rank_correlation import partial_rank_correlation, rank_correlation
from ..pretrain.interface import grid_of, mask_ratio_of
from ..pretrain.nearness import COMPARED_REACH, Around
from ..pretrain.reconstruction import Reconstruction
from ..runs.pretraining_build import rebuild
from ..training.batches import ClipBatch, Normalizer
from .truth import Geometry, Truth, geometry_of, read_truth

KINDS = ("flow", "own_flow", "difference", "texture")
GIVEN_TEXTURE = ("flow", "own_flow", "difference")
MOVING_SHARE = .1   # the tokens that move most
DRAWS = 8           # random masks of the error map
MASKS = 4           # masks of a strategy, for the enrichment
BATCH = 30


def measure_maps(checkpoint: str, data: Path, rows: list[int]) -> pd.DataFrame:
    """A line a clip and map: map (policy, places: the mean policy of all clips, error, lasting: the error under masks
    that hide half as much, both also _around: averaged over the tokens around each with a reach of 1, masks), row,
    the rank correlations with each of KINDS and, given texture, with those of GIVEN_TEXTURE, the enrichment,
    fixed_error. What is not defined is NaN: nothing moves, or a map is constant.

    A policy that is the same everywhere ranks nothing: it has no lines. enrichment: the share of the most moving tenth
    (by flow) among the visible tokens, over its share among all: of "masks" those that the strategy draws (a policy's
    own, without what --random_share and --context_share leave to chance), of every other map as if its largest tokens
    were shown. fixed_error: under a random mask that depends on the clip alone, in the lines of "masks".

    Args:
        data: folder of the prepared clips. rows: numbers in the manifest of the clips that are measured.
    """
    state = checkpointing.load(checkpoint)
    mae, sampler, mask_type = rebuild(state, source=checkpoint)
    settings, truth = state["settings"], read_truth(data, geometry_of(mae))
    mask, loss = settings["mask"], settings["loss"]
    reconstruction = Reconstruction(loss["loss"], loss["normlize_target"])
    ratio = mask_ratio_of(mask, grid_of(mae))
    masking = RandomMasking(grid_of(mae), ratio)
    places = [truth.rows.index(row) for row in rows]
    truth = Truth(truth.clips[places], TokenMotion(*(kind[places] for kind in truth.motion)), list(rows))
    batches = _batches(truth, masking)
    moving = most_moving(truth.motion.flow)
    with seeded(0):
        per_clip = find_masking(mask_type).per_clip(grid_of(mae), mask["mask_ratio"], mask["num_visible"])
        policy, visible = _policy(mae, sampler, batches, per_clip)
    maps = _error_maps(mae, batches, ratio, reconstruction)
    fixed = torch.cat([look(mae, None, batch, reconstruction).errors.mean(dim=1) for batch in batches])
    if policy is not None and not (policy == policy[:, :1]).all():
        maps |= {"policy": policy, "places": policy.mean(dim=0).expand_as(policy)}
    tables = [pd.DataFrame({"map": "masks", "enrichment": enrichment(visible, moving), "fixed_error": fixed}),
              *(map_lines(name, scores, truth.motion, enrichment(_largest(scores, masking.num_visible)[None], moving))
                for name, scores in maps.items())]
    return pd.concat([table.assign(row=truth.rows) for table in tables], ignore_index=True)


def plain_maps(data: Path, geometry: Geometry) -> pd.DataFrame:
    """The same lines of rankings without any model: frame difference and texture."""
    truth = read_truth(data, geometry)
    moving, tables = most_moving(truth.motion.flow), []
    for name, scores in (("frame difference", truth.motion.difference), ("texture", truth.motion.texture)):
        enriched = enrichment(most_moving(scores)[None], moving)
        tables.append(map_lines(f"{name} alone", scores, truth.motion, enriched).assign(row=truth.rows))
    return pd.concat(tables, ignore_index=True)


def _batches(truth: Truth, masking: RandomMasking) -> list[ClipBatch]:
    device = torch.device("cpu")
    normalizer, masks = Normalizer(device), []
    for row in truth.rows:
        with seeded(mix(row, 7)):
            masks.append(masking())
    return [normalizer.prepare((clips, hidden), device)
            for clips, hidden in zip(truth.clips.split(BATCH), torch.stack(masks).split(BATCH), strict=True)]


def _error_maps(mae: nn.Module, batches: list[ClipBatch], mask_ratio: float,
                reconstruction: Reconstruction) -> dict[str, Tensor]:
    """What rewards pay on average, each (V, N)."""
    grid, found = grid_of(mae), {}
    for name, ratio in (("error", mask_ratio), ("lasting", mask_ratio / 2)):
        errors = torch.cat([error_map(mae, batch, RandomMasking(grid, ratio), reconstruction, DRAWS)
                            for batch in batches])
        found |= {name: errors, f"{name}_around": Around(grid, COMPARED_REACH).of_all(errors)}
    return found


@torch.no_grad()
def _policy(mae: nn.Module, sampler: nn.Module | None, batches: list[ClipBatch], per_clip) -> tuple[Tensor | None,
                                                                                                    Tensor]:
    """(pi (V, N), None without a policy; what its masks show, bool (MASKS, V, N))."""
    if sampler is None:
        drawn = [[~per_clip() for batch in batches for _ in batch.mask] for _ in range(MASKS)]
        return None, torch.stack([torch.stack(masks) for masks in drawn])
    log_pi = torch.cat([log_policy(mae, sampler, batch) for batch in batches])
    return log_pi.exp(), torch.stack([~sampler.draw(log_pi, None).mask for _ in range(MASKS)])


def most_moving(flow: Tensor) -> Tensor:
    """The tenth of each clip's tokens that moves most, bool (V, N): none in a clip in which nothing moves."""
    return _largest(flow, math.ceil(MOVING_SHARE * flow.shape[1])) & (flow > 0)


def _largest(scores: Tensor, count: int) -> Tensor:
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, scores.topk(count, dim=1).indices, True)


def enrichment(visible: Tensor, moving: Tensor) -> Tensor:
    """Share of the moving tokens among the visible ones, over their share among all, mean over the masks, (V,).

    NaN where no token moves.

    Args:
        visible: bool (masks, V, N). moving: bool (V, N).
    """
    seen = (visible & moving).sum(dim=2) / visible.sum(dim=2)
    return seen.mean(dim=0) / moving.float().mean(dim=1)


def map_lines(name: str, scores: Tensor, motion: TokenMotion, enriched: Tensor | None = None) -> pd.DataFrame:
    """A line a clip of a ranking of its tokens, scores (V, N): see `measure_maps`. enriched: (V,), its enrichment."""
    found = {kind: rank_correlation(scores, getattr(motion, kind)) for kind in KINDS}
    found |= {f"{kind}_given_texture": partial_rank_correlation(scores, getattr(motion, kind), motion.texture)
              for kind in GIVEN_TEXTURE}
    return pd.DataFrame({"map": name, **found} | ({} if enriched is None else {"enrichment": enriched}))
