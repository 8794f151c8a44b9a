"""The flags of both programs as Markdown, from the dataclasses that declare them (the README holds the output).

    python -m tats.engines.flag_table
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields

from ..datasets.program import run_program
from .config.finetuning import FINETUNING
from .config.pretraining import PRETRAINING


def rows(configs: Sequence[type]) -> Iterator[str]:
    """Lines of a Markdown table: flag, default, meaning; one heading a topic."""
    yield "| flag | default | meaning |"
    yield "|---|---|---|"
    for config in configs:
        yield f"| **{(config.__doc__ or config.__name__).splitlines()[0].rstrip('.')}** | | |"
        for item in fields(config):
            default = None if item.default is MISSING else item.default
            shown = "" if default in (None, "") else f"`{_spelled(default)}`"
            choices = item.metadata.get("choices")
            among = f" ({', '.join(map(str, choices))})" if choices else ""
            meaning = (item.metadata["help"] + among).replace("|", "\\|")
            yield f"| `--{item.name}` | {shown} | {meaning} |"


def _spelled(default: object) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default)


def table() -> str:
    """Both programs' tables with their titles."""
    parts = []
    for title, configs in (("run_mae_pretraining", PRETRAINING), ("run_class_finetuning", FINETUNING)):
        parts += [f"### `tats.engines.{title}`", "", *rows(configs), ""]
    return "\n".join(parts)


def main() -> None:
    """Write the tables to stdout."""
    sys.stdout.write(table())


if __name__ == "__main__":
    run_program(main)
