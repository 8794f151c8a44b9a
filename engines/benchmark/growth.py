"""How a step's time and memory grow: with frames, size, depth of the policy and landmarks."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...datasets.files import naming
from ..figures.style import COLOURS
from .steps import OurStep, StepSize
from .timing import saved_mib, summary, take_turns

AXES = {"frames": (8, 16, 32, 64), "size": (112, 160, 224, 320, 448), "tats_depth": (1, 2, 3),
        "num_landmarks": (32, 64, 128, 256)}
OF_TATS = {"tats_depth": (), "num_landmarks": ("--tats_approx", "orthoformer")}   # axes that only TATS has
MEASURED = {"processor_seconds": "processor s a step", "saved_mib": "saved for backward, MiB"}


def growth(methods: Sequence[str], size: StepSize, pairs: int) -> list[dict]:
    """Rows {axis, value, tokens, name, seconds, processor_seconds, saved_mib}, then one {axis, name, exponent_...} for
    each curve: the slope of the logarithms over the number of tokens (over the value for the axes of TATS)."""
    rows = []
    for axis, values in AXES.items():
        for value in values:
            for name in ("tats",) if axis in OF_TATS else methods:
                rows.append(_point(axis, value, name, size, pairs))
    return rows + [row for axis in AXES for row in _exponents(axis, [row for row in rows if row["axis"] == axis])]


def _point(axis: str, value: int, name: str, size: StepSize, pairs: int) -> dict:
    extra = ()
    if axis in OF_TATS:
        extra = (*OF_TATS[axis], f"--{axis}", str(value))
    else:
        size = replace(size, **{axis: value})
    step = OurStep(name, size, extra)
    row, = summary(take_turns({name: step}, pairs, 1, size.device))
    row["saved_mib"] = saved_mib(step, [*step.parameters(), *step.batch])
    return {"axis": axis, "value": value, "tokens": step.batch[1].shape[1]} | row


def _exponents(axis: str, rows: Sequence[dict]) -> list[dict]:
    found = []
    for name in dict.fromkeys(row["name"] for row in rows):
        own = [row for row in rows if row["name"] == name]
        over = np.log([row["value" if axis in OF_TATS else "tokens"] for row in own])
        found.append({"axis": axis, "name": name} | {
            f"exponent_{measured}": float(np.polyfit(over, np.log([row[measured] for row in own]), 1)[0])
            for measured in MEASURED})
    return found


def draw_growth(rows: Sequence[dict], out: Path) -> None:
    """Two panels a measurement: over the tokens (more frames, larger frames), over depth and landmarks."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    slopes = {(row["axis"], row["name"]): row for row in rows if "exponent_saved_mib" in row}
    points = [row for row in rows if "tokens" in row]
    for line, (measured, title) in enumerate(MEASURED.items()):
        for column, axes_of in enumerate((("frames", "size"), ("tats_depth",), ("num_landmarks",))):
            plot = figure.add_subplot(2, 3, 3 * line + column + 1, ylabel=title if column == 0 else "")
            for number, (axis, name) in enumerate(key for key in slopes if key[0] in axes_of):
                own = [row for row in points if (row["axis"], row["name"]) == (axis, name)]
                place = "value" if axis in OF_TATS else "tokens"
                plot.plot([row[place] for row in own], [row[measured] for row in own], "o-",
                          color=COLOURS[number % len(COLOURS)],
                          label=f"{name}, {axis}: exponent {slopes[axis, name][f'exponent_{measured}']:.2f}")
                plot.set_xticks([row[place] for row in own], [str(row[place]) for row in own])
            if column == 0:
                plot.set_xscale("log", base=2)
                ticks = sorted({row["tokens"] for row in points if row["axis"] == "frames"})
                plot.set_xticks(ticks, [str(tick) for tick in ticks])
                plot.set_yscale("log", base=2)
                plot.minorticks_off()
            plot.set_xlabel("tokens N" if column == 0 else axes_of[0])
            if plot.lines:
                plot.legend(fontsize=8, frameon=False)
            plot.grid(alpha=.3)
    with naming(out):
        figure.savefig(out, dpi=110)
