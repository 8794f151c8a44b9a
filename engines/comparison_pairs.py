"""By how much, and how sure? Differences of methods to random masks of the same seed, pooled over comparisons.

    python -m tats.engines.comparison_pairs run_scripts/results/moving_shapes.csv [MORE.csv ...] [--methods tats adamae]

Prints Markdown: for each number a line a method; a column a mask ratio, and one for all of them together: the mean of
the pairs, its 95 % interval (Student's t), how many pairs are above 0, and how many there are.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev

from scipy.stats import t as student

from ..datasets.program import run_program
from .compare_masks.table import BASELINE, FEATURES, pairs, read_csv
from .config.flags import FlagParser

_TARGET = {"motion": " on motion", "appearance": " on appearance"}


def interval(differences: Sequence[float]) -> tuple[float, float] | None:
    """Ends of the 95 % interval of the mean by Student's t; None for a single difference."""
    if len(differences) < 2:
        return None
    half = student.ppf(.975, len(differences) - 1) * stdev(differences) / len(differences) ** .5
    return mean(differences) - half, mean(differences) + half


def shown(differences: Sequence[float]) -> str:
    """`+2.4 [-0.5, +5.3], 5 of 6`: mean, interval, how many are above 0; a dash for none."""
    if not differences:
        return "–"
    ends = interval(differences)
    between = f" [{ends[0]:+.1f}, {ends[1]:+.1f}]" if ends else ""
    return f"{mean(differences):+.1f}{between}, {sum(value > 0 for value in differences)} of {len(differences)}"


def report(tables: Sequence[Sequence[dict]], methods: Sequence[str], baseline: str) -> Iterator[str]:
    """The Markdown, see the module's docstring.

    Raises:
        ValueError: there is no pair.
    """
    found = {name: [pair for pair in pairs(tables, name, baseline) if not methods or pair.method in methods]
             for name in FEATURES}
    measured = {name: some for name, some in found.items() if some}
    if not measured:
        raise ValueError(f"nothing to pair: no method{' that was asked for' * bool(methods)} has features and the mask "
                         f"ratio and seed of a cell of {baseline}")
    yield (f"Points of top-1 above {baseline} of the same seed: mean [95 % interval], pairs above 0 of all. Pairs of "
           "one seed share their warm-up and count as independent all the same.")
    for name, found in measured.items():
        title = FEATURES[name][0]
        ratios = sorted({pair.mask_ratio for pair in found})
        yield f"\n**{title}{_TARGET.get(name.split('_')[-1], '')}**\n"
        columns = [f"ρ = {ratio:g}" for ratio in ratios] + ["all"] * (len(ratios) > 1)
        yield f"| method | {' | '.join(columns)} |"
        yield "|---|" + "---|" * len(columns)
        for method in dict.fromkeys(pair.method for pair in found):
            here = [pair for pair in found if pair.method == method]
            groups = [[pair.difference for pair in here if pair.mask_ratio == ratio] for ratio in ratios]
            if len(ratios) > 1:
                groups.append([pair.difference for pair in here])
            yield f"| {method} | " + " | ".join(map(shown, groups)) + " |"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the differences."""
    parser = FlagParser("comparison_pairs", description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="+", type=Path, help="moving_shapes.csv of one or more comparisons")
    parser.add_argument("--methods", nargs="+", default=[], help="only these; all if not given")
    parser.add_argument("--baseline", default=BASELINE, help="what the others are compared with")
    args = parser.parse_args(argv)
    sys.stdout.write("\n".join(report([read_csv(path) for path in args.tables], args.methods, args.baseline)) + "\n")


if __name__ == "__main__":
    run_program(main)
