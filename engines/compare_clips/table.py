"""Tables of a comparison on real clips: accuracies of all tested clips, pooled, and differences with their intervals.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from .answers import Interval, mean_of_seeds, over_groups, paired
from .plan import READINGS, SCRATCH
from .results import COST, LEARNING, TOKENS, Results

BASELINE = "random"
MAPS = {"flow": "flow", "own_flow": "own flow", "difference": "difference", "texture": "texture",
        "flow_given_texture": "flow \\| texture", "own_flow_given_texture": "own flow \\| texture",
        "enrichment": "enrichment"}
TINY = 1e-9   # an error below that: all groups agree, and how far others would differ is not known
MEASURED = {**READINGS, TOKENS: "flow, from tokens"}
RIVALS = {"error": "error map", "error_around": "error map, averaged over neighbours",   # of π, in the same cell
          "lasting": "error at half the ratio", "lasting_around": "error at half the ratio, averaged over neighbours",
          "places": "mean π of all clips"}
POWER = 2.8   # standard errors: an effect of that size is found, at 5 %, four times in five


def summary(results: Results, difference: pd.Series, plain: pd.DataFrame) -> Iterator[str]:
    """Markdown: accuracies, paired differences, what the maps rank, by how much π differs from the error maps, how the
    policies learned and what it cost.

    Args:
        difference: points of the frame-difference reading. plain: means and errors of rankings without a model.
    """
    yield from _accuracies(results, difference)
    yield from _differences(results)
    yield from _maps(results, plain)
    yield from _policies(results)
    yield from _learning(results)


def _markdown(title: str, rows: Sequence[dict]) -> Iterator[str]:
    if rows:
        yield f"**{title}**\n"
        table = pd.DataFrame(rows).astype(object)
        yield table.where(table.notna(), "–").to_markdown(index=False, disable_numparse=True)
        yield ""


def _accuracies(results: Results, difference: pd.Series) -> Iterator[str]:
    rows = [{"method": "frame difference, linear", "ρ": "–", "seeds": "–", "linear": _with_interval(difference)}]
    for method, ratio in results.methods:
        found = {name: points for reading, name in READINGS.items()
                 if (points := results.measured(method, ratio, reading))}
        seeds = max(map(len, found.values()), default=0)
        rows.append({"method": method, "ρ": _ratio(method, ratio), "seeds": seeds} | {
            name: _with_interval(mean_of_seeds(points)) + f" ({len(points)})" * (len(points) < seeds)
            for name, points in found.items()})
    columns = ["method", "ρ", "seeds", *READINGS.values()]
    groups = difference.index.get_level_values("group").nunique()
    title = (f"Top-1 in % of {results.clips} clips of {groups} groups, every one tested in a fold that has none of its "
             "group: mean of the seeds [95 % interval, bootstrap over groups]; (n): of n seeds")
    yield from _markdown(title, pd.DataFrame(rows).reindex(columns=columns).to_dict("records"))


def _ratio(method: str, ratio: float) -> str:
    return f"{ratio:g}" if method != SCRATCH else "–"


def _with_interval(points: pd.Series) -> str:
    return _bracketed(over_groups(points), ".1f")


def _bracketed(found: Interval, digits: str) -> str:
    limits = f"{found.low:{digits}}, {found.high:{digits}}" if found.error == found.error else "one group"
    return f"{found.mean:{digits}} [{limits}]"


def _differences(results: Results) -> Iterator[str]:
    rows = []
    for method, ratio in results.methods:
        for reading, name in MEASURED.items():
            for other, at in (((BASELINE, ratio),) if method not in (BASELINE, SCRATCH) else
                              ((SCRATCH, 0.),) if method == BASELINE else ()):
                found = paired(results.measured(method, ratio, reading), results.measured(other, at, reading))
                if found:
                    rows.append({"method": method, "ρ": f"{ratio:g}", "less": other, "reading": name,
                                 **_difference(*found)})
    yield from _markdown("Paired differences in points (of flow: .01 of the rank correlation), seed by seed and clip "
                         "by clip; would miss: an effect below that is missed more often than one time in five", rows)


def _difference(interval: Interval, seeds: np.ndarray) -> dict[str, str]:
    error = float(np.std(seeds, ddof=1) / len(seeds) ** .5) if len(seeds) > 1 else None
    return {"difference": _bracketed(interval, "+.1f"),
            "error over seeds": "–" if error is None else f"{error:.1f}", "seeds": str(len(seeds)),
            "would miss": _or_none(POWER * interval.error if interval.error > TINY else math.nan, ".1f")}


def _policies(results: Results) -> Iterator[str]:
    rows = []
    for method, ratio in results.methods:
        own = results.measured(method, ratio, "policy")
        for rival, name in RIVALS.items():
            found = paired(own, results.measured(method, ratio, rival))
            if found:
                rows.append({"π of": method, "ρ": f"{ratio:g}", "less": name, **_difference(*found)})
    yield from _markdown("Rank correlation of π with flow less that of other maps of the same model, in .01: paired "
                         "differences, as above", rows)


def _or_none(value: float, digits: str) -> str:
    return f"{value:{digits}}" if value == value else "–"


def _maps(results: Results, plain: pd.DataFrame) -> Iterator[str]:
    rows = [{"ranking": name, "ρ": "–", "seeds": "–", **_map_row(lines)} for name, lines in plain.groupby("map",
                                                                                                          sort=False)]
    found = [results.maps(cell).assign(method=cell.method, mask_ratio=cell.mask_ratio, seed=cell.seed)
             for cell in results.cells]
    lines = pd.concat(found) if found else pd.DataFrame(columns=["map", "method", "mask_ratio", "seed"])
    for (name, method, ratio), own in lines.groupby(["map", "method", "mask_ratio"], sort=False):
        means = own.drop(columns=["map", "method", "mask_ratio", "seed", "row"]).groupby(["path", "group"]).mean()
        rows.append({"ranking": f"{method}: {name}", "ρ": _ratio(method, ratio), "seeds": str(own["seed"].nunique()),
                     **_map_row(means)})
    yield from _markdown("Spearman's rank correlation with motion and texture, token by token, and the most moving "
                         "tenth's share among the visible tokens over chance: means ± standard error over groups; "
                         "(-n): without n clips in which it is not defined, as where nothing moves", rows)


def _map_row(lines: pd.DataFrame) -> dict[str, str]:
    """Means over clips and their error by bootstrap over groups; lines: indexed by path and group."""
    row = {}
    for kind, title in MAPS.items():
        values = lines[kind].dropna() if kind in lines else pd.Series(dtype=float)
        if len(values):
            found = over_groups(values, draws=1000)
            left_out = f" (-{len(lines) - len(values)})" if len(values) < len(lines) else ""
            row[title] = f"{found.mean:.2f} ± {_or_none(found.error, '.2f')}{left_out}"
    return row


def _learning(results: Results) -> Iterator[str]:
    rows = []
    for method, ratio in results.methods:
        own = pd.DataFrame([numbers for cell, numbers in results.numbers.items()
                            if (cell.method, cell.mask_ratio) == (method, ratio)])
        means = own.mean()
        digits = LEARNING | {name: (title, 0) for name, title in COST.items()} | {"fixed_error": (
            "error, fixed mask", 3)}
        rows.append({"method": method, "ρ": _ratio(method, ratio),
                     **{title: f"{means[name]:.{number}f}" for name, (title, number) in digits.items()
                        if pd.notna(means.get(name))}})
    yield from _markdown("How the policies learned, and the cost", rows)
