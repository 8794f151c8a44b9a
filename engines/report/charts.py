"""Charts as SVG inside the page, in colours that the page sets: light and dark."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import StringIO

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..figures.style import COLOURS, line_style

INK, GRID = "#010203", "#040506"   # stand for the page's colours until the SVG is written
PAGE_COLOURS = {INK: "currentColor", GRID: "var(--grid)"} | {
    colour: f"var(--run{number})" for number, colour in enumerate(COLOURS)}
STYLE = {"svg.fonttype": "none", "font.size": 9, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK,
         "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False,
         "axes.grid": True, "grid.color": GRID, "axes.facecolor": "none", "figure.facecolor": "none",
         "lines.linewidth": 1.6, "lines.markersize": 4}
MARKED = 12   # markers on a line at most, so that they tell runs apart and hide nothing
LONGEST = 30  # characters of a name on an axis
FAR = 100     # times the median of all values: a larger one would press the others flat, and the axis is logarithmic


def shorten(name: str) -> str:
    """A name that has room on an axis."""
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


@contextmanager
def _figure(name: str, size: tuple[float, float]) -> Iterator[tuple[Figure, StringIO]]:
    """A figure that is written to the buffer as SVG at the end of the block; `name` makes the ids inside it unique."""
    out = StringIO()
    with rc_context(STYLE | {"svg.hashsalt": name}):
        figure = Figure(figsize=size)
        yield figure, out
        figure.savefig(out, format="svg")


def _inline(svg: str, label: str) -> Markup:
    """The SVG as a part of an HTML page."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg"):], flags=re.DOTALL)
    svg = re.sub(r' (id="[a-z0-9.]+_\d+"|xmlns(:\w+)?="[^"]*")', "", svg)
    for colour, variable in PAGE_COLOURS.items():
        svg = svg.replace(colour, variable)
    return Markup(svg).replace(Markup("<svg "), Markup('<svg role="img" aria-label="{}" ').format(label), 1)


def swatch(place: str, number: int) -> Markup:
    """The line of a run, for a legend; `place` on the page makes it unique."""
    with _figure(f"{place} {number}", (0.45, 0.16)) as (figure, out):
        axes = figure.add_axes((0, 0, 1, 1))
        axes.axis("off")
        axes.plot([0, 1, 2], [0, 0, 0], markevery=[1], **line_style(number))
    return _inline(out.getvalue(), f"line of run {number + 1}")


def chart(key: str, name: str, lines: Mapping[int, tuple[str, pd.Series]]) -> Markup:
    """One number over the epochs, a line a run.

    Args:
        key: unique on the page. name: on the axis.
        lines: by the run's number (its colour, dashes and marker): its name, and its values by epoch. Values that are
            not finite leave a gap.
    """
    sizes = np.abs(np.concatenate([values[np.isfinite(values)] for _, values in lines.values()]))
    typical = float(np.median(sizes)) if len(sizes) else 0.0
    with _figure(key, (4, 2.4)) as (figure, out):
        figure.set_layout_engine("constrained")
        label = shorten(name).replace("$", r"\$")   # no formula
        axes = figure.add_subplot(xlabel="epoch", ylabel=label)
        for number, (_, values) in lines.items():
            values = values.where(np.isfinite(values))
            axes.plot(values.index, values, markevery=max(1, -(-len(values) // MARKED)), **line_style(number))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        if typical and sizes.max() > FAR * typical:
            axes.set_yscale("symlog", linthresh=10 ** np.ceil(np.log10(typical)))
            axes.set_ylabel(f"{label}\n(log scale)")
        else:
            axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
            axes.ticklabel_format(axis="y", useOffset=False, scilimits=(-3, 5))
    return _inline(out.getvalue(), f"{name} by epoch; last: " + "; ".join(
        f"{run} {values.iloc[-1]:.4g}" for run, values in lines.values()))
