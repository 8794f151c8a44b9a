"""What the report reads of a run: log.txt, settings.json, the newest pictures."""

import json
import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pandas as pd

from ..config.pretraining import SamplerConfig
from ..core.lineage import result_source, stale
from ..core.logs import read_log
from ..core.metrics import current_names
from ..core.results import finite
from ..pretrain.alerts import alerts

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        name, folder: the folder's name, and where it is.
        records: the lines of log.txt under today's names, each with its epoch.
        settings: its flags by name; empty where settings.json is missing.
        pictures: those of the newest epoch that has any.
    """

    name: str
    folder: Path
    records: list[dict]
    settings: dict
    pictures: list[Path]

    @property
    def fine_tuning(self) -> bool:
        """Whether a classifier was trained."""
        return any(name in record for record in self.records for name in ("train_class_acc", "val_acc1"))

    @property
    def numbers(self) -> pd.DataFrame:
        """A row an epoch, a column a number; NaN where a line lacks it, or has null or what is not finite."""
        numbers = [{name: float(value) if finite(value) else math.nan for name, value in record.items()
                    if _is_number(value)} for record in self.records]
        return pd.DataFrame(numbers).set_index("epoch")

    @property
    def alerts(self) -> list[str]:
        """What the last epoch's numbers say is going wrong; nothing where the flags are not known. Before it, that the
        pre-training behind a result has been made anew."""
        known = {field.name: self.settings[field.name] for field in fields(SamplerConfig)
                 if field.name in self.settings}
        why = stale(result_source(self.folder))
        return ([f"stale: {why}"] if why else []) + (
            alerts(_finite(self.records[-1]), SamplerConfig(**known)) if known else [])


def read_run(folder: Path) -> Run:
    """A run from its output folder.

    Raises:
        FileNotFoundError: no log.txt. ValueError: it is none of a run, or settings.json is not.
    """
    pictures: dict[int, list[Path]] = {}
    for path in sorted((folder / "pictures").glob("epoch-*.png")):
        if match := re.match(r"epoch-(\d+)-", path.name):
            pictures.setdefault(int(match[1]), []).append(path)
    return Run(folder.resolve().name, folder.resolve(), _records(folder), _settings(folder / "settings.json"),
               pictures[max(pictures)] if pictures else [])


def _records(folder: Path) -> list[dict]:
    log = folder / "log.txt"
    if not log.is_file():
        raise FileNotFoundError(f"{folder} holds no log.txt: give the --output_dir of a run")
    records = list(map(current_names, read_log(log)))
    if not records:
        raise ValueError(f"{log} is empty: the run has not finished an epoch yet")
    return records


def _settings(path: Path) -> dict:
    if not path.is_file():
        return {}
    try:
        groups = json.loads(path.read_text(encoding="utf-8"))["settings"]
        return {name: value for group in groups.values() for name, value in group.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not the settings.json of a run ({type(error).__name__}: {error})") from None


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Runs with names that differ: that of the folder, with the one above where two are the same, else the whole path.

    Raises:
        ValueError: a folder is given twice; and as `read_run`.
    """
    runs = [read_run(folder) for folder in folders]
    for name in (lambda run: f"{run.folder.parent.name}/{run.name}", lambda run: str(run.folder)):
        names = [run.name for run in runs]
        runs = [replace(run, name=name(run)) if names.count(run.name) > 1 else run for run in runs]
    if len({run.name for run in runs}) < len(runs):
        raise ValueError("a run is given twice")
    return runs


def _is_number(value: object) -> bool:
    """Null stands for one that is not finite."""
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _finite(record: dict) -> dict:
    """Without numbers that are not finite."""
    return {name: value for name, value in record.items() if not _is_number(value) or finite(value)}
