"""Where a run's first weights come from, and whether that has been made anew since."""

import json
from collections.abc import Mapping
from pathlib import Path

from ...models.convert.files import read_checkpoint
from .records import file_hash
from .run_record import read_record


def source_of(path: Path, trust: bool = False) -> dict | None:
    """What a run keeps of the file that it starts from; plain values. None where it is no file.

    path, size, modified (ns), sha256: of the file. identity: of the run that wrote it, run: the name that this run's
    folder had for it then; None where it was written by another program.
    """
    if not path.is_file():
        return None
    about, state = path.stat(), read_checkpoint(path, trust)
    identity = state.get("identity") if isinstance(state, Mapping) else None
    return {"path": str(path.resolve()), "size": about.st_size, "modified": about.st_mtime_ns,
            "sha256": file_hash(path), "identity": (identity or {}).get("hash"),
            "run": read_record(path.parent).get("run")}


def tested_run(path: Path, trust: bool = False) -> tuple[str | None, dict | None]:
    """(identity of the run that wrote a checkpoint, what it keeps of the file that the run started from)."""
    state = read_checkpoint(path, trust)
    return (state.get("identity") or {}).get("hash"), state.get("source")


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
