"""Tables of a comparison on real clips: accuracies of all tested clips, pooled, and differences with their intervals.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ...datasets.files import read_json
from ..compare_masks.plan import METHODS as MASKINGS
from ..compare_masks.plan import SWITCHES, Cell, cells_in, result_file
from .answers import Interval, mean_of_seeds, over_groups, paired, read_answers, read_table
from .plan import READINGS, SCRATCH, ClipsPlan, answers_file, maps_file

BASELINE = "random"
ORDER = [SCRATCH, *MASKINGS, *SWITCHES]
COST = {"pretraining_cpu_seconds": "pre-training, CPU s", "cpu_seconds": "all, CPU s", "peak_rss_mib": "peak MiB"}
LEARNING = {"entropy_share": ("entropy share", 3), "value_explained": ("value explains", 2),
            "motion_correlation": ("corr. with frame difference", 2), "visible_tokens": ("visible", 0)}
MAPS = {"flow": "flow", "own_flow": "own flow", "difference": "difference", "texture": "texture",
        "flow_given_texture": "flow \\| texture", "own_flow_given_texture": "own flow \\| texture",
        "enrichment": "enrichment"}
TOKENS = "tokens"   # 100 times the rank correlation with flow of what single tokens say of it
TINY = 1e-9   # an error below that: all groups agree, and how far others would differ is not known
MEASURED = {**READINGS, TOKENS: "flow, from tokens"}
POWER = 2.8   # standard errors: an effect of that size is found, at 5 %, four times in five


def _maps_of(file: Path) -> pd.DataFrame:
    return read_table(file, ("map", "path", "group"), dtype={"path": str, "group": str}, na_values=[""])


class Results:
    """All that the parts of a comparison hold.

    Attributes:
        cells: those of all parts, in order.
        numbers: what was logged of each cell, the mean over its parts; of the time the sum. None where a part has no
            cell yet: fewer folds are another measurement.
        clips: how many clips are tested in all parts together.
    """

    def __init__(self, plans: Sequence[ClipsPlan], clips: int):
        self.plans, self.clips = plans, clips
        found = dict.fromkeys(cell for plan in plans for cell in cells_in(plan, ORDER))
        self.cells = sorted(found, key=lambda cell: (cell.mask_ratio, ORDER.index(cell.method), cell.seed))
        self.numbers = {cell: self._numbers(cell) for cell in self.cells}

    def _numbers(self, cell: Cell) -> dict[str, float]:
        files = [result_file(plan, cell) for plan in self.plans]
        if not all(file.is_file() for file in files):
            return {}
        frame = pd.DataFrame(map(read_json, files)).drop(columns=list(Cell._fields))
        frame = frame.apply(pd.to_numeric, errors="coerce")
        spent = frame.filter(regex="cpu_seconds$").sum(skipna=False)   # --strict costs one pre-training a fold
        return frame.mean().drop(spent.index).dropna().to_dict() | spent.dropna().to_dict()

    def points(self, cell: Cell, reading: str) -> pd.Series | None:
        """100 for each clip whose class was found, else 0; or TOKENS; None where a part has not asked yet."""
        if reading == TOKENS:
            return self._flow_in_tokens(cell)
        files = [answers_file(plan, cell, reading) for plan in self.plans]
        if not all(file.is_file() for file in files):
            return None
        points = pd.concat([read_answers(file) for file in files])
        self._must_be_all(points.index, files)
        return points

    def _flow_in_tokens(self, cell: Cell) -> pd.Series | None:
        lines = self.maps(cell)
        lines = lines[lines["map"] == "features"]
        return 100 * lines.set_index(["path", "group"])["flow"] if len(lines) and lines["flow"].notna().any() else None

    def maps(self, cell: Cell) -> pd.DataFrame:
        """The lines of `measure_maps`, with path and group. None where a part has none yet."""
        files = [maps_file(plan, cell) for plan in self.plans]
        if not all(file.is_file() for file in files):
            return pd.DataFrame(columns=["map"])
        lines = pd.concat([_maps_of(file) for file in files])
        for _, own in lines.groupby("map"):
            self._must_be_all(own["path"], files)
        return lines

    def _must_be_all(self, found: Sequence, files: Sequence[Path]) -> None:
        """Raises ValueError: files that were cut, or are of other clips. Their mean would stand under a wrong name."""
        if len(found) != self.clips or pd.Index(found).has_duplicates:
            raise ValueError(f"{', '.join(map(str, files))}: answers for {len(found)} of {self.clips} clips, each "
                             f"wanted once: delete {'it, and it is' if len(files) == 1 else 'them, and they are'} made "
                             "again")

    def measured(self, method: str, ratio: float, reading: str) -> dict[int, pd.Series]:
        """Points of each seed."""
        found = {cell.seed: self.points(cell, reading) for cell in self.cells
                 if (cell.method, cell.mask_ratio) == (method, ratio)}
        return {seed: points for seed, points in found.items() if points is not None}

    def rows(self) -> Iterator[dict]:
        """One a cell: accuracies, rank correlations and enrichment of its maps, what was logged."""
        for cell in self.cells:
            row = {**cell._asdict(), "clips": self.clips}
            for reading in READINGS:
                points = self.points(cell, reading)
                row[reading] = None if points is None else round(float(points.mean()), 3)
            for name, lines in self.maps(cell).groupby("map", sort=False):
                means = lines.drop(columns=["map", "row", "path", "group"], errors="ignore").mean().dropna()
                row |= {f"{name}_{kind}": round(float(value), 4) for kind, value in means.items()}
            yield row | {name: self.numbers[cell].get(name) for name in (*LEARNING, *COST)}


def summary(results: Results, difference: pd.Series, plain: pd.DataFrame) -> Iterator[str]:
    """Markdown: accuracies, paired differences, what the maps rank, how the policies learned and what it cost.

    Args:
        difference: points of the frame-difference reading. plain: means and errors of rankings without a model.
    """
    yield from _accuracies(results, difference)
    yield from _differences(results)
    yield from _maps(results, plain)
    yield from _learning(results)


def _markdown(title: str, rows: Sequence[dict]) -> Iterator[str]:
    if rows:
        yield f"**{title}**\n"
        table = pd.DataFrame(rows).astype(object)
        yield table.where(table.notna(), "–").to_markdown(index=False, disable_numparse=True)
        yield ""


def _accuracies(results: Results, difference: pd.Series) -> Iterator[str]:
    rows = [{"method": "frame difference, linear", "ρ": "–", "seeds": "–", "linear": _with_interval(difference)}]
    for method, ratio in dict.fromkeys((cell.method, cell.mask_ratio) for cell in results.cells):
        row = {"method": method, "ρ": _ratio(method, ratio), "seeds": 0}
        for reading, name in READINGS.items():
            points = results.measured(method, ratio, reading)
            if points:
                row["seeds"] = max(row["seeds"], len(points))
                row[name] = _with_interval(mean_of_seeds(points))
        rows.append(row)
    columns = ["method", "ρ", "seeds", *READINGS.values()]
    groups = difference.index.get_level_values("group").nunique()
    title = (f"Top-1 in % of {results.clips} clips of {groups} groups, every one tested in a fold that has none of its "
             "group: mean of the seeds [95 % interval, bootstrap over groups]")
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
    for method, ratio in dict.fromkeys((cell.method, cell.mask_ratio) for cell in results.cells):
        for reading, name in MEASURED.items():
            for other, at in (((BASELINE, ratio),) if method not in (BASELINE, SCRATCH) else
                              ((SCRATCH, 0.),) if method == BASELINE else ()):
                own, base = results.measured(method, ratio, reading), results.measured(other, at, reading)
                seeds = sorted(set(own) & set(base))
                if seeds:
                    rows.append({"method": method, "ρ": f"{ratio:g}", "less": other, "reading": name,
                                 **_difference([own[seed] for seed in seeds], [base[seed] for seed in seeds])})
    yield from _markdown("Paired differences in points (of flow: .01 of the rank correlation), seed by seed and clip "
                         "by clip; would miss: an effect below that is missed more often than one time in five", rows)


def _difference(own: Sequence[pd.Series], base: Sequence[pd.Series]) -> dict[str, str]:
    interval, seeds = paired(own, base)
    error = float(np.std(seeds, ddof=1) / len(seeds) ** .5) if len(seeds) > 1 else None
    return {"difference": _bracketed(interval, "+.1f"),
            "error over seeds": "–" if error is None else f"{error:.1f}", "seeds": str(len(seeds)),
            "would miss": _or_none(POWER * interval.error if interval.error > TINY else math.nan, ".1f")}


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
    for method, ratio in dict.fromkeys((cell.method, cell.mask_ratio) for cell in results.cells):
        own = pd.DataFrame([numbers for cell, numbers in results.numbers.items()
                            if (cell.method, cell.mask_ratio) == (method, ratio)])
        means = own.mean()
        digits = LEARNING | {name: (title, 0) for name, title in COST.items()} | {"fixed_error": (
            "error, fixed mask", 3)}
        rows.append({"method": method, "ρ": _ratio(method, ratio),
                     **{title: f"{means[name]:.{number}f}" for name, (title, number) in digits.items()
                        if pd.notna(means.get(name))}})
    yield from _markdown("How the policies learned, and the cost", rows)
