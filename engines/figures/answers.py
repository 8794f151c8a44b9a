"""Pictures of answers: videos beside their most probable classes, and the confusion matrix."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from ...datasets.files import naming
from ...datasets.lists.class_names import named
from .style import COLOURS
from .text import any_script, printable, shortened

MOST_CLASSES = 400   # in the picture of the confusion matrix; the CSV has no bound
_NAMED_CLASSES = 60  # more names than these do not fit along an axis


def draw_answers(rows: Sequence[dict], clips: Sequence[np.ndarray | None], path: str | Path) -> None:
    """A PNG with a line for each video: frames, and bars of its most probable classes.

    Args:
        rows: from `finetune.answers.answers`. clips: uint8 (F, H, W, 3) for each, None where it cannot be read.
    """
    frames = max((len(clip) for clip in clips if clip is not None), default=1)
    most = max((len(row["top"]) for row in rows), default=1)
    width, line = 1.3 * frames + 5.2, max(1.25, .3 + .2 * most)
    height = (line + .3) * len(rows) + .1
    figure = _figure(width, height)
    grid = figure.add_gridspec(len(rows), frames + 1, left=.1 / width, right=1 - .6 / width, top=1 - .3 / height,
                               bottom=.1 / height, wspace=.05, hspace=.3 / line, width_ratios=[1.3] * frames + [4.5])
    for place, (row, clip) in enumerate(zip(rows, clips, strict=True)):
        for frame in range(frames):
            axes = figure.add_subplot(grid[place, frame])
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(color="#bbbbbb", linewidth=.5)   # a white picture is one, too
            if clip is not None and frame < len(clip):
                axes.imshow(clip[frame], interpolation="nearest")
            else:
                axes.set_axis_off()
        first = figure.axes[place * (frames + 1)]
        _write(first, 0, 1.04, shortened(row["path"], int(13 * frames)), ha="left", va="bottom", fontsize=7)
        _draw_bars(figure.add_subplot(grid[place, frames]), row)
    _save(figure, path)


def _draw_bars(axes, row: dict) -> None:
    if not row["top"]:
        axes.set_axis_off()
        _write(axes, .35, .5, "\n".join(textwrap.wrap(printable(f"cannot be read: {row['note']}"), 44)[:5]),
               ha="left", va="center", fontsize=7, color="#8b0000")
        return
    shares = [one["probability"] for one in row["top"]]
    right = [one["class"] == row["label"] for one in row["top"]]
    colours = [COLOURS[2] if hit else COLOURS[0] for hit in right]
    axes.barh(range(len(shares)), shares, color=colours, height=.7, left=0)
    axes.set_xlim(-.9, 1.12)
    axes.set_ylim(len(shares) - .4, -.6)
    axes.set_axis_off()
    for place, one in enumerate(row["top"]):
        axes.text(-.02, place, shortened(one["name"], 38, end=True), ha="right", va="center", fontsize=7,
                  parse_math=False)
        axes.text(one["probability"] + .02, place, f"{100 * one['probability']:.1f} %", ha="left", va="center",
                  fontsize=7)
    if row["label"] is not None:
        title = "label: " + shortened(row["label_name"], 40, end=True)
        _write(axes, .45, 1.04, title, ha="left", va="bottom", fontsize=7,
               color=COLOURS[2] if row["correct"] else COLOURS[1])


def draw_confusion(matrix: Tensor, names: Sequence[str] | None, path: str | Path) -> bool:
    """A PNG of the confusion matrix (C, C + 1) from `finetune.answers.confusion`, each line as shares of its class.

    Returns False, and draws nothing, with more than MOST_CLASSES classes.
    """
    classes = len(matrix)
    if classes > MOST_CLASSES:
        return False
    counts = matrix.double().numpy()
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)
    if not counts[:, -1].any():
        shares = shares[:, :-1]
    labels = [shortened(named(label, names), 28, end=True) for label in range(classes)]
    is_named = classes <= _NAMED_CLASSES
    margin = .4 + (.06 * max(map(len, labels)) if is_named else .3)
    side = min(10., max(2.6, .22 * classes))
    width, height = margin + side + 1., margin + side + .5
    figure = _figure(width, height)
    axes = figure.add_axes((margin / width, margin / height, side / width, side / height))
    colours = _colour_map()
    picture = axes.imshow(shares, cmap=colours, vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    step = 1 if is_named else -(-classes // 20)
    ticks = list(range(0, classes, step))
    texts = [labels[tick] if is_named else str(tick) for tick in ticks]
    axes.set_yticks(ticks, texts, fontsize=6, parse_math=False)
    if shares.shape[1] > classes:
        ticks, texts = [*ticks, classes], [*texts, "unreadable"]
    axes.set_xticks(ticks, texts, fontsize=6, rotation=90, parse_math=False)
    axes.set_xlabel("predicted", fontsize=8)
    axes.set_ylabel("true class", fontsize=8)
    axes.set_title("share of the videos of each true class (grey: no video)", fontsize=8)
    if classes <= 12:
        _write_counts(axes, matrix, shares)
    bar = figure.colorbar(picture, cax=axes.inset_axes((1.03, 0, .03, 1)))
    bar.ax.tick_params(labelsize=6)
    _save(figure, path)
    return True


def _write_counts(axes, matrix: Tensor, shares: np.ndarray) -> None:
    for line, column in np.ndindex(*shares.shape):
        if matrix[line, column]:
            axes.text(column, line, str(int(matrix[line, column])), ha="center", va="center", fontsize=6,
                      color="white" if shares[line, column] > .5 else "black")


def _colour_map():
    from matplotlib import colormaps

    return colormaps["Blues"].with_extremes(bad="0.87")


def _figure(width: float, height: float):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120)
    FigureCanvasAgg(figure)
    return figure


def _save(figure, path: str | Path) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with naming(path), any_script():
        figure.savefig(path)


def _write(axes, x: float, y: float, text: str, **style) -> None:
    """Text at a place of the axes, whose dollar signs are dollar signs."""
    axes.text(x, y, text, transform=axes.transAxes, parse_math=False, **style)
