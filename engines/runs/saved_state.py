"""Which checkpoint a run goes on from, the same on every process, and the part of it that each process keeps itself."""

import logging
import platform
from pathlib import Path

from ..config.common import RunConfig
from ..core import checkpointing
from ..core.runtime import Runtime

logger = logging.getLogger(__name__)


def choose(flags: RunConfig, folder: Path | None, runtime: Runtime) -> tuple[Path, dict] | None:
    """--resume FILE, else with --auto_resume the newest whole checkpoint of the output folder, else None.

    Rank 0 chooses, so that all go on from the same one; every process must call.

    Raises:
        FileNotFoundError, ValueError: the file is missing, damaged, or is not there for all processes.
    """
    path, state = Path(flags.resume) if flags.resume else None, None
    if path is None and flags.auto_resume and folder is not None:
        if runtime.is_main and (found := checkpointing.newest_whole(folder)):
            path, state = found
        names = runtime.gather_objects(str(path) if path else None)
        path = Path(names[0]) if names[0] else None
    if path is None:
        _must_be_shared(folder, not checkpointing.numbered_checkpoints(folder) if folder else True, runtime)
        return None
    if runtime.world_size > 1 or path.is_file():
        _must_be_shared(path.parent, path.is_file(), runtime)
    return path, checkpointing.load(path) if state is None else state


def _must_be_shared(folder: Path | None, as_rank_0: bool, runtime: Runtime) -> None:
    """Raises ValueError: a process sees another folder than rank 0, whose view `as_rank_0` describes."""
    views = runtime.gather_objects((as_rank_0, platform.node()))
    if len({seen for seen, _ in views}) > 1:
        others = sorted({node for seen, node in views if seen != views[0][0]})
        raise ValueError(f"{folder} is not the same for all processes: {', '.join(others)} sees other files there than "
                         f"{views[0][1]}. Put --output_dir (and --resume) on a file system that all nodes share")


def share_file(folder: Path, name: str, rank: int) -> Path:
    """Where rank `rank` keeps what it alone knows at checkpoint `name`; the folder goes when the checkpoint goes."""
    return folder / name / f"rank-{rank}.pth"


def save_share(share: dict, folder: Path, name: str, runtime: Runtime) -> dict:
    """What the checkpoint `name` keeps of a process's share: itself where there is one process, else only that there
    is one. Each of several writes its own file: gathered, the shares of all would have to fit onto every GPU.

    Every process must call. What cannot be written is named in a warning, and left out by a run that goes on from it.
    """
    if runtime.world_size == 1:
        return {"share": share}
    if not runtime.any(any(share.values())):
        return {}
    path = share_file(folder, name, runtime.rank)
    try:
        checkpointing.save_atomically(share, path)
    except OSError as error:
        logger.warning("%s cannot be written (%s): a run that goes on from there does without it", path,
                       error.strerror or error)
    runtime.barrier()   # a whole checkpoint has all its shares
    return {"shared": True}


def load_share(progress: dict, source: Path, runtime: Runtime) -> dict:
    """This process's share of the checkpoint `source`; {} on all processes where one of them cannot read its own.

    Args:
        progress: what `save_share` returned.
    """
    if not progress.get("shared"):
        return progress.get("share", {})
    share, path = None, share_file(source.parent, source.stem, runtime.rank)
    try:
        share = checkpointing.load(path)
    except (OSError, ValueError) as error:
        logger.warning("%s: %s", path, error)
    if runtime.any(share is None):
        logger.warning("the episodes of %s cannot be read on all processes: they start empty", source)
        return {}
    return share
