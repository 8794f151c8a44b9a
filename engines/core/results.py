"""The numbers that a run left behind, and whether they still belong to what they were made from."""

import json
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from .checkpointing import numbered_checkpoints
from .lineage import changed_flags, stale
from .logs import read_log
from .run_folder import set_aside
from .run_record import has_other_lists, is_smoke, read_record

logger = logging.getLogger(__name__)


class Number(NamedTuple):
    """A number of a run.

    complete: all videos that were expected were evaluated, and the run is over. stale: why it is, None where it is not.
    changed: flags that --change has altered within the run or within its pre-training. source: the file that its run
    started from; "": none, None: nobody knows. smoke: of SMOKE=1 or like it, or begun from such weights. other_lists:
    likewise, of lists of another length than the paper's.
    """

    value: float
    complete: bool = True
    stale: str | None = None
    changed: tuple[str, ...] = ()
    source: str | None = None
    smoke: bool = False
    other_lists: bool = False


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
        source = result.get("source") or {}
        changed = {*(result.get("changed") or ()), *(source.get("changed") or ())}
        record = read_record(run)
        return Number(float(result[metric]), _is_complete(result, record), stale(source), tuple(sorted(changed)),
                      source.get("path", "") if "source" in result else None,
                      is_smoke(record) or bool(source.get("smoke")),
                      has_other_lists(record) or bool(source.get("other_lists")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a result of run_class_finetuning ({type(error).__name__}: {error})") from None


def _is_complete(result: Mapping, record: Mapping) -> bool:
    """Whether all videos were evaluated, with weights of the run's end, and of the run that the folder holds now."""
    behind, epochs = result.get("trained_epochs"), result.get("epochs")
    ended = None in (behind, epochs) or behind >= epochs or result.get("test_weights") == "best"
    known = (result.get("identity"), record.get("identity"))
    return result["num_evaluated"] == result["num_expected"] and ended and (None in known or known[0] == known[1])


# The flags that say how a classifier is tested.
TEST_FLAGS = ("data_set", "sampling", "sampling_rate", "short_side_size", "test_num_segment", "test_num_crop",
              "num_frames", "input_size", "test_weights", "eval_mode", "knn_k", "knn_temperature", "frame_pattern")


def place_of_test(folder: Path, result: Mapping, settings: Mapping[str, Mapping]) -> Path:
    """Where the result of --eval goes: `folder`, unless that would take the place of what a training has left there.

    In the folder of a training, another test than its own goes to `evaluation-N`. Elsewhere the result of another test
    is moved to `replaced-N`.

    Args:
        result: of the test. settings: its flags by topic.
    """
    record, kept = read_record(folder), _read(folder)
    if kept is not None and _same_test(kept, result):
        return folder
    if record.get("identity") is None and not numbered_checkpoints(folder):
        if kept is not None:
            logger.warning("the result of another test that %s held is now in %s", folder, set_aside(folder))
        return folder
    if kept is None and record.get("identity") == result.get("identity") and _is_complete(result, record) and (
            _test_flags(record.get("settings") or {}) == _test_flags(settings)):
        return folder
    number = 1
    while (other := _read(folder / f"evaluation-{number}")) is not None and not _same_test(other, result):
        number += 1
    logger.warning("%s holds a training, and this is another test than its own: the result goes to evaluation-%d there",
                   folder, number)
    return folder / f"evaluation-{number}"


def _read(folder: Path) -> Mapping | None:
    """result.json of a folder; {} for one that is damaged, None where there is none."""
    try:
        found = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except OSError:
        return None
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _same_test(one: Mapping, other: Mapping) -> bool:
    """Whether two results are of the same weights' run, tested in the same way; what an older one does not tell, is not
    compared."""
    names = ("identity", "eval_mode", "test_weights", "views", "trained_epochs", "test")
    began = [(result.get("source") or {}).get("sha256") for result in (one, other)]
    return bool(one) and all(one[name] == other.get(name) for name in names if name in one) and (
        "source" not in one or began[0] == began[1])


def _test_flags(settings: Mapping[str, Mapping]) -> dict:
    return {name: value for topic in settings.values() for name, value in topic.items() if name in TEST_FLAGS}


def peak_memory(run: Path) -> Number | None:
    """The largest `peak_memory_gb` of log.txt, one JSON line an epoch; None where the log or the number is missing.

    Raises:
        ValueError: it is not what run_mae_pretraining writes.
    """
    name = "peak_memory_gb"
    peaks = _from_log(run, lambda lines: [float(line[name]) for line in lines if line.get(name) and finite(line[name])])
    return _of_run(run, max(peaks)) if peaks else None


def finite(value: float | None) -> bool:
    """Whether a log has this number: a null, or NaN as earlier versions wrote it, is none."""
    return value is not None and math.isfinite(value)


def _from_log(run: Path, numbers: Callable[[list[dict]], list[float]]) -> list[float]:
    """`numbers` of the lines of log.txt; none where there is no log. Raises ValueError, as those who call it."""
    path = run / "log.txt"
    if not path.is_file():
        return []
    records = read_log(path)
    try:
        return numbers(records)
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
    found = _from_log(run, lambda lines: [float(line[name]) for line in lines[-1:] if finite(line.get(name))])
    return _of_run(run, found[0], (run / "finished").is_file()) if found else None


def _of_run(run: Path, value: float, complete: bool = True) -> Number:
    """A number of log.txt with what settings.json says of the run."""
    record = read_record(run)
    changes = ({"flag": flag} for start in record.get("history") or () for flag in start.get("changed") or ())
    return Number(value, complete, changed=tuple(changed_flags(changes)), smoke=is_smoke(record),
                  other_lists=has_other_lists(record))
