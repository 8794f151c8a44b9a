"""Compare masking strategies on real clips with labels: frozen and fine-tuned accuracies, and what the masks look at.

    python -m tats.engines.compare_clips CLIPS --out output/real_clips --pretrain FILE.args --finetune FILE.args \
        [--methods random tats --ratios .9]          (run_scripts/compare_real_clips.sh has a pair, and the sizes)

CLIPS holds manifest.csv with the columns path, label, group, fold. Every labelled clip is tested in its own fold, by
classifiers that saw no clip of its group. Pre-training sees all clips, without labels; with --strict it leaves out the
fold that is tested. One cell is a method, a mask ratio and a seed; what is measured is not measured again. Writes
real_clips.csv (a line a cell), real_clips.png and summary.md; with --strict below strict/
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from ...datasets.files import write_whole
from ...datasets.program import run_program
from ..compare_masks.asked import add_training_flags, arguments_of, check_asked, run_all
from ..compare_masks.cell import warm_up
from ..compare_masks.plan import METHODS as MASKINGS
from ..compare_masks.plan import SWITCHES, Cell, keep_settings, warm_file
from ..config.flags import FlagParser
from ..core.logs import set_up_logging
from ..core.records import write_csv
from .answers import read_answers
from .cell import run_cell
from .features import evaluated_clips, measure_difference
from .figure import draw_results
from .manifest import Manifest, read_manifest
from .maps import plain_maps
from .plan import METHODS, RATIOS, READINGS, SCRATCH, ClipsPlan, is_finished
from .prepare import ClipSize, prepare
from .results import Results
from .table import summary
from .truth import Geometry, geometry_of, write_truth
from .untrained import check_cells, untrained

logger = logging.getLogger(__name__)

SEEN = "Pre-training saw all clips, those of the tested fold too, without their labels."
STRICT = "Pre-training never saw the clips of the fold that is tested, nor others of their groups."


def get_parser() -> argparse.ArgumentParser:
    """The program's command line."""
    parser, size = FlagParser("compare_clips", description=__doc__.splitlines()[0]), ClipSize()
    parser.add_argument("clips", type=Path, help="folder with manifest.csv: path, label, group, fold")
    parser.add_argument("--out", type=Path, required=True, help="folder for the prepared clips, the cells, the tables")
    parser.add_argument("--set", help="folder below CLIPS whose labels are learned, where several have labels of "
                        "their own; none: that of the manifest's first line. All clips are pre-trained on")
    parser.add_argument("--methods", nargs="+", default=[SCRATCH, *METHODS], choices=(SCRATCH, *MASKINGS, *SWITCHES),
                        metavar="METHOD", help=f"some of {', '.join((SCRATCH, *MASKINGS, *SWITCHES))}; {SCRATCH}: "
                        "without pre-training, an untrained network's features and one that is fine-tuned alone")
    parser.add_argument("--ratios", nargs="+", type=float, default=list(RATIOS), help="mask ratios of every method")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="seeds of everything but the clips")
    parser.add_argument("--readings", nargs="+", default=list(READINGS), choices=list(READINGS), metavar="READING",
                        help=f"what features are asked for, some of {', '.join(READINGS)}")
    parser.add_argument("--strict", action="store_true", help="pre-train once for each fold, without its clips: "
                        "as many times the work as there are folds")
    parser.add_argument("--folds", nargs="+", type=int, help="with --strict: only these")
    add_training_flags(parser, 160)
    parser.add_argument("--fps", type=float, default=size.fps, help="frames a second at which the clips are sampled, "
                        "whatever their own rate")
    parser.add_argument("--short_side", type=int, default=size.short_side, help="of the prepared clips, in pixels")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the cells that are missing, then write the tables of all that are there.

    Raises:
        ValueError: a cell failed; the others have been run and are in the tables.
    """
    args = get_parser().parse_args(argv)
    set_up_logging(True)
    _check(args)
    manifest = read_manifest(args.clips, args.set)
    plans = plans_of(args, manifest)
    mae, _ = untrained(plans[0].pretrain)
    geometry = geometry_of(mae)
    if args.short_side < geometry.size:
        raise ValueError(f"--short_side {args.short_side} is less than the {geometry.size} pixels that the model sees: "
                         "its clips would be enlarged again")
    check_cells(plans[0].pretrain, cells_of(args), mae)
    logger.info("tested: %d clips of %s in %d folds; pre-trained on: %d", len(manifest.tested),
                manifest.name or args.clips, len(manifest.folds), len(manifest.rows))
    prepare(manifest, plans[0].clips, ClipSize(args.fps, args.short_side), args.jobs)
    write_truth(manifest, plans[0].clips, geometry, args.fps)
    for plan in plans:
        plan.out.mkdir(parents=True, exist_ok=True)
        keep_settings(plan)
    failed = run(plans, cells_of(args), args.jobs)
    write_tables(args, plans, geometry)
    if failed:
        raise ValueError(f"{len(failed)} run(s) failed; the first: {failed[0]}")


def _check(args: argparse.Namespace) -> None:
    """Raises ValueError: one line about what could only fail later."""
    check_asked(args, {"short_side": 16})
    if not 0 < args.fps < 1000:
        raise ValueError(f"--fps must lie between 0 and 1000, got {args.fps:g}")
    if args.folds and not args.strict:
        raise ValueError("--folds picks folds of --strict; without it one pre-training serves all folds")


def plans_of(args: argparse.Namespace, manifest: Manifest) -> list[ClipsPlan]:
    """One part, or with --strict one for each fold.

    Raises:
        ValueError: a fold that does not exist.
    """
    unknown = sorted(set(args.folds or ()) - set(manifest.folds))
    if unknown:
        raise ValueError(f"--folds: there is no fold {unknown[0]}, only {', '.join(map(str, manifest.folds))}")
    out, parts = args.out.resolve(), {"all": tuple(manifest.folds)}
    if args.strict:
        parts = {f"without-fold{fold}": (fold,) for fold in args.folds or manifest.folds}
    trusted = ("--decode_timeout", "0")   # the videos are our own
    pretrain = arguments_of(args.pretrain, args.epochs, args.plugin, *trusted)
    finetune = arguments_of(args.finetune, args.finetune_epochs, args.plugin, *trusted)
    return [ClipsPlan(out / "data" / part, out / part, pretrain, finetune, args.warm_epochs, folds,
                      tuple(args.readings)) for part, folds in parts.items()]


def cells_of(args: argparse.Namespace) -> list[Cell]:
    """What is asked for, seed by seed; no pre-training has no mask ratio."""
    return list(dict.fromkeys(Cell(method, 0. if method == SCRATCH else ratio, seed) for seed, method, ratio in
                              product(args.seeds, args.methods, args.ratios)))


def run(plans: Sequence[ClipsPlan], cells: Sequence[Cell], jobs: int) -> list[str]:
    """Run what is missing, seed by seed; why what failed."""
    missing = [(plan, cell) for cell in cells for plan in plans if not is_finished(plan, cell)]
    logger.info("%d of %d cells to run, %d at once", len(missing), len(cells) * len(plans), jobs)
    failed: list[str] = []
    for seed in dict.fromkeys(cell.seed for _, cell in missing):
        own = [task for task in missing if task[1].seed == seed]
        started = {plan.out: plan for plan, cell in own if cell.method != SCRATCH}
        cold = [(f"{plan.out.name}, ", f"warm-up of seed {seed}", (plan, seed)) for plan in started.values()
                if not warm_file(plan, seed).is_file()]
        failed += run_all(warm_up, cold, jobs, "warm-ups")
        named = [(f"{plan.out.name}, ", cell.name, (plan, cell)) for plan, cell in own]
        failed += run_all(run_cell, named, jobs, "cells")
    return failed


def write_tables(args: argparse.Namespace, plans: Sequence[ClipsPlan], geometry: Geometry) -> None:
    """real_clips.csv, real_clips.png and summary.md from the finished cells; the last on stdout, too."""
    folds, data = tuple(fold for plan in plans for fold in plan.folds), plans[0].clips
    clips = evaluated_clips(data)
    out = args.out / ("strict" if args.strict else "")
    measure_difference(data, folds, out / "frame_difference.csv")
    results = Results(plans, int(clips["fold"].isin(folds).sum()))
    plain = plain_maps(data, geometry).join(clips.set_index("row")[["path", "group", "fold"]], on="row")
    plain = plain[plain["fold"].isin(folds)].drop(columns=["row", "fold"]).set_index(["path", "group"])
    difference = read_answers(out / "frame_difference.csv")
    text = "\n".join([STRICT if args.strict else SEEN, "", *summary(results, difference, plain)]) + "\n"
    write_csv(out / "real_clips.csv", list(results.rows()))
    draw_results(results, difference, out / "real_clips.png")
    write_whole(out / "summary.md", text)
    sys.stdout.write(text)


if __name__ == "__main__":
    run_program(main)
