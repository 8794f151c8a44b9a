"""Where a run's first weights come from, and whether that has been made anew since."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from ...models.convert.files import read_checkpoint
from .records import file_hash
from .run_record import has_other_lists, is_smoke, read_record


def source_of(path: Path, trust: bool = False) -> dict | None:
    """What a run keeps of the file that it starts from; plain values. None where it is no file.

    path, size, modified (ns), sha256: of the file. identity: of the run that wrote it, changed: see `about_run`, run:
    the name that this run's folder had for it then; None or nothing where it was written by another program. smoke,
    other_lists: see `is_smoke` and `has_other_lists`.
    """
    if not path.is_file():
        return None
    about, state = path.stat(), read_checkpoint(path, trust)
    identity, record = state.get("identity") if isinstance(state, Mapping) else None, read_record(path.parent)
    return {"path": str(path.resolve()), "size": about.st_size, "modified": about.st_mtime_ns,
            "sha256": file_hash(path), "identity": (identity or {}).get("hash"),
            "changed": changed_flags(state.get("changes") or ()) if isinstance(state, Mapping) else [],
            "run": record.get("run"), "smoke": isinstance(state, Mapping) and is_smoke(state),
            "other_lists": has_other_lists(record)}


def about_run(path: Path, trust: bool = False) -> dict:
    """What a result keeps of the run that wrote a checkpoint; plain values, None where the file does not tell.

    identity, source: of the run, see `source_of`. changed: flags that --change has altered in its life.
    trained_epochs: behind these weights; epochs: of the whole run. eval_mode: how they were trained, where it is known.
    """
    state = read_checkpoint(path, trust)
    known = isinstance(state, Mapping) and "settings" in state and "epoch" in state
    about = {"identity": (state.get("identity") or {}).get("hash"), "source": state.get("source"),
             "changed": changed_flags(state.get("changes") or ()),
             "trained_epochs": state["epoch"] + (0 if state.get("position") else 1) if known else None,
             "epochs": state["settings"].get("optim", {}).get("epochs") if known else None}
    trained = state["settings"].get("evaluation", {}).get("eval_mode") if known else None
    return about | {"eval_mode": trained} if trained else about


def changed_flags(changes: Iterable[Mapping]) -> list[str]:
    """Names of the flags whose change makes another run; another split of the same clips a step makes none.

    Args:
        changes: as a checkpoint keeps them.
    """
    return sorted({one["flag"] for one in changes} - {"batch_size", "update_freq"})


def stale(source: Mapping | None) -> str | None:
    """Why a result is stale: its pre-training has been made anew since. None where it has not, or nobody knows.

    Args:
        source: of the result, see `source_of`.
    """
    if not source:
        return None
    path = Path(source["path"])
    now = read_record(path.parent)
    if source.get("run") and now.get("run") and now["run"] != source["run"]:
        return f"the run in {path.parent} has been made anew"
    if not path.is_file():
        return None
    about = path.stat()
    if (about.st_size, about.st_mtime_ns) == (source["size"], source["modified"]):
        return None
    return f"{path} holds other weights" if file_hash(path) != source["sha256"] else None


def result_source(folder: Path) -> dict | None:
    """What the folder's result keeps of the weights that its run started from."""
    try:
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return result.get("source") if isinstance(result, dict) else None
