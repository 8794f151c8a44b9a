"""Fine-tune a pre-trained encoder for action recognition, and test it on all views of every video.

    python -m tats.engines.run_class_finetuning --data_path lists/ --data_set UCF101 --finetune checkpoint-399.pth
    torchrun --nproc_per_node=8 -m tats.engines.run_class_finetuning ... [--enable_deepspeed --zero_stage 1]
"""

from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.errors import record

from ..datasets.program import run_program
from .config import readings
from .config.common import parser_of
from .config.explain import explain, explaining
from .config.finetuning import DEAD_FLAGS, FINETUNING, Settings
from .config.flags import FlagParser
from .runs.finetuning_build import with_defaults_of_the_data_set, work_of_a_step
from .runs.finetuning_run import Finetuning
from .runs.training_run import Program, run_training


def get_parser() -> FlagParser:
    """The program's command line, every flag from `config.finetuning`."""
    return explaining(parser_of("run_class_finetuning", __doc__, FINETUNING, DEAD_FLAGS))


def train_and_test(run: Finetuning) -> dict:
    """Go on from where the output folder stands, to the last epoch; then the test, what is in result.json."""
    if run.trains:
        run.resume()
        return run.run()
    return run.test()


def main(argv: Sequence[str] | None = None) -> dict:
    """Entry point; bad input ends with one line and exit code 2, SIGTERM and SIGUSR1 with a checkpoint and 0.

    Returns what is in result.json.
    """
    if explain(get_parser(), argv, lambda args: with_defaults_of_the_data_set(Settings.from_args(args)),
               readings.FINETUNING):
        return {}
    return run_training(Program(get_parser(), Settings.from_args, DEAD_FLAGS, Finetuning, train_and_test,
                                work_of_a_step), argv)


if __name__ == "__main__":
    run_program(record(main))   # torchrun then shows which process failed first, and why
