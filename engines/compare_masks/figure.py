"""The comparison's picture: what the masks look at and what the features are worth, by mask ratio and method."""

from collections.abc import Sequence
from pathlib import Path

from ...datasets.files import naming
from ..figures.style import COLOURS
from .table import as_frame

PANELS = {
    "moving_auroc": "moving AUROC (.5: knows no motion)", "enrichment": "enrichment of moving tokens (1: random)",
    "texture_enrichment": "enrichment of textured, still tokens", "fixed_error": "error under fixed random masks",
    "linear_motion": "linear probe, motion, top-1 in %", "finetune_motion": "fine-tuned, motion, top-1 in %"}


def draw_comparison(cells: Sequence[dict], out: Path) -> None:
    """A panel for each of PANELS that was measured; a dot is a seed, a line joins the means of a method."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    cells = as_frame(cells)
    panels = {name: title for name, title in PANELS.items() if name in cells and cells[name].notna().any()}
    methods, ratios = cells["method"].unique(), sorted(cells["mask_ratio"].unique())
    figure = Figure(figsize=(11, 3.4 * -(-len(panels) // 3)), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (name, title) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(-(-len(panels) // 3), 3, place, title=title)
        axes.title.set_fontsize(10)
        for number, method in enumerate(methods):
            own = cells[cells["method"] == method].dropna(subset=name).set_index("mask_ratio")[name]
            means = own.groupby(level=0).mean()
            colour, shift = COLOURS[number % len(COLOURS)], .56 * (number - (len(methods) - 1) / 2) / len(methods)
            axes.plot(own.index.map(ratios.index) + shift, own, "o", color=colour, markersize=4, alpha=.7)
            axes.plot(means.index.map(ratios.index) + shift, means, "-" if len(means) > 1 else "_", color=colour,
                      label=method if place == 1 else None)
        axes.set_xticks(range(len(ratios)), [f"ρ = {ratio:g}" for ratio in ratios])
        axes.grid(axis="y", alpha=.3)
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    with naming(out):
        figure.savefig(out, dpi=110)
