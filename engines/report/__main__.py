"""Compare runs on one self-contained page: last numbers, alerts, curves by question, settings that differ, pictures.

    python -m tats.engines.report out/tats out/tube --out report.html
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from ...datasets.files import write_whole
from ...datasets.program import run_program
from ..config.flags import FlagParser
from ..core.logs import set_up_logging
from .page import page
from .runs import read_runs

logger = logging.getLogger(__name__)


def get_parser() -> argparse.ArgumentParser:
    """The program's command line."""
    parser = FlagParser("report", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="output folders of runs")
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="the page")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Write the page."""
    args = get_parser().parse_args(argv)
    set_up_logging(True)
    text = page(read_runs(args.runs))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(args.out, text)
    logger.info("%s, %.1f MB", args.out, len(text) / 1e6)


if __name__ == "__main__":
    run_program(main)
