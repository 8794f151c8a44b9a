"""settings.json: what a run was trained with, and one entry for each of its starts."""

import json
import logging
import os
import platform
import re
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from ...datasets.catalog import DATA_SETS
from ...datasets.files import write_whole
from .identity import Difference, Identity
from .records import commit_of_source
from .runtime import Runtime

logger = logging.getLogger(__name__)

NAME = "settings.json"


class Resumed(NamedTuple):
    """What a start goes on from: the checkpoint, whether --resume named it, and what is different since."""

    source: Path | None
    named: bool
    changed: Sequence[Difference]


def read_record(folder: Path) -> dict:
    """What settings.json of a run's folder holds; {} where there is none that can be read."""
    try:
        record = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def is_smoke(record: Mapping) -> bool:
    """Whether settings.json, or a checkpoint, is of a run of SMOKE=1 or of one like it: made-up videos, one of our
    own small models, or the flags of `settings/*_smoke.args`."""
    topics = record.get("settings") or {}
    data, model = ((topics.get(topic) or {}).get(name) or "" for topic, name in (("data", "data_set"),
                                                                                  ("model", "model")))
    made_up = data in DATA_SETS and DATA_SETS[data].made_up
    return made_up or "tats_" in model or _has_settings_file(record, "_smoke")


def has_other_lists(record: Mapping) -> bool:
    """Whether settings.json is of a row whose lists were not as long as the paper's (ANY_SIZE=1)."""
    return _has_settings_file(record, "any_size")


def _has_settings_file(record: Mapping, ending: str) -> bool:
    starts = [record, *(record.get("history") or ())]
    return any(re.fullmatch(f"@.*{ending}[.]args", word) for start in starts for word in start.get("argv") or ())


def write_record(folder: Path, settings: dict, identity: Identity | None, runtime: Runtime,
                 resumed: Resumed | None = None) -> None:
    """Note a start: every resolved flag, versions and commit of this one, and the history of all of them.

    Top level: `settings`, `versions`, `commit` and `argv` of the last start; `identity`, a short hash; `run`, a name
    that the run keeps for its life; `history`, with machine, job, GPUs, processes, the checkpoint it went on from and
    what changed in it. A file that cannot be read is kept under another name.

    Args:
        settings: by topic. identity: None for a program that only tests.
        resumed: what the run goes on from, None for a run that begins.
    """
    _keep_damaged(folder)
    before = read_record(folder) if resumed is not None else {}
    if resumed is not None and not before:
        logger.warning("%s is missing: the history in it begins anew", folder / NAME)
    history = list(before.get("history") or [])
    if before and not history:   # written before there was a history
        history = [{name: before[name] for name in ("argv", "versions", "commit") if name in before}]
    last = {"argv": sys.argv, "versions": _versions(), "commit": commit_of_source()}
    gpus = torch.cuda.device_count() if runtime.device.type == "cuda" else 0
    source, named, changed = resumed or Resumed(None, False, ())
    history.append({
        "time": time.strftime("%FT%T%z"), **last, "machine": platform.node(), "job": job_of(os.environ), "gpus": gpus,
        "gpu": torch.cuda.get_device_name(runtime.device) if gpus else None, "processes": runtime.world_size,
        "threads": torch.get_num_threads(),   # on a CPU the last bits of sums depend on them
        "from": None if source is None else source.name, "resume": str(source.resolve()) if named else None,
        "identity": identity.hash if identity else None,
        "changed": {one.flag: [one.there, one.here] for one in changed}})
    # A run that has lost its name gets no other: by that, results that were made from it would seem stale.
    name = secrets.token_hex(6) if resumed is None else before.get("run")
    record = {"settings": settings, **last, "identity": identity.hash if identity else None, "run": name,
              "history": history}
    write_whole(folder / NAME, json.dumps(record, indent=2, default=str) + "\n")


def _keep_damaged(folder: Path) -> None:
    """Put a settings.json that cannot be read out of the way."""
    path, number = folder / NAME, 1
    if not path.is_file() or read_record(folder):
        return
    while (place := folder / f"settings-damaged-{number}.json").exists():
        number += 1
    path.rename(place)
    logger.warning("%s cannot be read: it is now %s", path, place.name)


def job_of(environment: Mapping[str, str]) -> str | None:
    """The Slurm job, and of an array the task, that this process belongs to."""
    if task := environment.get("SLURM_ARRAY_TASK_ID"):
        return f"{environment.get('SLURM_ARRAY_JOB_ID')}_{task}"
    return environment.get("SLURM_JOB_ID")


def _versions() -> dict[str, str]:
    import timm

    return {"python": platform.python_version(), "torch": torch.__version__, "timm": timm.__version__}
