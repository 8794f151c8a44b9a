"""Tables of a comparison of masking strategies: means and deviations over seeds, paired differences to random masks."""

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

BASELINE = "random"
MASKS = {"auroc": ("AUROC", 3), "average_precision": ("AP", 3), "moving_auroc": ("moving AUROC", 3),
         "enrichment": ("enrichment", 2), "texture_enrichment": ("texture enrichment", 2),
         "fixed_error": ("error, fixed mask", 3), "moving_error": ("of moving tokens", 3),
         "foreseen": ("of them foreseen", 3), "filled_in": ("filled in", 3),
         "visible_tokens": ("visible", 0)}
FEATURES = {"linear_motion": ("linear", 1), "knn_motion": ("k-NN", 1), "finetune_motion": ("fine-tuned", 1),
            "linear_appearance": ("linear", 1), "knn_appearance": ("k-NN", 1), "finetune_appearance": ("fine-tuned", 1),
            "finetune_few": ("fine-tuned on motion, few labels", 1),
            "finetune_motion_mean": ("fine-tuned on motion, mean of several", 1)}
LEARNING = {"entropy_share": ("entropy share", 3), "clip_fraction": ("clip fraction", 3), "approx_kl": ("KL", 5),
            "value_explained": ("value explains", 2), "motion_correlation": ("corr. with frame difference", 2),
            "pretraining_cpu_seconds": ("pre-training, CPU s", 0), "peak_rss_mib": ("peak MiB", 0)}


_CELL = ("method", "mask_ratio", "seed")


def read_csv(path: Path) -> list[dict]:
    """The cells that `write_csv` wrote; what was not measured is left out.

    Raises:
        ValueError: the file is none of its tables.
    """
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    try:
        return [{"method": row["method"], "mask_ratio": float(row["mask_ratio"]), "seed": int(row["seed"])}
                | {name: float(value) for name, value in row.items() if value and name not in _CELL} for row in rows]
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path} is no moving_shapes.csv of compare_masks: it has no method, mask_ratio and seed, or "
                         "a value that is no number") from None


def summary(cells: Sequence[dict]) -> Iterator[str]:
    """Markdown: for each mask ratio what the masks look at, what the features are worth, how the policy learned."""
    for ratio in sorted({cell["mask_ratio"] for cell in cells}):
        here = [cell for cell in cells if cell["mask_ratio"] == ratio]
        seeds = sorted({cell["seed"] for cell in here})
        yield f"## Mask ratio {ratio:g} ({len(seeds)} seeds)\n"
        yield from table("What the masks look at", _measured(MASKS, here), here)
        if features := _measured(FEATURES, here):
            yield from table("Features, top-1 in %: three columns on motion classes, then three on appearance classes",
                             features, here)
            yield from differences(features, here)
        yield from table("How the policy learned, and its cost", LEARNING, here)


def _measured(columns: dict[str, tuple[str, int]], cells: Sequence[dict]) -> dict[str, tuple[str, int]]:
    return {name: column for name, column in columns.items() if any(name in cell for cell in cells)}


def table(title: str, columns: dict[str, tuple[str, int]], cells: Sequence[dict]) -> Iterator[str]:
    """One table, a line a method: mean ± standard deviation over the seeds."""
    yield f"**{title}**\n"
    yield "| method | " + " | ".join(name for name, _ in columns.values()) + " |"
    yield "|---|" + "---|" * len(columns)
    for method in dict.fromkeys(cell["method"] for cell in cells):
        rows = [cell for cell in cells if cell["method"] == method]
        yield f"| {method} | " + " | ".join(
            spread([row.get(key) for row in rows], digits) for key, (_, digits) in columns.items()) + " |"
    yield ""


class Pair(NamedTuple):
    """A method's number less the baseline's, of the same file, mask ratio and seed."""

    method: str
    mask_ratio: float
    difference: float


def pairs(tables: Sequence[Sequence[dict]], name: str, baseline: str = BASELINE) -> list[Pair]:
    """All pairs that have the number `name`. Cells of different tables are never paired: they may be of different data,
    schedules or machines."""
    found = []
    for cells in tables:
        base = {(cell["mask_ratio"], cell["seed"]): cell for cell in cells if cell["method"] == baseline}
        for cell in cells:
            other = base.get((cell["mask_ratio"], cell["seed"]), {})
            if cell["method"] != baseline and None not in (cell.get(name), other.get(name)):
                found.append(Pair(cell["method"], cell["mask_ratio"], cell[name] - other[name]))
    return found


def differences(columns: dict[str, tuple[str, int]], cells: Sequence[dict]) -> Iterator[str]:
    """The features' table again as differences to random masks of the same seed: mean and its standard error."""
    found = {key: pairs([cells], key) for key in columns}
    methods = dict.fromkeys(pair.method for key in columns for pair in found[key])
    if not methods:
        return
    yield "**Paired differences to random masks, in points: mean ± standard error over seeds**\n"
    yield "| method | " + " | ".join(name for name, _ in columns.values()) + " |"
    yield "|---|" + "---|" * len(columns)
    for method in methods:
        here = ([pair.difference for pair in found[key] if pair.method == method] for key in columns)
        yield f"| {method} | " + " | ".join(map(_difference, here)) + " |"
    yield ""


def agreement(cells: Sequence[dict], earlier: Path) -> Iterator[str]:
    """How many means over seeds lie within one standard deviation of those of an earlier moving_shapes.csv.

    Counted are numbers that can differ: not the number of visible tokens, nor rankings of a policy that is uniform.
    Two runs of three seeds that differ by chance alone agree in this sense in 65 % of their numbers: with t of two
    degrees of freedom, P(|t| < sqrt(3 / 2)).

    Raises:
        ValueError: the file has no number of these cells with two seeds or more.
    """
    before = read_csv(earlier)
    outside, count, same = [], 0, 0
    for method, ratio in dict.fromkeys((cell["method"], cell["mask_ratio"]) for cell in cells):
        theirs = [row for row in before if (row["method"], row["mask_ratio"]) == (method, ratio)]
        ours = [cell for cell in cells if (cell["method"], cell["mask_ratio"]) == (method, ratio)]
        for name in [*MASKS, *FEATURES]:
            old = [row[name] for row in theirs if name in row]
            new = [cell[name] for cell in ours if name in cell]
            if len(old) < 2 or not new or len({*old, *new}) == 1 or name == "visible_tokens":
                continue
            same += old == new
            count += 1
            if abs(mean(new) - mean(old)) > stdev(old) + 1e-9:
                outside.append(f"| {method} | {ratio:g} | {name} | {spread(old, 3)} | {mean(new):.3f} |")
    if not count:
        raise ValueError(f"{earlier} has no numbers of these cells with two seeds or more: nothing to compare")
    yield (f"{count - len(outside)} of {count} means within one standard deviation of {earlier}, {same} of them of the "
           "very same numbers; outside:\n")
    yield "| method | mask ratio | | there | here |"
    yield "|---|---|---|---|---|"
    yield from outside


def spread(values: Sequence[float | None], digits: int) -> str:
    """mean ± standard deviation, a dash where nothing was measured."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    if not known:
        return "–"
    deviation = f" ± {stdev(known):.{digits}f}" if len(known) > 1 else ""
    return f"{mean(known):.{digits}f}{deviation}"


def _difference(values: Sequence[float]) -> str:
    if not values:
        return "–"
    error = f" ± {stdev(values) / math.sqrt(len(values)):.1f}" if len(values) > 1 else ""
    return f"{mean(values):+.1f}{error}"
