"""--explain: the readings of the paper that a command line stands for, printed instead of a run."""

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .flags import FlagParser
from .readings import Reading, explained, to_markdown, to_text

FORMATS = {"text": to_text, "markdown": lambda rows: to_markdown(rows) + "\n"}


def explaining(parser: FlagParser) -> FlagParser:
    """The parser with --explain."""
    group = parser.add_argument_group("Instead of a run")
    group.add_argument("--explain", nargs="?", const="text", choices=sorted(FORMATS), help="print what the paper "
                       "says, how it is read with these flags, and why; then end")
    return parser


def explain(parser: FlagParser, argv: Sequence[str] | None, settings: Callable[..., Any],
            readings: Iterable[Reading]) -> bool:
    """Print the table where --explain asks for it, and say whether it did.

    Args:
        settings: the program's `Settings.from_args`.

    Raises:
        ValueError: a value that cannot be run with.
    """
    args = parser.parse_args(argv)
    if args.explain is None:
        return False
    args.data_path = args.data_path or "LIST"   # no list is read
    readings, chosen = tuple(readings), settings(args)
    rows = explained(readings, chosen)
    sys.stdout.write(FORMATS[args.explain](rows))
    if len(rows) < len(readings):
        sys.stdout.write(f"{len(readings) - len(rows)} sentences about the policy of TATS are left out: "
                         f"--mask_type {chosen.mask.mask_type} has none.\n")
    return True
