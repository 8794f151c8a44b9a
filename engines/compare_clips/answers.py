"""Tables of answers, a clip a line, and what they say with their uncertainty: by groups, since clips of one film are
not independent."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..core.records import write_csv

COLUMNS = {"path": str, "group": str, "fold": int, "label": int, "predicted": int}
DRAWS = 10_000


class Interval(NamedTuple):
    """A mean, its 95 % interval and its standard error by bootstrap over groups. One group says nothing about others:
    then all but the mean is NaN."""

    mean: float
    low: float
    high: float
    error: float


def write_answers(path: Path, clips: pd.DataFrame, predicted: np.ndarray) -> float:
    """Write the answers to `clips` (path, group, fold, label) where there are any (-1: none); how many are right, in
    percent."""
    table = clips.assign(predicted=predicted)
    table = table[table["predicted"] >= 0]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_csv(path, table[list(COLUMNS)].to_dict("records"))
    return 100 * float((table["label"] == table["predicted"]).mean())


def read_answers(path: Path) -> pd.Series:
    """Points for each clip, 100 where it was right, by (path, group)."""
    table = read_table(path, COLUMNS, dtype=COLUMNS)
    return (100. * (table["label"] == table["predicted"])).set_axis(
        pd.MultiIndex.from_frame(table[["path", "group"]]))


def read_table(path: Path, columns: Iterable[str], **options: Any) -> pd.DataFrame:
    """One of our CSV files, which has these columns. options: of `pandas.read_csv`.

    Raises:
        ValueError: it is broken.
    """
    try:
        table = pd.read_csv(path, keep_default_na=False, **options)
        if missing := ", ".join(name for name in columns if name not in table):
            raise ValueError(f"no column {missing}")
    except ValueError as error:
        raise ValueError(f"{path} is broken ({error}): delete it, and it is made again") from None
    return table


def over_groups(values: pd.Series, seed: int = 0, draws: int = DRAWS) -> Interval:
    """Bootstrap of the mean of `values`, whose index has a level `group`: whole groups are drawn, with replacement, as
    many as there are."""
    groups = values.groupby(level="group", sort=True)
    sums, counts = groups.sum().to_numpy(), groups.count().to_numpy()
    if len(sums) < 2:
        return Interval(float(values.mean()), *[math.nan] * 3)
    drawn = np.random.default_rng(seed).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=draws)
    means = drawn @ sums / (drawn @ counts)
    low, high = np.percentile(means, (2.5, 97.5))
    return Interval(float(values.mean()), float(low), float(high), float(means.std()))


def mean_of_seeds(points: Mapping[int, pd.Series]) -> pd.Series:
    """Of each clip."""
    return pd.concat(points.values(), axis=1).mean(axis=1)


def paired(ours: Mapping[int, pd.Series], theirs: Mapping[int, pd.Series]) -> tuple[Interval, np.ndarray] | None:
    """Differences of two methods' points, seed by seed and clip by clip.

    Args:
        ours, theirs: the points by seed; NaN where a clip has none, which leaves it out.

    Returns:
        The interval of the seeds' mean difference over groups; the differences of the seeds that both have, (seeds,).
        None where they have none in common.

    Raises:
        ValueError: the two were not asked about the same clips.
    """
    differences = []
    for seed in sorted(ours.keys() & theirs.keys()):
        own, other = ours[seed], theirs[seed]
        if not own.index.sort_values().equals(other.index.sort_values()):
            raise ValueError("two methods were tested on other clips: nothing to pair")
        differences.append(own - other.reindex(own.index))
    if not differences:
        return None
    mean = pd.concat(differences, axis=1).mean(axis=1).dropna()
    return over_groups(mean), np.array([float(one.mean()) for one in differences])
