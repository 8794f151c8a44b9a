"""What a step of the check is: a title, a criterion, a time limit; each runs in a process of its own."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

PASSED, FAILED, SKIPPED = "passed", "FAILED", "skipped"


@dataclass(frozen=True)
class Place:
    """Where the check runs. small: sizes for a CPU. folder: for files. limit: seconds that a step may take."""

    device: torch.device
    small: bool
    folder: Path
    limit: float = 60.0


@dataclass
class Outcome:
    """What a step found. state: PASSED, FAILED or SKIPPED. found: one line. numbers: all that it measured."""

    state: str
    found: str
    numbers: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """number: from 1. criterion: when it has passed. seconds: its time limit on a GPU. run: raises where it cannot."""

    number: int
    title: str
    criterion: str
    seconds: float
    run: Callable[[Place], Outcome]


def verdict(faults: list[str], fine: str, numbers: dict | None = None) -> Outcome:
    """FAILED with the faults, or PASSED with `fine`."""
    return Outcome(FAILED if faults else PASSED, "; ".join(faults) or fine, numbers or {})


def run_apart(step: Step, place: Place) -> tuple[Outcome, float]:
    """(outcome, seconds) of a step in a forked process, with all its children ended when its time is up.

    Apart, so that an error that breaks the GPU's context, or a collective that hangs, ends its own step alone. The
    process that forks must not have touched the GPU.
    """
    answer = place.folder / f"step-{step.number}.json"
    answer.unlink(missing_ok=True)
    process = multiprocessing.get_context("fork").Process(target=_answer, args=(step, place, answer))
    start = time.monotonic()
    process.start()
    process.join(place.limit)
    late = process.is_alive()
    _end_group(process.pid)
    process.join()
    seconds = time.monotonic() - start
    if late:
        return Outcome(FAILED, f"not ready after {place.limit:.0f} s"), seconds
    if not answer.is_file():
        return Outcome(FAILED, f"the process ended with {process.exitcode} and said nothing"), seconds
    return Outcome(**json.loads(answer.read_text())), seconds


def _end_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)   # the step's own children; the step leads their group
    except (ProcessLookupError, PermissionError):
        pass


def _answer(step: Step, place: Place, answer: Path) -> None:
    os.setsid()
    outcome = outcome_of(step, place)
    unfinished = answer.with_suffix(".tmp")
    unfinished.write_text(json.dumps(asdict(outcome), default=str))
    unfinished.rename(answer)


def outcome_of(step: Step, place: Place) -> Outcome:
    """The step's outcome; whatever it raises is a failure with one line."""
    try:
        return step.run(place)
    except Exception as error:  # noqa: BLE001 - the next steps must run whatever this one ran into
        lines = str(error).strip().splitlines() or [""]
        return Outcome(FAILED, f"{type(error).__name__}: {lines[0][:300]}")
