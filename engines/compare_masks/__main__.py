"""Compare masking strategies on moving shapes, where the truth about motion is known.

    python -m tats.engines.compare_masks --data data/shapes --out output/compare --pretrain FILE.args \
        --finetune FILE.args [--methods random tats --ratios .9]     (run_scripts/compare_moving_shapes.sh has a pair)

One cell is a method, a mask ratio and a seed; what is measured is not measured again, so a comparison can be stopped
and continued, or asked for more. Writes moving_shapes.csv (all numbers), moving_shapes.png, and summary.md (means over
seeds, differences to random masks).
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from ...datasets.processes.cores import usable_cores
from ...datasets.processes.parallel import WorkerDied, for_each
from ...datasets.program import run_program
from ...datasets.video.decode import keep_videos
from ..config.flags import FlagParser
from ..core.logs import set_up_logging
from ..core.records import write_csv
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
    parser.add_argument("--pretrain", type=Path, required=True, help="file with arguments for run_mae_pretraining")
    parser.add_argument("--finetune", type=Path, required=True, help="file with arguments for run_class_finetuning")
    parser.add_argument("--epochs", type=int, help="of pre-training, instead of what --pretrain says")
    parser.add_argument("--warm_epochs", type=int, default=12,
                        help="of random masks at a ratio of .75 before, once a seed")
    parser.add_argument("--finetune_epochs", type=int, help="of fine-tuning on motion, instead of what --finetune says")
    parser.add_argument("--masks_only", action="store_true", help="no features: shorter, for the policy's switches")
    parser.add_argument("--few_labels", action="store_true", help=f"fine-tune on {FEW} labelled clips, too")
    parser.add_argument("--finetunings", type=int, default=1, help="on motion, of each cell's checkpoint: one alone is "
                        "chaotic; their mean is one more column")
    parser.add_argument("--against", type=Path, help="an earlier moving_shapes.csv: say which means differ by more "
                        "than one standard deviation of it")
    parser.add_argument("--jobs", type=int, default=usable_cores(), help="cells at once, one CPU thread each; on a "
                        "GPU they share it")
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
    os.environ["OMP_NUM_THREADS"] = "1"   # for the processes that are started now
    cold = [seed for seed in args.seeds if not warm_file(plan, seed).is_file()]
    failed = []
    for function, items, title in ((warm_up, cold, "warm-ups"), (run_cell, missing, "cells")):
        for place, result in for_each(function, [(plan, item) for item in items], args.jobs, title, "run"):
            if isinstance(result, (str, WorkerDied)):
                failed.append(result if isinstance(result, str) else f"{items[place]}: {result}")
                logger.warning("%s", failed[-1])
            else:
                logger.info("%s: done", items[place].name if function is run_cell else f"warm-up {items[place]}")
    keep_videos(0)   # with --jobs 0 the cells ran in this process
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
    for name in ("against", "pretrain", "finetune"):
        path = getattr(args, name)
        if path and not path.is_file():
            raise ValueError(f"--{name} {path}: no such file")
    for name, least in (("warm_epochs", 1), ("finetunings", 1), ("jobs", 0), ("epochs", 1), ("finetune_epochs", 1)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise ValueError(f"--{name} must be at least {least}, got {value}")
    bad = [ratio for ratio in args.ratios or () if not 0 < ratio < 1]
    if bad:
        raise ValueError(f"--ratios must lie between 0 and 1, got {bad[0]:g}")
    if min(args.seeds) < 0:
        raise ValueError(f"--seeds must not be negative, got {min(args.seeds)}")


def _plan(args: argparse.Namespace) -> Plan:
    common = ["--num_workers", "0"]   # a core has its own cell

    def arguments(file: Path, epochs: int | None) -> list[str]:
        return [f"@{file.resolve()}", *([] if epochs is None else ["--epochs", str(epochs)]), *common]

    return Plan(args.data.resolve(), args.out.resolve(), arguments(args.pretrain, args.epochs),
                arguments(args.finetune, args.finetune_epochs), args.warm_epochs, args.masks_only, args.few_labels,
                args.finetunings)


def write_tables(plan: Plan, cells: Sequence[dict]) -> None:
    """moving_shapes.csv, moving_shapes.png and summary.md from the finished cells; the last on stdout, too."""
    write_csv(plan.out / "moving_shapes.csv", cells)
    draw_comparison(cells, plan.out / "moving_shapes.png")
    text = "\n".join(summary(cells)) + "\n"
    (plan.out / "summary.md").write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    run_program(main)
