"""The page: runs, last numbers and alerts on top, then a chart of every number under the question that it answers."""

import base64
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import NamedTuple

import pandas as pd
from jinja2 import Environment, StrictUndefined

from ..core.metrics import METRICS, Metric, find_metric, questions, without_prefix
from ..figures.style import COLOURS, ON_DARK
from .charts import chart, swatch
from .runs import Run

OTHERS = "Others"
SHORT = 3         # numbers of each question in the short table
NOT_DRAWN = ("epoch", "step")


class Group(NamedTuple):
    """A question and its numbers, in the table's order: (name on the page, what the table says, (values of a run by
    epoch, None where it has none) a run)."""

    question: str
    numbers: list[tuple[str, Metric | None, list[pd.Series | None]]]


def groups(runs: Sequence[Run]) -> list[Group]:
    """Every number of any run, by question; numbers that the table does not know come last. The loss of a
    fine-tuning is another number than that of a pre-training."""
    found: dict[tuple, list] = {}
    for place, run in enumerate(runs):
        for name, values in run.numbers.items():
            if name not in NOT_DRAWN:
                metric = find_metric(name, run.fine_tuning)
                shown = name.removeprefix("train_") if metric else name
                key = (metric.question if metric else OTHERS, shown)
                found.setdefault(key, [metric, [None] * len(runs)])[1][place] = values
    order = {(metric.question, metric.name): place for place, metric in enumerate(METRICS)}
    keys = sorted(found, key=lambda key: (order.get((key[0], without_prefix(key[1])), len(order)), key[1]))
    return [Group(question, [(key[1], *found[key]) for key in keys if key[0] == question])
            for question in dict.fromkeys([*questions(), OTHERS]) if any(key[0] == question for key in keys)]


def differing(runs: Sequence[Run]) -> list[tuple[list[Run], list[tuple[str, list]]]]:
    """(runs, (flag, its values)) of those flags in which the runs of one kind differ."""
    tables = []
    for kind in (False, True):
        same = [run for run in runs if run.fine_tuning is kind and run.settings]
        flags = dict.fromkeys(name for run in same for name in run.settings)
        rows = [(name, [run.settings.get(name, "–") for run in same]) for name in flags
                if len({str(run.settings.get(name)) for run in same}) > 1]
        if rows:
            tables.append((same, rows))
    return tables


def _drawn(group: Group, runs: Sequence[Run]) -> Iterator[tuple[str, Metric | None, str]]:
    for name, metric, values in group.numbers:
        lines = {place: (run.name, own.dropna()) for place, (run, own) in enumerate(zip(runs, values, strict=True))
                 if own is not None and own.notna().any()}
        if lines:
            yield name, metric, chart(f"{group.question} {name}", name, lines)


def shown(value: object) -> str:
    """A number to four places, a series by its last value, of which epoch where that is not the last one, a dash for
    nothing."""
    if isinstance(value, pd.Series):
        known = value.dropna()
        behind = f" (epoch {known.index[-1]})" if len(known) and known.index[-1] != value.index[-1] else ""
        return shown(float(known.iloc[-1]) if len(known) else None) + behind
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def page(runs: Sequence[Run]) -> str:
    """The whole page, without anything that is not in it."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["shown"] = shown
    template = environment.from_string(files(__package__).joinpath("page.html.j2").read_text(encoding="utf-8"))
    found = groups(runs)
    pictures = [(run, [(path.stem, base64.b64encode(path.read_bytes()).decode()) for path in run.pictures])
                for run in runs if run.pictures]
    return template.render(runs=runs, groups=found, short=SHORT, differing=differing(runs), pictures=pictures,
                           charts=[(group.question, list(_drawn(group, runs))) for group in found],
                           swatch=swatch,
                           colours=list(zip(COLOURS, ON_DARK, strict=True)))
