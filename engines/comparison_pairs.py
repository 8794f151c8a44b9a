"""By how much, and how sure? Differences of methods to random masks of the same seed, pooled over comparisons.

    python -m tats.engines.comparison_pairs run_scripts/results/moving_shapes.csv [MORE.csv ...] [--methods tats adamae]

Prints Markdown: for each number a line a method; a column a mask ratio, and one for all of them together: the mean of
the pairs, its 95 % interval (Student's t), how many pairs are above 0, and how many there are.
"""

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from scipy.stats import t as student

from ..datasets.program import run_program
from .compare_masks.table import BASELINE, FEATURES, TOKENS, pairs, read_csv
from .config.flags import FlagParser

_COLUMNS = FEATURES | {name: (f"single tokens: {words}", digits) for name, (words, digits) in TOKENS.items()}
_TARGET = {"motion": " on motion", "appearance": " on appearance"}


def shown(differences: pd.Series, digits: int = 1) -> str:
    """`+2.4 [-0.5, +5.3], 5 of 6`: mean, its 95 % interval by Student's t, how many are above 0; a dash for none."""
    known = differences.dropna()
    if known.empty:
        return "–"
    mean, half = known.mean(), student.ppf(.975, len(known) - 1) * known.sem()
    between = f" [{mean - half:+.{digits}f}, {mean + half:+.{digits}f}]" if len(known) > 1 else ""
    return f"{mean:+.{digits}f}{between}, {(known > 0).sum()} of {len(known)}"


def report(tables: Sequence[pd.DataFrame], methods: Sequence[str], baseline: str) -> Iterator[str]:
    """The Markdown, see the module's docstring.

    Raises:
        ValueError: there is no pair.
    """
    found = pairs(tables, list(_COLUMNS), baseline)
    if methods:
        found = found[found["method"].isin(methods)]
    measured = [name for name in _COLUMNS if found[name].notna().any()]
    if not measured:
        raise ValueError(f"nothing to pair: no method{' that was asked for' * bool(methods)} has features and the mask "
                         f"ratio and seed of a cell of {baseline}")
    yield (f"Points above {baseline} of the same seed: mean [95 % interval], pairs above 0 of all. Pairs of "
           "one seed share their warm-up and count as independent all the same.")
    for name in measured:
        title, digits = _COLUMNS[name]
        yield f"\n**{title}{_TARGET.get(name.split('_')[-1], '')}**\n"
        own = found.dropna(subset=name)
        cells = own.pivot_table(name, "method", "mask_ratio", partial(shown, digits=digits), sort=False)
        cells = cells.sort_index(axis=1).rename(columns="ρ = {:g}".format).fillna("–")
        if len(cells.columns) > 1:
            cells["all"] = own.groupby("method", sort=False)[name].agg(shown, digits)
        yield cells.to_markdown(disable_numparse=True)


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
