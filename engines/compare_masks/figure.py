"""The comparison's picture: what the masks look at and what the features are worth, by mask ratio and method."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from ..figures.style import COLOURS

PANELS = {
    "moving_auroc": "moving AUROC (.5: knows no motion)", "enrichment": "enrichment of moving tokens (1: random)",
    "texture_enrichment": "enrichment of textured, still tokens", "fixed_error": "error under fixed random masks",
    "linear_motion": "linear probe, motion, top-1 in %", "finetune_motion": "fine-tuned, motion, top-1 in %"}


def draw_comparison(cells: Sequence[dict], out: Path) -> None:
    """A panel for each of PANELS that was measured; a dot is a seed, a line joins the means of a method."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = {name: title for name, title in PANELS.items() if any(cell.get(name) is not None for cell in cells)}
    methods = list(dict.fromkeys(cell["method"] for cell in cells))
    ratios = sorted({cell["mask_ratio"] for cell in cells})
    figure = Figure(figsize=(11, 3.4 * -(-len(panels) // 3)), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (name, title) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(-(-len(panels) // 3), 3, place, title=title)
        axes.title.set_fontsize(10)
        for number, method in enumerate(methods):
            here = [cell for cell in cells if cell["method"] == method and cell.get(name) is not None]
            colour, shift = COLOURS[number % len(COLOURS)], .14 * (number - (len(methods) - 1) / 2) / len(methods) * 4
            places = [ratios.index(cell["mask_ratio"]) + shift for cell in here]
            axes.plot(places, [cell[name] for cell in here], "o", color=colour, markersize=4, alpha=.7)
            seen = [ratio for ratio in ratios if any(cell["mask_ratio"] == ratio for cell in here)]
            axes.plot([ratios.index(ratio) + shift for ratio in seen],
                      [mean(cell[name] for cell in here if cell["mask_ratio"] == ratio) for ratio in seen],
                      "-" if len(seen) > 1 else "_", color=colour, label=method if place == 1 else None)
        axes.set_xticks(range(len(ratios)), [f"ρ = {ratio:g}" for ratio in ratios])
        axes.grid(axis="y", alpha=.3)
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    figure.savefig(out, dpi=110)
