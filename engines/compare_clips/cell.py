"""One cell of the comparison on real clips: pre-trained, its maps against motion, its features on all folds."""

import pandas as pd
from torch import nn

from ...datasets.files import written_whole
from ..compare_masks import cell as shared
from ..compare_masks.plan import Cell, checkpoint_file, keep, stored
from ..core import checkpointing
from ..runs.pretraining_build import rebuild
from .features import evaluated_clips, measure_features
from .maps import measure_maps
from .plan import SCRATCH, ClipsPlan, answers_file, maps_file
from .token_reading import measure_reading
from .untrained import untrained


def run_cell(task: tuple[ClipsPlan, Cell]) -> dict | str:
    """The numbers of a cell, also written to its result file; the one-line cause if it failed."""
    return shared.run_and_keep(*task, _run)


def _run(plan: ClipsPlan, cell: Cell) -> dict:
    numbers = stored(plan, cell)
    if numbers:   # what lies behind a number may have been deleted
        lost = [name for name in plan.readings if not answers_file(plan, cell, name).is_file()]
        numbers = {name: value for name, value in numbers.items() if name not in lost}
        if not maps_file(plan, cell).is_file():
            numbers |= _look(plan, cell)
        keep(plan, cell, numbers)
    return shared.measured(plan, cell, _trained, measure_features)


def _trained(plan: ClipsPlan, cell: Cell) -> dict:
    """Pre-train, and look at the maps."""
    numbers = cell._asdict() if cell.method == SCRATCH else shared.pretrained(plan, cell)
    return numbers | _look(plan, cell)


def _look(plan: ClipsPlan, cell: Cell) -> dict:
    """See what the policy and the errors look at, and what single tokens know of flow; of a network that has learned
    nothing only the last. The lines go to the cell's `maps_file`, the error under a fixed mask is returned."""
    if cell.method == SCRATCH:
        mae, _ = untrained(plan.pretrain, cell.seed)
        _keep_maps(plan, cell, _reading(plan, mae.eval()))
        return {}
    checkpoint = checkpoint_file(plan, cell)
    mae, _, _ = rebuild(checkpointing.load(checkpoint), sampler_weights=False)
    table = pd.concat([measure_maps(checkpoint, plan.clips, tested_rows(plan)), _reading(plan, mae)])
    _keep_maps(plan, cell, table)
    means = table.drop(columns="row").groupby("map").mean()
    return {"fixed_error": float(means.loc["masks", "fixed_error"])}


def _reading(plan: ClipsPlan, mae: nn.Module) -> pd.DataFrame:
    return measure_reading(mae, plan.clips, evaluated_clips(plan.clips).set_index("row")["fold"], plan.folds)


def _keep_maps(plan: ClipsPlan, cell: Cell, table: pd.DataFrame) -> None:
    clips, file = evaluated_clips(plan.clips).set_index("row"), maps_file(plan, cell)
    file.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(file) as opened:
        table.join(clips[["path", "group"]], on="row").to_csv(opened, index=False)


def tested_rows(plan: ClipsPlan) -> list[int]:
    """Numbers in the manifest of the clips that the part tests."""
    clips = evaluated_clips(plan.clips)
    return clips.loc[clips["fold"].isin(plan.folds), "row"].tolist()
