"""Eleven steps, ten minutes: does this package do on this machine's GPUs what it does on a CPU, and how fast?

    python -m tats.engines.check_gpu                      # one GPU or several
    python -m tats.engines.check_gpu --only 2 9           # some of the steps
    python -m tats.engines.check_gpu --device cpu         # every line of it, at a small size

Each step has a criterion and a time limit, and a process of its own. A table at the end; all numbers in a JSON file.
Exit code 0: all passed; 1: a step failed.
"""

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import torch

from ...datasets.files import json_text, require_writable, write_whole
from ...datasets.program import run_program
from ..config.flags import FlagParser, add_flags, flag, from_args
from ..core.records import commit_of_source
from .kernel import compare_trajectory_kernel
from .machine import look_at_the_machine
from .processes import train_in_several_processes, train_with_zero
from .programs import stop_and_go_on, train_on_moving_shapes
from .speed import look_for_waits, measure_throughput, try_compiling
from .steps import FAILED, SKIPPED, Outcome, Place, Step, run_apart
from .values import compare_patch_embeddings, compare_values

logger = logging.getLogger(__name__)

STEPS = (
    Step(1, "machine", "a product is right, enough cores and /dev/shm", 20, look_at_the_machine),
    Step(2, "values", "fp32 1e-4, bf16 2e-2, fp16 5e-3; noise bit-equal; first ratio 1 +- 1e-6", 60, compare_values),
    Step(3, "patch embedding", "equal to the convolution, and not slower", 30, compare_patch_embeddings),
    Step(4, "throughput", "finite losses, a TATS step within 1.8 tube steps", 180, measure_throughput),
    Step(5, "waits", "no wait in a step, GPU busy over 90 %, fused attention", 40, look_for_waits),
    Step(6, "compile", "same names, same loss", 120, try_compiling),
    Step(7, "moving shapes", "AUROC .9, moving AUROC .85", 180, train_on_moving_shapes),
    Step(8, "stop and go on", "SIGTERM saves, the same command finishes", 80, stop_and_go_on),
    Step(9, "processes", "equal weights in all processes", 60, train_in_several_processes),
    Step(10, "ZeRO", "losses of stages 0 to 3 as without", 80, train_with_zero),
    Step(11, "trajectory kernel", "values as step 2's, against the plain form", 120, compare_trajectory_kernel),
)
SLOW_CPU = 3   # a CPU's time limits, as multiples


@dataclass(frozen=True)
class CheckConfig:
    """What is checked"""

    device: str = flag("cuda", "where; cpu runs every step at a small size", choices=("cuda", "cpu"))
    only: list[int] | None = flag(None, "numbers of the steps to run; None: all", nargs="+", type=int,
                                   within="[1, inf)")
    minutes: float = flag(10.0, "steps that would begin later than this are skipped", within="(0, inf)")
    out: str = flag("check_gpu.json", "JSON file to write")


def chosen_steps(only: Sequence[int] | None, steps: Sequence[Step] = STEPS) -> list[Step]:
    """Raises ValueError: a number that no step has."""
    known = [step.number for step in steps]
    if unknown := [number for number in only or () if number not in known]:
        raise ValueError(f"--only: there is no step {unknown[0]}; the steps are {known[0]} to {known[-1]}")
    return [step for step in steps if only is None or step.number in only]


def check(steps: Sequence[Step], place: Place, minutes: float) -> list[dict]:
    """A row a step: number, step, state, seconds, found, criterion, numbers."""
    end, rows = time.monotonic() + 60 * minutes, []
    for step in steps:
        left = end - time.monotonic()
        outcome, seconds = Outcome(SKIPPED, f"{minutes:g} minutes are over; run it with --only {step.number}"), 0.0
        if left > 0:
            limit = min(step.seconds * (SLOW_CPU if place.small else 1), max(left, 10.0))
            outcome, seconds = run_apart(step, replace(place, limit=limit))
        rows.append({"number": step.number, "step": step.title, "state": outcome.state, "seconds": round(seconds, 1),
                     "found": outcome.found, "criterion": step.criterion, "numbers": outcome.numbers})
        logger.info("%2d %s: %s", step.number, step.title, outcome.state)
    return rows


def table(rows: Sequence[dict]) -> str:
    """The rows, aligned: number, step, state, seconds, what was found."""
    width = max(len(row["step"]) for row in rows)
    return "".join(f"{row['number']:>2}  {row['step']:<{width}}  {row['state']:<7} {row['seconds']:>6.1f} s  "
                   f"{row['found']}\n" for row in rows)


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = FlagParser("check_gpu", description=__doc__.splitlines()[0])
    add_flags(parser, CheckConfig)
    return parser


def main(argv: Sequence[str] | None = None) -> list[dict]:
    """Run the steps, print the table, write the file; the rows.

    Raises:
        ValueError: an unknown step, or no GPU.
    """
    config = from_args(CheckConfig, get_parser().parse_args(argv))
    steps = chosen_steps(config.only)
    # Counted without a CUDA context, which a forked process could not use.
    if config.device == "cuda" and torch.cuda.device_count() == 0:
        raise ValueError("no CUDA device is visible: look at nvidia-smi and CUDA_VISIBLE_DEVICES, and whether the "
                         f"container was started with --gpus all; torch {torch.__version__} was built for CUDA "
                         f"{torch.version.cuda}. --device cpu runs the check without one")
    require_writable(config.out, "--out")
    torch.set_num_threads(1 if config.device == "cpu" else torch.get_num_threads())
    with tempfile.TemporaryDirectory(prefix="tats-check-") as folder:
        device = torch.device("cuda", 0) if config.device == "cuda" else torch.device("cpu")
        rows = check(steps, Place(device, config.device == "cpu", Path(folder)), config.minutes)
    sys.stdout.write(table(rows))
    record = {"date": datetime.now(timezone.utc).isoformat(timespec="seconds"), "commit": commit_of_source(),
              "torch": torch.__version__, "device": config.device, "steps": rows}
    write_whole(config.out, json_text(record, indent=1, default=str) + "\n")
    logger.info("all numbers: %s", config.out)
    return rows


def program() -> None:
    """`main`, with exit code 1 where a step failed."""
    if any(row["state"] == FAILED for row in main()):
        sys.exit(1)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logger.setLevel(logging.INFO)
    run_program(program)
