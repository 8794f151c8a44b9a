"""Pre-train a video masked autoencoder with any masking strategy of the registry.

    python -m tats.engines.run_mae_pretraining --data_path train.csv --output_dir out --mask_type tats --mask_ratio .95
    torchrun --nproc_per_node=8 -m tats.engines.run_mae_pretraining ...
    python -m tats.engines.run_mae_pretraining --mask_type tats --tats_recipe paper --explain
"""

import argparse
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.errors import record

from ..datasets.program import run_program
from ..masking import find_masking
from .config import readings
from .config.common import parser_of
from .config.explain import explain, explaining
from .config.flags import FlagParser
from .config.pretraining import DEAD_FLAGS, PRETRAINING, Settings
from .pretrain.rewards import reward_of
from .runs.pretraining_build import work_of_a_step
from .runs.pretraining_run import Pretraining
from .runs.training_run import Program, run_training


def get_parser() -> FlagParser:
    """The program's command line, every flag from `config.pretraining`."""
    return explaining(parser_of("run_mae_pretraining", __doc__, PRETRAINING, DEAD_FLAGS))


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings, with what the tables of strategies and rewards say of them.

    Raises:
        ValueError: a value that cannot be run with.
    """
    settings = Settings.from_args(args)
    find_masking(settings.mask.mask_type)
    reward_of(settings.sampler)
    return settings


def train(run: Pretraining) -> None:
    """Go on from where the output folder stands, to the last epoch."""
    run.resume()
    run.run()


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; bad input ends with one line and exit code 2, SIGTERM and SIGUSR1 with a checkpoint and 0."""
    if explain(get_parser(), argv, settings_of, readings.PRETRAINING):
        return
    run_training(Program(get_parser(), settings_of, DEAD_FLAGS, Pretraining, train, work_of_a_step), argv)


if __name__ == "__main__":
    run_program(record(main))   # torchrun then shows which process failed first, and why
