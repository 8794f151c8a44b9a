"""Fine-tune a pre-trained encoder for action recognition, and test it on all views of every video.

    python -m tats.engines.run_class_finetuning --data_path lists/ --data_set UCF101 --finetune checkpoint-399.pth
    torchrun --nproc_per_node=8 -m tats.engines.run_class_finetuning ... [--enable_deepspeed --zero_stage 1]
"""

import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import record

from ..datasets.program import run_program
from ..datasets.sources.kept_files import keep_remote_files
from .config.common import add_dead_flags
from .config.finetuning import DEAD_FLAGS, FINETUNING, Settings
from .config.flags import FlagParser, add_flags, given_flags
from .core import runtime
from .core.interrupts import Stopped
from .core.logs import set_up_logging, write_settings
from .runs.finetuning_run import Finetuning

logger = logging.getLogger(__name__)


def get_parser() -> FlagParser:
    """The program's command line, every flag from `finetuning_config`."""
    parser = FlagParser("run_class_finetuning", description=__doc__.splitlines()[0])
    for config in FINETUNING:
        add_flags(parser, config)
    add_dead_flags(parser, DEAD_FLAGS)
    return parser


def main(argv: Sequence[str] | None = None) -> dict:
    """Entry point; bad input ends with one line and exit code 2, SIGTERM and SIGUSR1 with a checkpoint and 0.

    Returns what is in result.json.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    args = get_parser().parse_args(argv)
    settings = Settings.from_args(args)
    keep_remote_files(settings.data.cache_dir, settings.data.cache_gb)
    where = runtime.start(settings.run.device, settings.run.dist_url, settings.run.dist_timeout)
    set_up_logging(where.is_main)
    for name in sorted(given_flags(argv) & set(DEAD_FLAGS)):
        logger.warning("--%s has no effect: %s", name, DEAD_FLAGS[name])
    try:
        finetuning = Finetuning(settings, where)
        if where.is_main and settings.run.output_dir:
            write_settings(Path(settings.run.output_dir), asdict(settings))
        if finetuning.trains:
            finetuning.resume()
            finetuning.run()
        result = finetuning.test()
    except Stopped as stopped:
        logger.info("%s", stopped.message)
        finetuning.leave()
        raise
    finetuning.leave()
    return result


if __name__ == "__main__":
    run_program(record(main))   # torchrun then shows which process failed first, and why
