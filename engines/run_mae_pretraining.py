"""Pre-train a video masked autoencoder with any masking strategy of the registry.

    python -m tats.engines.run_mae_pretraining --data_path train.csv --output_dir out --mask_type tats --mask_ratio .95
    torchrun --nproc_per_node=8 -m tats.engines.run_mae_pretraining ...
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
from .config.flags import FlagParser, add_flags, given_flags
from .config.pretraining import DEAD_FLAGS, PRETRAINING, Settings
from .core import runtime
from .core.interrupts import Stopped
from .core.logs import set_up_logging, write_settings
from .runs.pretraining_run import Pretraining

logger = logging.getLogger(__name__)


def get_parser() -> FlagParser:
    """The program's command line, every flag from `pretraining_config`."""
    parser = FlagParser("run_mae_pretraining", description=__doc__.splitlines()[0])
    for config in PRETRAINING:
        add_flags(parser, config)
    add_dead_flags(parser, DEAD_FLAGS)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; bad input ends with one line and exit code 2, SIGTERM and SIGUSR1 with a checkpoint and 0."""
    argv = sys.argv[1:] if argv is None else list(argv)
    settings = Settings.from_args(get_parser().parse_args(argv))
    keep_remote_files(settings.data.cache_dir, settings.data.cache_gb)
    where = runtime.start(settings.run.device, settings.run.dist_url, settings.run.dist_timeout)
    set_up_logging(where.is_main)
    for name in sorted(given_flags(argv) & set(DEAD_FLAGS)):
        logger.warning("--%s has no effect: %s", name, DEAD_FLAGS[name])
    try:
        training = Pretraining(settings, where)
        if where.is_main and settings.run.output_dir:
            write_settings(Path(settings.run.output_dir), asdict(settings))
        training.resume()
        training.run()
    except Stopped as stopped:
        logger.info("%s", stopped.message)
        training.leave()
        raise
    training.leave()


if __name__ == "__main__":
    run_program(record(main))   # torchrun then shows which process failed first, and why
