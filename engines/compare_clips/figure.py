"""The comparison's picture: how many clips each method's features name rightly, with the interval over groups."""

from pathlib import Path

import pandas as pd

from ...datasets.files import naming
from ..figures.style import COLOURS
from .answers import over_groups
from .plan import READINGS, SCRATCH
from .table import Results


def draw_results(results: Results, difference: pd.Series, out: Path) -> None:
    """A panel a reading, a line a method and mask ratio: the mean of the seeds with its 95 % interval, a dot a seed.
    The dashed line is the reading of frame differences. No picture without a cell."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = list(dict.fromkeys((cell.method, cell.mask_ratio) for cell in results.cells))
    if not rows:
        return
    figure = Figure(figsize=(11, 1.4 + .34 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (reading, title) in enumerate(READINGS.items(), 1):
        axes = figure.add_subplot(1, len(READINGS), place, title=title, xlabel="top-1 in %")
        axes.axvline(difference.mean(), color="0.5", linestyle="--", linewidth=1)
        for height, (method, ratio) in enumerate(rows):
            points, colour = results.measured(method, ratio, reading), COLOURS[height % len(COLOURS)]
            if points:
                found = over_groups(pd.concat(points.values(), axis=1).mean(axis=1))
                axes.plot([found.low, found.high], [height, height], color=colour)
                axes.plot([own.mean() for own in points.values()], [height] * len(points), "o", color=colour,
                          markersize=4, alpha=.7)
        names = [method if method == SCRATCH else f"{method}, ρ = {ratio:g}" for method, ratio in rows]
        axes.set_yticks(range(len(rows)), names if place == 1 else [""] * len(rows))
        axes.set_ylim(len(rows) - .5, -.5)
        axes.grid(axis="x", alpha=.3)
    with naming(out):
        figure.savefig(out, dpi=110)
