"""How fast, and how much memory: steps, activations, attention, loaders, fine-tuning, growth, threads, an estimate.

    python -m tats.engines.benchmark step --methods tats tube --videomae ../VideoMAE --adamae ../adamae --out step.csv
    python -m tats.engines.benchmark attention --motionformer ../Motionformer
    python -m tats.engines.benchmark estimate --gpu h100 --batch_size 32 --amp bf16 --methods random tube adamae tats
    python -m tats.engines.benchmark loader --videos clips/*.mp4 --videomae ../VideoMAE
    python -m tats.engines.benchmark all --out performance --videos clips/*.mp4 --videomae ../VideoMAE \\
        --adamae ../adamae --motionformer ../Motionformer

Contestants take turns in one process; the originals run from clones that you name, unmodified. `all` makes every
measurement of the page of performance and its table; started again, it goes on where it was.
"""

import argparse
import logging
import sys
from collections.abc import Sequence

import torch

from ...datasets.program import run_program
from ..config.flags import FlagParser, add_flags, from_args, given_flags
from .measurements import MEASUREMENTS, BenchmarkConfig, measured
from .page import measure_page


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = FlagParser("benchmark", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=(*MEASUREMENTS, "all"))
    add_flags(parser, BenchmarkConfig)
    return parser


def main(argv: Sequence[str] | None = None) -> list[dict]:
    """Measure, show and write; the rows. Bad input ends with one line and exit code 2."""
    argv = sys.argv[1:] if argv is None else argv
    args = get_parser().parse_args(argv)
    config = from_args(BenchmarkConfig, args)
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: no CUDA device is visible")
    if args.what == "all":
        return measure_page(config, given_flags(argv))
    return measured(args.what, config, " ".join(argv))


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger(__package__).setLevel(logging.INFO)
    run_program(main)
