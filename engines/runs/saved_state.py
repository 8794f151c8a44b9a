"""Which checkpoint a run goes on from, the same on every process, and the part of it that each process keeps itself."""

import logging
import os
from pathlib import Path

from ..config.common import RunConfig
from ..core import checkpointing
from ..core.run_folder import must_be_shared
from ..core.run_record import job_of, read_record
from ..core.runtime import Runtime

logger = logging.getLogger(__name__)


def choose(flags: RunConfig, folder: Path | None, runtime: Runtime) -> tuple[Path, dict] | None:
    """The checkpoint to go on from and what it holds; None: the run begins.

    --resume FILE; with --auto_resume the newest whole checkpoint of the output folder, where that has gone on from FILE
    already or no FILE is named. Rank 0 chooses, so that all go on from the same one; every process must call.

    Raises:
        FileNotFoundError, ValueError: the file is missing, damaged, or is not there for all processes.
    """
    path, state = Path(flags.resume) if flags.resume else None, None
    if folder is not None and runtime.is_main and goes_on(flags, folder) and (
            path is None or has_gone_on_from(folder, path)) and (found := checkpointing.newest_whole(folder)):
        path, state = found
    named = runtime.gather_objects(str(path) if path else None)[0]
    path = Path(named) if named else None
    if path is None:
        must_be_shared(folder, not checkpointing.numbered_checkpoints(folder) if folder else True, runtime)
        return None
    if runtime.world_size > 1 or path.is_file():
        must_be_shared(path.parent, path.is_file(), runtime)
    return path, checkpointing.load(path) if state is None else state


def goes_on(flags: RunConfig, folder: Path) -> bool:
    """--auto_resume; without it, too, where this very job began the run and was queued again: each time anew it would
    never end."""
    if flags.auto_resume:
        return True
    begun = read_record(folder).get("history") or [{}]
    if job_of(os.environ) is None or not int(os.environ.get("SLURM_RESTART_COUNT") or 0):
        return False
    if begun[0].get("job") != job_of(os.environ):
        return False
    logger.warning("job %s was queued again: its run goes on, in spite of --auto_resume false", job_of(os.environ))
    return True


def has_gone_on_from(folder: Path, source: Path) -> bool:
    """Whether a start of the folder's run went on from the file `source`, as --resume named it."""
    return any(start.get("resume") == str(source.resolve()) for start in read_record(folder).get("history") or ())


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
