"""Whether a row script's run is finished: whether its folder holds a run of this very identity.

run_scripts/lib/run.sh calls `main`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from ...datasets.lists.list_file import read_list
from ..config import finetuning, pretraining
from ..config.common import parser_of
from ..config.flags import read_changes
from ..core import checkpointing
from ..core.identity import Identity, differences, identity_in, identity_of
from ..core.lineage import result_source, stale
from ..core.records import file_hash
from ..core.run_record import read_record

PROGRAMS: dict[str, tuple[ModuleType, tuple[type, ...]]] = {
    "run_mae_pretraining": (pretraining, pretraining.PRETRAINING),
    "run_class_finetuning": (finetuning, finetuning.FINETUNING),
}


def main(argv: Sequence[str]) -> int:
    """0 where the run is finished, 1 where it is not; a result whose pre-training has been made anew is named.

    Args:
        argv: number of processes, the program's module, its flags.
    """
    processes, program, *flags = argv
    module, configs = PROGRAMS[program.rsplit(".", 1)[-1]]
    settings = module.Settings.from_args(read_changes(parser_of(program, "A run.", configs, module.DEAD_FLAGS), flags))
    folder = Path(settings.run.output_dir)
    if why := stale(result_source(folder)):
        sys.stderr.write(f"stale: {folder}: {why}\n")
    try:
        return 0 if same_run(folder, expected(settings, int(processes)), type(settings)) else 1
    except (OSError, ValueError):
        return 1   # the program itself says what is wrong


def expected(settings: pretraining.Settings | finetuning.Settings, processes: int) -> Identity:
    """The identity of the run that these settings start.

    Raises:
        OSError, ValueError: a list cannot be read.
    """
    if isinstance(settings, pretraining.Settings):
        files, weights = {"train": Path(settings.data.data_path)}, settings.model.init_from
    else:
        splits = ("train", "val", "test")
        skipped = ("val",) if settings.evaluation.disable_eval_during_finetuning else ()
        files = {name: Path(settings.data.data_path) / f"{name}.csv" for name in splits if name not in skipped}
        weights = settings.model.finetune
    lists = {name: read_list(path, need_label=False) for name, path in files.items()}
    digest = file_hash(weights) if weights and Path(weights).is_file() else None
    return identity_of(settings, lists, digest, settings.optim.clips_a_step(processes))


def same_run(folder: Path, own: Identity, settings: type) -> bool:
    """Whether the folder's run has this identity: by settings.json, or by the newest checkpoint where that is older."""
    if (kept := read_record(folder).get("identity")) is not None:
        return kept == own.hash
    found = checkpointing.newest_whole(folder)
    return found is not None and not differences(own, identity_in(found[1], settings))
