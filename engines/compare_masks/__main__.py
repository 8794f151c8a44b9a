"""Compare masking strategies on moving shapes, where the truth about motion is known.

    python -m tats.engines.compare_masks --data data/shapes --out output/compare --pretrain FILE.args \
        --finetune FILE.args [--methods random tats --ratios .9]     (run_scripts/compare_moving_shapes.sh has a pair)

One cell is a method, a mask ratio and a seed; what is measured is not measured again, so a comparison can be stopped
and continued, or asked for more. Writes moving_shapes.csv (all numbers), moving_shapes.png, and summary.md (means over
seeds, differences to random masks).
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from ...datasets.files import write_whole
from ...datasets.program import run_program
from ..config.flags import FlagParser
from ..core.logs import set_up_logging
from ..core.records import write_csv
from .asked import add_training_flags, arguments_of, check_asked, run_all
from .cell import run_cell, warm_up
from .figure import draw_comparison
from .plan import (
    FEW,
    METHODS,
    ONE_RATIO,
    RATIOS,
    SWITCHES,
    Cell,
    Plan,
    default_ratios,
    finished_cells,
    is_finished,
    keep_settings,
    warm_file,
)
from .table import agreement, summary

logger = logging.getLogger(__name__)


def get_parser() -> argparse.ArgumentParser:
    """The program's command line."""
    parser = FlagParser("compare_masks", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder written by tats.datasets.moving_shapes")
    parser.add_argument("--out", type=Path, required=True, help="folder for the cells and the tables")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS | SWITCHES,
                        metavar="METHOD", help=f"some of {', '.join(METHODS | SWITCHES)}")
    parser.add_argument("--ratios", nargs="+", type=float, help=f"mask ratios of every method; not given: "
                        f"{', '.join(f'{ratio:g}' for ratio in RATIOS)}, and {ONE_RATIO[0]:g} alone for frame and for "
                        "the other forms of TATS, tats-...")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="seeds of everything but the data")
    add_training_flags(parser, 12, " on motion")
    parser.add_argument("--masks_only", action="store_true", help="no features: shorter, for the policy's switches")
    parser.add_argument("--tokens", action="store_true", help="read single frozen tokens linearly, also with "
                        "--masks_only: which show a thing, which of these move, of which texture")
    parser.add_argument("--few_labels", action="store_true", help=f"fine-tune on {FEW} labelled clips, too")
    parser.add_argument("--finetunings", type=int, default=1, help="on motion, of each cell's checkpoint: one alone is "
                        "chaotic; their mean is one more column")
    parser.add_argument("--against", type=Path, help="an earlier moving_shapes.csv: say which means differ by more "
                        "than one standard deviation of it")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the cells that are missing, then write the tables of all that are there.

    Raises:
        ValueError: a cell failed; the others have been run and are in the tables.
    """
    args = get_parser().parse_args(argv)
    set_up_logging(True)
    _check(args)
    plan = _plan(args)
    cells = list(dict.fromkeys(Cell(method, ratio, seed) for seed, method in product(args.seeds, args.methods)
                               for ratio in args.ratios or default_ratios(method)))
    plan.out.mkdir(parents=True, exist_ok=True)
    keep_settings(plan)
    missing = [cell for cell in cells if not is_finished(plan, cell)]
    logger.info("%d of %d cells to run, %d at once", len(missing), len(cells), args.jobs)
    cold = [("", f"warm-up {seed}", (plan, seed)) for seed in args.seeds if not warm_file(plan, seed).is_file()]
    failed = run_all(warm_up, cold, args.jobs, "warm-ups")
    failed += run_all(run_cell, [("", cell.name, (plan, cell)) for cell in missing], args.jobs, "cells")
    done = finished_cells(plan)
    if done:
        write_tables(plan, done)
        if args.against:
            sys.stdout.write("\n".join(agreement(done, args.against)) + "\n")
    if failed:
        raise ValueError(f"{len(failed)} run(s) failed; the first: {failed[0]}")


def _check(args: argparse.Namespace) -> None:
    """One line about what could only fail later.

    Raises:
        ValueError: it would.
    """
    if not (args.data / "train.csv").is_file():
        raise ValueError(f"{args.data} holds no moving shapes: python -m tats.datasets.moving_shapes --out {args.data}")
    if args.against and not args.against.is_file():
        raise ValueError(f"--against {args.against}: no such file")
    check_asked(args, {"finetunings": 1})


def _plan(args: argparse.Namespace) -> Plan:
    return Plan(args.data.resolve(), args.out.resolve(), arguments_of(args.pretrain, args.epochs, args.plugin),
                arguments_of(args.finetune, args.finetune_epochs, args.plugin), args.warm_epochs, args.masks_only,
                args.few_labels, args.finetunings, args.tokens)


def write_tables(plan: Plan, cells: Sequence[dict]) -> None:
    """moving_shapes.csv, moving_shapes.png and summary.md from the finished cells; the last on stdout, too."""
    write_csv(plan.out / "moving_shapes.csv", cells)
    draw_comparison(cells, plan.out / "moving_shapes.png")
    text = "\n".join(summary(cells)) + "\n"
    write_whole(plan.out / "summary.md", text)
    sys.stdout.write(text)


if __name__ == "__main__":
    run_program(main)
