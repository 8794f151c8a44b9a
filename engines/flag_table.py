"""The flags of both programs, from the dataclasses that declare them: docs/flags.md, and what the row scripts read.

    python -m tats.engines.flag_table > docs/flags.md
    python -m tats.engines.flag_table --identity > run_scripts/settings/identity.txt
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields

from ..datasets.program import run_program
from .config import finetuning, pretraining
from .config.flags import FlagParser

HEAD = """\
# All flags

[Back to the README](../README.md)

This page is the output of `python -m tats.engines.flag_table > docs/flags.md`. Change a flag where it is declared
(`engines/config/`), then run the command again; a test compares the two.

- A flag that is on or off takes three forms: `--pin_mem`, `--pin_mem false`, `--no_pin_mem`.
- A flag cannot be abbreviated. Where two names stand in a row, both mean the same flag.
- `@FILE` in a command reads a settings file: a flag with its value on each line, in quotes where it has spaces; `#` at
  the start of a line or behind a space starts a comment. Of a flag that is given twice the last value counts.
- Both programs also take `--plugin MODULE` ([masking](masking.md#use-it-in-the-programs)) and `--version`; pre-training
  takes `--explain` ([reproducing](reproducing.md#what-the-paper-leaves-open)). Without `--output_dir` nothing is saved.
- The other programs print their flags with `--help`.
"""

PROGRAMS = {
    "run_mae_pretraining": (pretraining.PRETRAINING, pretraining.DEAD_FLAGS),
    "run_class_finetuning": (finetuning.FINETUNING, finetuning.DEAD_FLAGS),
}


def rows(configs: Sequence[type]) -> Iterator[str]:
    """Lines of a Markdown table: flag, default, meaning; one heading a topic."""
    yield "| flag | default | meaning |"
    yield "|---|---|---|"
    for config in configs:
        yield f"| **{(config.__doc__ or config.__name__).splitlines()[0].rstrip('.')}** | | |"
        for item in fields(config):
            cells = (_names(item), _default(item), _meaning(item))
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _names(item: Field) -> str:
    return ", ".join(f"`{name}`" for name in (f"--{item.name}", *item.metadata.get("aliases", ())))


def _default(item: Field) -> str:
    value = None if item.default is MISSING else item.default
    if value in (None, ""):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _meaning(item: Field) -> str:
    choices = item.metadata.get("choices")
    among = f" ({', '.join(map(str, choices))})" if choices else ""
    return item.metadata["help"] + among


def without_effect(flags: Mapping[str, str]) -> Iterator[str]:
    """Lines about the flags of VideoMAE's scripts that are accepted and do nothing."""
    yield "Accepted and without effect, since VideoMAE's scripts pass them; a run that gets one says so:"
    yield ""
    for name, why in flags.items():
        yield f"- `--{name}`: {why}"


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for program, (configs, dead) in PROGRAMS.items():
        parts += [f"## `tats.engines.{program}`", "", *rows(configs), "", *without_effect(dead), ""]
    return "\n".join(parts)


def identities() -> str:
    """A line a spelling: program, spelling, flag, what it is to a run's identity, default; tabs between."""
    lines = ["# python -m tats.engines.flag_table --identity > run_scripts/settings/identity.txt"]
    for program, (configs, _) in PROGRAMS.items():
        for item in (item for config in configs for item in fields(config)):
            kind = {True: "kept", False: "free"}.get(item.metadata["identity"], item.metadata["identity"])
            aliases = [alias.lstrip("-").replace("-", "_") for alias in item.metadata.get("aliases", ())]
            for name in dict.fromkeys((item.name, *aliases)):
                lines.append("\t".join((program, name, item.name, kind, _default(item).strip("`"))))
    return "\n".join(lines) + "\n"


def get_parser() -> argparse.ArgumentParser:
    """The program's command line."""
    parser = FlagParser("flag_table", description=__doc__.splitlines()[0])
    parser.add_argument("--identity", action="store_true", help="write run_scripts/settings/identity.txt instead")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Write the page to stdout."""
    sys.stdout.write(identities() if get_parser().parse_args(argv).identity else page())


if __name__ == "__main__":
    run_program(main)
