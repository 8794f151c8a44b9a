"""The answers of a fine-tuned network: for each video its most probable classes.

    python -m tats.engines.predict checkpoint-99.pth holiday.mp4 clips/ --out answers
    python -m tats.engines.predict checkpoint-99.pth unlabelled.csv --out answers

Writes predictions.csv, predictions.json and predictions.png (the first videos with frames) into --out. A video is
seen as in the test of run_class_finetuning: the same views, averaged by the same code. Where a list has labels the
accuracy is printed.
"""

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from ..datasets.files import require_writable
from ..datasets.inputs import videos_named
from ..datasets.labelled import TestViews, Views
from ..datasets.lists.class_names import agreed_names, read_class_names
from ..datasets.lists.list_file import ClipList
from ..datasets.program import run_program
from ..datasets.sources.kept_arrays import keep_indexes
from ..datasets.sources.kept_files import keep_remote_files
from .config.flags import FlagParser, add_flags, from_args
from .core import runtime
from .core.logs import set_up_logging
from .figures.answers import draw_answers
from .finetune.answers import answers, write_json, write_predictions
from .finetune.evaluation import RowTable, accuracies
from .machine.threads import use_threads
from .runs.evaluator import Evaluator
from .runs.prediction import PredictConfig, Predictor, load_predictor
from .training.learner import Learner

logger = logging.getLogger(__name__)

_SHOWN = 20    # videos whose answers are printed
_FRAMES = 5    # of a video in the sheet


def get_parser() -> FlagParser:
    """The program's command line."""
    parser = FlagParser("predict", description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", help="a fine-tuned network: ours, or VideoMAE's with --model")
    parser.add_argument("videos", nargs="+", help="videos, folders of videos, or a list file (labels are optional)")
    add_flags(parser, PredictConfig)
    return parser


def main(argv: Sequence[str] | None = None) -> list[dict]:
    """Entry point; bad input ends with one line and exit code 2, and so do videos of which none can be read.

    Returns what is in predictions.json.
    """
    args = get_parser().parse_args(sys.argv[1:] if argv is None else list(argv))
    config = from_args(PredictConfig, args)
    keep_remote_files(config.cache_dir, config.cache_gb)
    not_kept = keep_indexes(config.index_cache)
    where = runtime.start(config.device, config.dist_url)
    set_up_logging(where.is_main)
    if not_kept:
        logger.warning("%s", not_kept)
    clips, predictor = videos_named(args.videos), load_predictor(args.checkpoint, config)
    if where.is_main:
        require_writable(Path(config.out) / "predictions.csv", "--out", args.videos)
    use_threads({predictor.net: predictor.net.patch_embed.num_patches}, config.batch_size, config.num_workers,
                where.device.type)
    if config.ignore_labels:
        clips = replace(clips, labels=np.full(len(clips), -1))
    names = class_names(predictor, clips, () if config.ignore_labels else args.videos)
    evaluator = Evaluator(predictor.settings, predictor.task, {"test": clips}, predictor.size, where)
    learner = Learner(predictor.net.to(where.device), precision=runtime.choose_precision(config.amp, where.device))
    table = evaluator.scores(learner)
    found = list(answers(table, clips.paths, names, config.top_k))
    if (Path(config.out) / "predictions.csv").exists():   # answers of before are worth more than none
        table.must_hold_something(clips.source)
    if where.is_main:
        write_answers(Path(config.out), found, config)
        logger.info("the answers are in %s", Path(config.out) / "predictions.csv")
        if config.sheet:
            draw_sheet(Path(config.out) / "predictions.png", found[:config.sheet], clips, predictor)
        report(table, found)
    runtime.stop(where)
    table.must_hold_something(clips.source)
    return found


def class_names(predictor: Predictor, clips: ClipList, inputs: Sequence[str]) -> list[str] | None:
    """The names of the classes: the checkpoint's, else those in classes.txt beside a list.

    Raises:
        ValueError: the list's labels mean other classes than the network's.
    """
    classes, largest = predictor.task.classes, int(clips.labels.max(initial=-1))
    if largest < 0 and predictor.class_names is not None:   # without labels nothing depends on a list's numbering
        return predictor.class_names
    advice = "--ignore_labels answers without accuracy"
    if largest >= classes:
        raise ValueError(f"label {largest} in {clips.source}, but the checkpoint has {classes} classes (0 to "
                         f"{classes - 1}); {advice}")
    names = predictor.class_names
    for folder in {Path(name).parent for name in inputs if Path(name).is_file()}:
        try:
            names = agreed_names(read_class_names(folder, classes), names, str(folder))
        except ValueError as error:
            raise ValueError(f"{error}; {advice}") from None
    return names


def write_answers(folder: Path, found: list[dict], config: PredictConfig) -> None:
    """predictions.csv and predictions.json. What an earlier run left goes, its picture included."""
    if (folder / "predictions.csv").exists():
        logger.info("the answers of an earlier run in %s are replaced", folder)
    (folder / "predictions.png").unlink(missing_ok=True)
    most = max((len(row["top"]) for row in found), default=0)
    write_predictions(folder / "predictions.csv", found, min(config.top_k, most) or 1)
    write_json(folder / "predictions.json", found)


def draw_sheet(path: Path, found: Sequence[dict], clips: ClipList, predictor: Predictor) -> None:
    """predictions.png: frames of the middle view, as the network sees them."""
    views = Views(1, 1, predictor.size, predictor.views.short_side)
    dataset = TestViews(clips, predictor.task.sampling, views, predictor.settings.data.decoding)
    draw_answers(found, [None if row["note"] else _frames(dataset[place].videos[0])
                         for place, row in enumerate(found)], path)


def _frames(clip: Tensor) -> np.ndarray:
    """uint8 (3, T, S, S) -> uint8 (F, S, S, 3), spread over the clip."""
    chosen = np.linspace(0, clip.shape[1] - 1, min(_FRAMES, clip.shape[1])).round().astype(int)
    return clip[:, chosen].permute(1, 2, 3, 0).numpy()


def report(table: RowTable, found: Sequence[dict]) -> None:
    """The answers of the first videos, every video that cannot be read, and the accuracy where there are labels."""
    for row in found[:_SHOWN]:
        if row["top"]:
            logger.info("%s: %s", row["path"], ", ".join(f"{one['name']} {100 * one['probability']:.1f} %"
                                                         for one in row["top"]))
    for fault in table.faults.values():
        logger.warning("no answer: %s", fault)
    judged = labelled_rows(table)
    if len(judged.labels):
        result = accuracies(judged)
        logger.info("accuracy: top-1 %.2f, top-5 %.2f on %d labelled videos; %d of them cannot be read and count as "
                    "wrong", result["top1"], result["top5"], result["num_expected"], len(judged.faults))


def labelled_rows(table: RowTable) -> RowTable:
    """The rows that have a label, as a table of their own."""
    rows = (table.labels >= 0).nonzero().flatten()
    faults = {place: table.faults[row] for place, row in enumerate(rows.tolist()) if row in table.faults}
    return RowTable(table.values[rows], table.labels[rows], faults)


if __name__ == "__main__":
    run_program(main)
