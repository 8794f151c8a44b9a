"""The comparison's picture: how many clips each method's features name rightly, what single tokens know of flow, and
how far both are from random masks, with the intervals over groups."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ...datasets.files import naming
from ..figures.style import COLOURS
from .answers import Interval, mean_of_seeds, over_groups, paired
from .plan import SCRATCH
from .results import TOKENS, Results
from .table import BASELINE, MEASURED

Row = tuple[str, float]                     # a method and its mask ratio
Line = tuple[Interval, Sequence[float]]     # the interval of the seeds' mean, and the value of each seed


def draw_results(results: Results, difference: pd.Series, out: Path) -> None:
    """A column a reading that was made, a line a method and mask ratio: the mean of the seeds with its 95 % interval, a
    dot a seed; below, where there are such cells, the same of the paired differences to random masks at that ratio. The
    dashed lines are the reading of frame differences, which names clips, and no difference. No picture of no cell."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = results.methods
    found = {reading: {row: results.measured(*row, reading) for row in rows} for reading in MEASURED}
    found = {reading: own for reading, own in found.items() if any(own.values())}
    if not found:
        return
    compared = [row for row in rows if row[0] not in (SCRATCH, BASELINE) and (BASELINE, row[1]) in rows]
    height = 1.4 + .6 * bool(compared) + .34 * len(rows + compared)
    figure = Figure(figsize=(2 + 3 * len(found), height), layout="constrained")
    FigureCanvasAgg(figure)
    heights = [len(part) for part in (rows, compared) if part]
    grid = figure.add_gridspec(len(heights), len(found), height_ratios=heights)
    colours = {row: COLOURS[place % len(COLOURS)] for place, row in enumerate(rows)}
    for column, (reading, own) in enumerate(found.items()):
        axes = figure.add_subplot(grid[0, column], title=MEASURED[reading],
                                  xlabel="rank correlation x 100" if reading == TOKENS else "top-1 in %")
        if reading != TOKENS:
            axes.axvline(difference.mean(), color="0.5", linestyle="--", linewidth=1)
        _draw_lines(axes, {row: _mean(own[row]) for row in rows}, colours, column == 0)
        if compared:
            axes = figure.add_subplot(grid[1, column], xlabel="less random masks")
            axes.axvline(0, color="0.5", linestyle="--", linewidth=1)
            _draw_lines(axes, {row: paired(own[row], own[BASELINE, row[1]]) for row in compared}, colours,
                        column == 0)
    with naming(out):
        figure.savefig(out, dpi=110)


def _mean(own: dict[int, pd.Series]) -> Line | None:
    if not own:
        return None
    return over_groups(mean_of_seeds(own)), [float(points.mean()) for points in own.values()]


def _draw_lines(axes, lines: dict[Row, Line | None], colours: dict[Row, str], named: bool) -> None:
    for height, (row, line) in enumerate(lines.items()):
        if line is not None:
            interval, seeds = line
            axes.plot([interval.low, interval.high], [height, height], color=colours[row])
            axes.plot(seeds, np.full(len(seeds), height), "o", color=colours[row], markersize=4, alpha=.7)
    names = [method if method == SCRATCH else f"{method}, ρ = {ratio:g}" for method, ratio in lines]
    axes.set_yticks(range(len(lines)), names if named else [""] * len(lines))
    axes.set_ylim(len(lines) - .5, -.5)
    axes.grid(axis="x", alpha=.3)
