"""The paper's figure: frames, reconstruction, error, sampling probability and masks of one clip (Figs. 2, 4-15)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Row:
    """One row of a sheet.

    images: (T, H, W, 3) colours in [0, 1], or (T, h, w) values drawn with a colour scale.
    colours: name of a matplotlib colour map, for values. limits: of the colour scale. bar: draw it beside the row.
    """

    title: str
    images: np.ndarray
    colours: str = "viridis"
    limits: tuple[float, float] | None = None
    bar: bool = False


def draw_sheet(rows: list[Row], caption: str, path: str | Path, frames: int = 8) -> None:
    """Write a PNG with one line of pictures per row, `frames` of them spread over the clip."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    total = len(rows[0].images)
    chosen = np.linspace(0, total - 1, min(frames, total)).round().astype(int)
    figure = Figure(figsize=(1.9 + 1.15 * len(chosen) + 0.6, 1.18 * len(rows) + 0.7), dpi=120)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(rows), len(chosen) + 1, width_ratios=[1] * len(chosen) + [0.12], left=0.155,
                               right=0.94, top=1 - 0.42 / figure.get_figheight(),
                               bottom=0.28 / figure.get_figheight(), wspace=0.05, hspace=0.07)
    for line, row in enumerate(rows):
        values = row.images.ndim == 3
        low, high = row.limits or (float(row.images.min()), float(row.images.max()))
        for column, frame in enumerate(chosen):
            axes = figure.add_subplot(grid[line, column])
            picture = axes.imshow(row.images[frame], interpolation="nearest",
                                  **({"cmap": row.colours, "vmin": low, "vmax": high} if values else {}))
            axes.set_xticks([])
            axes.set_yticks([])
            if line == len(rows) - 1:
                axes.set_xlabel(f"frame {frame}", fontsize=7, labelpad=2)
            if column == 0:
                axes.set_ylabel(row.title, rotation=0, ha="right", va="center", fontsize=8, labelpad=6)
        if values and row.bar:
            bar = figure.colorbar(picture, cax=figure.add_subplot(grid[line, len(chosen)]))
            bar.ax.tick_params(labelsize=6, length=2, pad=1)
    figure.suptitle(caption, fontsize=9, y=1 - 0.12 / figure.get_figheight())
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
