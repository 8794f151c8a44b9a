"""What both comparisons are asked in the same way, and how they run what is missing."""

import argparse
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...datasets.processes.cores import usable_cores
from ...datasets.processes.parallel import WorkerDied, for_each
from ...datasets.video.decode import keep_videos
from ..config.common import parser_of
from ..config.pretraining import DEAD_FLAGS, PRETRAINING

logger = logging.getLogger(__name__)


def add_training_flags(parser: argparse.ArgumentParser, warm_epochs: int, fine_tuned: str = "") -> None:
    """The flags of pre-training, fine-tuning and jobs.

    Args:
        warm_epochs: the default. fine_tuned: what is fine-tuned on, for the help.
    """
    parser.add_argument("--pretrain", type=Path, required=True, help="file with arguments for run_mae_pretraining")
    parser.add_argument("--finetune", type=Path, required=True, help="file with arguments for run_class_finetuning")
    parser.add_argument("--epochs", type=int, help="of pre-training, instead of what --pretrain says")
    parser.add_argument("--warm_epochs", type=int, default=warm_epochs,
                        help="of random masks at a ratio of .75 before, once a seed")
    parser.add_argument("--finetune_epochs", type=int, help=f"of fine-tuning{fine_tuned}, instead of what --finetune "
                        "says")
    parser.add_argument("--jobs", type=int, default=usable_cores(), help="cells at once, one CPU thread each; on a GPU "
                        "they share it")


def check_asked(args: argparse.Namespace, least: Mapping[str, int]) -> None:
    """One line about what could only fail later.

    Args:
        least: further counts, by name.

    Raises:
        ValueError: it would.
    """
    for name in ("pretrain", "finetune"):
        if not getattr(args, name).is_file():
            raise ValueError(f"--{name} {getattr(args, name)}: no such file")
    for name, lowest in ({"warm_epochs": 1, "jobs": 0, "epochs": 1, "finetune_epochs": 1} | dict(least)).items():
        value = getattr(args, name)
        if value is not None and value < lowest:
            raise ValueError(f"--{name} must be at least {lowest}, got {value}")
    parser = parser_of("run_mae_pretraining", "A run.", PRETRAINING, DEAD_FLAGS)
    if parser.parse_known_args([f"@{args.pretrain}"])[0].num_visible:   # all ratios would train alike
        raise ValueError(f"--pretrain {args.pretrain} must not say --num_visible: the cells are told their mask ratio")
    bad = [ratio for ratio in args.ratios or () if not 0 < ratio < 1]
    if bad:
        raise ValueError(f"--ratios must lie between 0 and 1, got {bad[0]:g}")
    long = [ratio for ratio in args.ratios or () if float(f"{ratio:g}") != ratio]
    if long:   # two such ratios would share a folder
        raise ValueError(f"--ratios {long[0]!r} cannot name a cell: at most six digits")
    if min(args.seeds) < 0:
        raise ValueError(f"--seeds must not be negative, got {min(args.seeds)}")


def arguments_of(file: Path, epochs: int | None, plugins: Sequence[str] | None, *more: str) -> list[str]:
    """The command line of a program: its settings file, epochs where they are asked for, plugins, which the process of
    a cell has not imported yet, and `more`. A core has its own cell, so the loader takes no further ones."""
    imported = [word for name in plugins or () for word in ("--plugin", name)]
    return [f"@{file.resolve()}", *([] if epochs is None else ["--epochs", str(epochs)]), "--num_workers", "0",
            *imported, *more]


def run_all(function: Callable, tasks: Sequence[tuple[str, str, Any]], jobs: int, title: str) -> list[str]:
    """`function(task)` of each task, several at once; why what failed.

    Args:
        function: returns None, or in one line which cell failed and why. tasks: (what the log says before, name, task).
    """
    os.environ["OMP_NUM_THREADS"] = "1"   # for the processes that are started now
    failed: list[str] = []
    try:
        for place, result in for_each(function, [task for *_, task in tasks], jobs, title, "run"):
            before, name, _ = tasks[place]
            if isinstance(result, (str, WorkerDied)):
                failed.append(before + (result if isinstance(result, str) else f"{name}: {result}"))
                logger.warning("%s", failed[-1])
            else:
                logger.info("%s%s: done", before, name)
    finally:
        keep_videos(0)   # with jobs 0 they ran in this process, and kept what they decoded
    return failed
