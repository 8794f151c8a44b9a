"""One cell of the comparison of masking strategies on moving shapes: pre-train, look at the masks, evaluate features.

Everything goes through the programs that users run, in one process, so that a cell costs one start of Python.
"""

import contextlib
import fcntl
import io
import json
import logging
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing import parent_process
from pathlib import Path

import torch

from ...datasets.video.decode import keep_videos
from .. import measure_masks, run_mae_pretraining
from ..core.interrupts import Stopped
from ..machine.peak_memory import begin_peak, peak_mib
from .features import measure_features
from .plan import METHODS, SWITCHES, Cell, Plan, checkpoint_file, keep, last_line, stored, warm_file

logger = logging.getLogger(__name__)

WARM_RATIO = .75
# Names in the table, each with its name in log.txt.
LOGGED = {"entropy_share": "entropy_share", "clip_fraction": "clip_fraction", "approx_kl": "approx_kl",
          "value_explained": "value_explained_variance", "visible_tokens": "visible_tokens",
          "motion_correlation": "motion_correlation"}
_FAILURES = (ValueError, OSError, RuntimeError, SystemExit)   # of one cell: the others go on
_KEPT_MIB = 1024   # decoding small videos is as much work as training on them: once a process, not once an epoch


def warm_up(task: tuple[Plan, int]) -> str | None:
    """Write the checkpoint that a seed's cells start from; the one-line cause if that failed."""
    plan, seed = task
    _quiet(f"warm-up of seed {seed}")
    try:
        with alone(plan, f"warm-seed{seed}"):
            if warm_file(plan, seed).is_file():   # another program has written it meanwhile
                return None
            _pretrain(plan, warm_file(plan, seed).parent, [*METHODS["random"], "--mask_ratio", str(WARM_RATIO),
                                                           "--seed", str(seed), "--epochs", str(plan.warm_epochs)])
    except _FAILURES as error:
        return _cause(f"warm-up of seed {seed}", error)
    return None


def run_cell(task: tuple[Plan, Cell]) -> dict | str:
    """The numbers of a cell, also written to its result file; the one-line cause if it failed."""
    return run_and_keep(*task, _run)


def run_and_keep(plan: Plan, cell: Cell, run: Callable[[Plan, Cell], dict]) -> dict | str:
    """`run(plan, cell)`, its numbers written to the cell's result file; the one-line cause if it failed."""
    _quiet(cell.name)
    try:
        with alone(plan, cell.name), contextlib.redirect_stdout(io.StringIO()):
            numbers = run(plan, cell)
            keep(plan, cell, numbers)
    except _FAILURES as error:
        return _cause(cell.name, error)
    return numbers


@contextlib.contextmanager
def alone(plan: Plan, name: str) -> Iterator[None]:
    """Inside the block no other program works on what has this name in the plan's folder; it waits for one that does.
    Where the file system has no locks it keeps nobody out."""
    plan.out.mkdir(parents=True, exist_ok=True)
    with open(plan.out / f".{name}.lock", "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.warning("another program works on %s: waiting for it", plan.out / name)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:   # no locks
            pass
        yield


def _cause(name: str, error: BaseException) -> str:
    """One line. The programs end with SystemExit after a signal and at arguments that they do not know.

    Raises:
        SystemExit: a signal came to the comparison itself, which runs its cells in its own process: the cells that wait
            must not begin.
    """
    if isinstance(error, SystemExit) and not isinstance(error, Stopped):
        return f"{name}: ended with exit code {error.code}; what it said stands above"
    line = f"{name}: " + " ".join(str(getattr(error, "message", error)).split())
    if isinstance(error, Stopped) and parent_process() is None:
        logger.warning("%s", line)
        raise SystemExit(error.code or 128 + signal.SIGTERM) from error   # nothing is in the tables yet: no success
    return line


def _quiet(name: str) -> None:
    """Of the programs' messages only warnings, told apart; one thread, since every core has a cell."""
    logging.basicConfig(level=logging.WARNING, format=f"%(asctime)s {name}: %(message)s", force=True)
    torch.set_num_threads(1)
    keep_videos(_KEPT_MIB)


def _pretrain(plan: Plan, out: Path, arguments: list[str]) -> None:
    run_mae_pretraining.main([*plan.pretrain, "--data_path", str(plan.data / "train.csv"), *arguments,
                              "--output_dir", str(out)])


def _run(plan: Plan, cell: Cell) -> dict:
    return measured(plan, cell, _masks, measure_features)


def measured(plan: Plan, cell: Cell, masks: Callable[[Plan, Cell], dict],
             features: Callable[[Plan, Cell, list[str]], dict]) -> dict:
    """The numbers of a cell; what is there already is not measured again.

    Args:
        masks: pre-trains, and measures what the masks look at. Kept at once: features may take longer than all that.
        features: measures the named numbers of the features.
    """
    start, numbers = time.process_time(), stored(plan, cell)
    is_own = begin_peak()   # a process runs several cells
    before = numbers.get("cpu_seconds") if numbers else 0
    if not numbers:
        numbers = masks(plan, cell)
        keep(plan, cell, numbers)
        before = None if numbers.get("pretraining_cpu_seconds", 0) is None else 0
    missing = [name for name in plan.features if name not in numbers]
    if missing:
        keep(plan, cell, numbers | {"cpu_seconds": None})   # where it ends in the middle, nobody knows what that took
        numbers |= features(plan, cell, missing)
    spent = None if before is None else round(time.process_time() - start + before, 1)
    peak = max(round(peak_mib()), numbers.get("peak_rss_mib") or 0) if is_own else None
    return numbers | {"cpu_seconds": spent, "peak_rss_mib": peak}


def pretrained(plan: Plan, cell: Cell) -> dict:
    """Pre-train a cell's model from its seed's warm-up; the cell's name, the cost, and the last line of the log.

    The cost is None where the pre-training went on from a checkpoint: nobody has kept what it took until then.
    """
    start, folder = time.process_time(), plan.out / cell.name / "pretrain"
    begun = any(folder.glob("*.pth"))   # checkpoint-3.pth, epoch-3-step-10.pth
    _pretrain(plan, folder, [
        *(METHODS | SWITCHES)[cell.method], "--mask_ratio", str(cell.mask_ratio), "--seed", str(cell.seed),
        "--init_from", str(warm_file(plan, cell.seed)), "--mae_only_epochs", "0"])
    last = last_line(plan, cell)
    spent = None if begun else round(time.process_time() - start, 1)
    return cell._asdict() | {"pretraining_cpu_seconds": spent} | {
        name: last.get(f"train_{logged}") for name, logged in LOGGED.items()}


def _masks(plan: Plan, cell: Cell) -> dict:
    """Pre-train, and measure what the masks look at."""
    numbers, found = pretrained(plan, cell), plan.out / cell.name / "masks.json"
    measure_masks.main(["--checkpoint", checkpoint_file(plan, cell), "--data", str(plan.data), "--out", str(found)])
    masks = json.loads(found.read_text())[-1]
    return numbers | {name: value for name, value in masks.items() if name not in ("name", "top1")}
