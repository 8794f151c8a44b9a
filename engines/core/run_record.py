"""settings.json: what a run was trained with, and one entry for each of its starts."""

import json
import platform
import secrets
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import torch

from ...datasets.files import write_whole
from .identity import Difference, Identity
from .records import commit_of_source
from .runtime import Runtime

NAME = "settings.json"


def read_record(folder: Path) -> dict:
    """What settings.json of a run's folder holds; {} where there is none that can be read."""
    try:
        record = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def write_record(folder: Path, settings: dict, identity: Identity | None, runtime: Runtime,
                 resumed: Path | None = None, changed: Iterable[Difference] = ()) -> None:
    """Note a start: every resolved flag, versions and commit of this one, and the history of all of them.

    Top level: `settings`, `versions`, `commit` and `argv` of the last start; `identity`, a short hash; `run`, a name
    that the run keeps for its life; `history`, with machine, GPUs, processes, the checkpoint it went on from and what
    changed in it.

    Args:
        settings: by topic. identity: None for a program that only tests.
        resumed: the checkpoint that the run goes on from, None for a run that begins.
        changed: what is different since.
    """
    before = read_record(folder) if resumed is not None else {}
    history = list(before.get("history") or [])
    if before and not history:   # written before there was a history
        history = [{name: before[name] for name in ("argv", "versions", "commit") if name in before}]
    last = {"argv": sys.argv, "versions": _versions(), "commit": commit_of_source()}
    gpus = torch.cuda.device_count() if runtime.device.type == "cuda" else 0
    history.append({
        "time": time.strftime("%FT%T%z"), **last, "machine": platform.node(), "gpus": gpus,
        "gpu": torch.cuda.get_device_name(runtime.device) if gpus else None, "processes": runtime.world_size,
        "threads": torch.get_num_threads(),   # on a CPU the last bits of sums depend on them
        "from": None if resumed is None else resumed.name, "identity": identity.hash if identity else None,
        "changed": {one.flag: [one.there, one.here] for one in changed}})
    record = {"settings": settings, **last, "identity": identity.hash if identity else None,
              "run": before.get("run") or secrets.token_hex(6), "history": history}
    write_whole(folder / NAME, json.dumps(record, indent=2, default=str) + "\n")


def _versions() -> dict[str, str]:
    import timm

    return {"python": platform.python_version(), "torch": torch.__version__, "timm": timm.__version__}
