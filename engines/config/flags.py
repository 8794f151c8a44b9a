"""Flags are declared once, as fields of frozen dataclasses; argparse options, defaults and the README's table follow.

argparse and not a configuration framework, so that the same call extends a fork's own parser.
"""

import argparse
from collections.abc import Sequence
from dataclasses import MISSING, Field, field, fields
from typing import Any, TypeVar, get_args

Config = TypeVar("Config")


def flag(default: Any, help: str, **options: Any) -> Any:
    """A dataclass field that is also a command-line option; `options` go to `add_argument` (choices, nargs, type).

    `aliases=("--other",)` adds further spellings of the option.
    """
    return field(default=default, metadata={"help": help, **options})


def parse_bool(text: str) -> bool:
    """'true', '1', 'yes' -> True, 'false', '0', 'no' -> False (argparse's `type=bool` makes 'False' true)."""
    value = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(text.lower())
    if value is None:
        raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")
    return value


class FlagParser(argparse.ArgumentParser):
    """A parser that also reads settings files (`@FILE`: one `--flag value` a line, `#` starts a comment)."""

    def __init__(self, *args: Any, **kwargs: Any):
        kwargs = {"fromfile_prefix_chars": "@", "allow_abbrev": False,
                  "formatter_class": argparse.ArgumentDefaultsHelpFormatter, **kwargs}
        super().__init__(*args, **kwargs)

    def convert_arg_line_to_args(self, arg_line: str) -> list[str]:
        return arg_line.split("#", 1)[0].split()

    def error(self, message: str) -> None:
        self.exit(2, f"{self.prog}: {message} (see --help)\n")


def add_flags(parser: argparse.ArgumentParser, config: type) -> None:
    """Add an option for every field of the dataclass `config`, under its title (the first line of its docstring)."""
    group = parser.add_argument_group((config.__doc__ or config.__name__).splitlines()[0].rstrip("."))
    for item in fields(config):
        _add_option(group, item)


def _add_option(group: Any, item: Field) -> None:
    options = dict(item.metadata)
    names = [f"--{item.name}", *options.pop("aliases", ())]
    default = None if item.default is MISSING else item.default
    if isinstance(default, bool):
        # Both `--x`, `--x false` and VideoMAE's `--no_x` work.
        group.add_argument(*names, dest=item.name, nargs="?", const=True, type=parse_bool, default=default, **options)
        group.add_argument(f"--no_{item.name}", dest=item.name, action="store_false", help=argparse.SUPPRESS)
        return
    if "type" not in options and "nargs" not in options:
        options["type"] = _type_of(item, default)
    group.add_argument(*names, dest=item.name, default=default, **options)


def _type_of(item: Field, default: Any) -> type:
    if default is not None:
        return type(default)
    kinds = [kind for kind in get_args(item.type) if kind is not type(None)]
    return kinds[0] if kinds else item.type


def from_args(config: type[Config], args: argparse.Namespace) -> Config:
    """The dataclass back from parsed arguments."""
    return config(**{item.name: getattr(args, item.name) for item in fields(config)})


def given_flags(argv: Sequence[str]) -> set[str]:
    """Names of the options that stand in `argv` (used to tell a default from a choice)."""
    return {word.split("=", 1)[0].lstrip("-").replace("-", "_") for word in argv if word.startswith("--")}
