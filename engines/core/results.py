"""The numbers that a run left behind, and whether they still belong to what they were made from."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from .lineage import stale


class Number(NamedTuple):
    """A number of a run.

    complete: all videos that were expected were evaluated. stale: why it is, None where it is not.
    """

    value: float
    complete: bool = True
    stale: str | None = None


def result_number(run: Path, metric: str) -> Number | None:
    """`metric` of the run's result.json; None where there is none.

    Raises:
        ValueError: it is not what run_class_finetuning writes.
    """
    path = run / "result.json"
    if not path.is_file():
        return None
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        return Number(float(result[metric]), result["num_evaluated"] == result["num_expected"],
                      stale(result.get("source")))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a result of run_class_finetuning ({type(error).__name__}: {error})") from None


def peak_memory(run: Path) -> Number | None:
    """The largest `peak_memory_gb` of log.txt, one JSON line an epoch; None where the log or the number is missing.

    Raises:
        ValueError: it is not what run_mae_pretraining writes.
    """
    name = "peak_memory_gb"
    peaks = _from_log(run, lambda lines: [float(line[name]) for line in lines if line.get(name)])
    return Number(max(peaks)) if peaks else None


def _from_log(run: Path, numbers: Callable[[list[dict]], list[float]]) -> list[float]:
    """`numbers` of the lines of log.txt; none where there is no log. Raises ValueError, as those who call it."""
    path = run / "log.txt"
    if not path.is_file():
        return []
    try:
        return numbers([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()])
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a log of run_mae_pretraining: {error}") from None


def must_not_replace(run: Path | None, eval_mode: str) -> None:
    """Raises ValueError: the folder holds the result of another --eval_mode."""
    path = (run or Path()) / "result.json"
    if run is None or not path.is_file():
        return
    try:
        kept = json.loads(path.read_text(encoding="utf-8")).get("eval_mode", eval_mode)
    except (ValueError, AttributeError):
        return
    if kept != eval_mode:
        raise ValueError(f"{path} is of --eval_mode {kept}, this run of {eval_mode}: give another --output_dir")


def last_number(run: Path, name: str) -> Number | None:
    """`name` of the last line of log.txt; complete where the row script has left its note that the run has ended. None
    where the log or the number is missing.

    Raises:
        ValueError: it is not what run_mae_pretraining writes.
    """
    found = _from_log(run, lambda lines: [float(line[name]) for line in lines[-1:] if line.get(name) is not None])
    return Number(found[0], (run / "finished").is_file()) if found else None
