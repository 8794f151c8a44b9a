"""One cell of the comparison on real clips: pre-trained, its maps against motion, its features on all folds."""

import time

import pandas as pd

from ...datasets.files import written_whole
from ..compare_masks import cell as shared
from ..compare_masks.plan import Cell, checkpoint_file, stored
from .features import evaluated_clips, measure_features
from .maps import measure_maps
from .plan import SCRATCH, ClipsPlan, maps_file
from .token_reading import measure_reading


def run_cell(task: tuple[ClipsPlan, Cell]) -> dict | str:
    """The numbers of a cell, also written to its result file; the one-line cause if it failed."""
    return shared.run_and_keep(*task, _run)


def _run(plan: ClipsPlan, cell: Cell) -> dict:
    if cell.method == SCRATCH:
        start = time.process_time()
        numbers = cell._asdict() | stored(plan, cell)
        numbers |= measure_features(plan, cell, [name for name in plan.features if name not in numbers])
        return numbers | {"cpu_seconds": round(time.process_time() - start, 1)}
    return shared.measured(plan, cell, _maps, measure_features)


def _maps(plan: ClipsPlan, cell: Cell) -> dict:
    """Pre-train, and see what the policy and the errors look at, and what single tokens know of flow."""
    numbers = shared.pretrained(plan, cell)
    checkpoint, clips = checkpoint_file(plan, cell), evaluated_clips(plan.clips).set_index("row")
    table = pd.concat([measure_maps(checkpoint, plan.clips, tested_rows(plan)),
                       measure_reading(checkpoint, plan.clips, clips["fold"], plan.folds)])
    with written_whole(maps_file(plan, cell)) as file:
        table.join(clips[["path", "group"]], on="row").to_csv(file, index=False)
    means = table.drop(columns="row").groupby("map").mean()
    return numbers | {"fixed_error": float(means.loc["masks", "fixed_error"])}


def tested_rows(plan: ClipsPlan) -> list[int]:
    """Numbers in the manifest of the clips that the part tests."""
    clips = evaluated_clips(plan.clips)
    return clips.loc[clips["fold"].isin(plan.folds), "row"].tolist()
