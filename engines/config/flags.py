"""Flags are declared once, as fields of frozen dataclasses; argparse options, checks and docs/flags.md follow.

argparse and not a configuration framework, so that the same call extends a fork's own parser.
"""

import argparse
import importlib.metadata
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from difflib import get_close_matches
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from .intervals import Interval
from .plugins import load_plugins

Config = TypeVar("Config")
EVERYWHERE = "(-inf, inf)"   # where a number's declaration names no interval: nan and inf are refused all the same

# What a flag is to the identity of a run, and so what becomes of another value on a later start of the same run.
KEPT = True          # it changes what is computed: refused, unless --change names it
FREE = False         # it only changes how the run is carried out: another value is harmless
FIXED = "fixed"      # the network, its optimiser's state or the run's order are made of it: refused, --change or not
CONTENT = "content"  # as KEPT, and not the path counts but what is in the file
SOURCE = "source"    # as FIXED, and not the path counts but what is in the file
LONGER = "longer"    # a larger value makes the run longer, which is allowed; a smaller one as KEPT
CODE = "code"        # as KEPT, and not the name counts but the sources of the modules
BATCH = "batch"      # allowed while the clips of a step stay the same; else as KEPT
SETUP = "setup"      # it changes nothing that is computed, but a checkpoint is of one kind: refused, --change or not
IDENTITIES = (KEPT, FREE, FIXED, CONTENT, SOURCE, LONGER, CODE, BATCH, SETUP)


def flag(default: Any, help: str, *, within: str = EVERYWHERE, identity: bool | str = KEPT, **options: Any) -> Any:
    """A dataclass field that is also a command-line option.

    Args:
        within: the interval of a number, or of each number of a list; None is always allowed where it is the default.
        identity: one of `IDENTITIES`.
        options: go to `add_argument` (choices, nargs, type, action); `aliases=("--other",)` adds further spellings.
    """
    return field(default=default, metadata={"help": help, "within": within, "identity": identity, **options})


def parse_bool(text: str) -> bool:
    """'true', '1', 'yes' -> True, 'false', '0', 'no' -> False (argparse's `type=bool` makes 'False' true)."""
    value = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(text.lower())
    if value is None:
        raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")
    return value


@dataclass(frozen=True)
class PluginConfig:
    """Plugins"""

    plugin: list[str] | None = flag(None, "import this module (or file.py) before the flags are read: it registers "
                                    "strategies, rewards, numbers of the log or data sets of your own. Repeatable",
                                    action="append", metavar="MODULE", identity=CODE)


def installed_version() -> str:
    """Of this package, "unknown" where the folders were copied and not installed."""
    try:
        return importlib.metadata.version("tats-video")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


class FlagParser(argparse.ArgumentParser):
    """A parser that also reads settings files (`@FILE`: one `--flag value` a line, quoted where a value has spaces; `#`
    at the start of a line or behind a space starts a comment), and that imports the modules of `--plugin` before all
    else."""

    def __init__(self, *args: Any, **kwargs: Any):
        kwargs = {"fromfile_prefix_chars": "@", "allow_abbrev": False,
                  "formatter_class": argparse.ArgumentDefaultsHelpFormatter, **kwargs}
        super().__init__(*args, **kwargs)
        self.add_argument("--version", action="version", version=f"tats {installed_version()}")
        add_flags(self, PluginConfig)

    def convert_arg_line_to_args(self, arg_line: str) -> list[str]:
        line = re.split(r"(?:^|\s)#", arg_line, maxsplit=1)[0]
        try:
            return shlex.split(line) if {'"', "'"} & set(line) else line.split()
        except ValueError as error:
            raise ValueError(f"a line of a settings file: {error}: {line.strip()}") from None

    def parse_known_args(self, args=None, namespace=None):
        """As argparse's, after the plugins. Raises ValueError: a plugin cannot be imported, or a settings file is none.
        """
        self._look_at_files(sys.argv[1:] if args is None else args, ())
        scout = argparse.ArgumentParser(add_help=False, allow_abbrev=False, fromfile_prefix_chars="@")
        scout.convert_arg_line_to_args = self.convert_arg_line_to_args
        scout.error = self.error
        scout.add_argument("--plugin", action="append", default=[])
        load_plugins(scout.parse_known_args(args)[0].plugin)
        return super().parse_known_args(args, namespace)

    def _look_at_files(self, words: Iterable[str], within: tuple[str, ...]) -> None:
        """Raises ValueError: a word names a file of settings that is no text, or that names itself again."""
        for name in (word[1:] for word in words if word.startswith("@")):
            if name in within:
                raise ValueError(f"the settings file {name} names itself (@{name}): take that line out")
            try:
                lines = Path(name).read_text(encoding="utf-8").splitlines()
            except UnicodeDecodeError as error:
                raise ValueError(f"the settings file {name} is no UTF-8 text ({error})") from None
            except OSError:   # argparse says it
                continue
            for line in lines:
                self._look_at_files(self.convert_arg_line_to_args(line), (*within, name))

    def error(self, message: str) -> None:
        self.exit(2, f"{self.prog}: {message} ({self._meant(message)}see --help)\n")

    def _meant(self, message: str) -> str:
        """The flags that are spelt nearly like those that are unknown."""
        unknown = message.removeprefix("unrecognized arguments: ") if message.startswith("unrecognized") else ""
        flags = [word.split("=")[0] for word in unknown.split() if word.startswith("--")]
        near = [name for flag in flags for name in get_close_matches(flag, self._option_string_actions, 1, 0.8)]
        return f"did you mean {' '.join(near)}? " if near else ""


def add_flags(parser: argparse.ArgumentParser, config: type, beside: str = "") -> list[str]:
    """Add an option for every field of the dataclass `config`, under its title (the first line of its docstring).

    Args:
        beside: prefix of an option whose name the parser has already, `--PREFIXname`; empty: argparse refuses it.

    Returns:
        The names of the fields that got the prefix; `from_args(..., beside)` reads them.
    """
    group = parser.add_argument_group((config.__doc__ or config.__name__).splitlines()[0].rstrip("."))
    renamed = []
    for item in fields(config):
        # argparse's own public way to ask for a name that is taken is the error that it raises, halfway.
        taken = beside and {f"--{item.name}", *item.metadata.get("aliases", ())} & set(parser._option_string_actions)
        if taken:
            renamed.append(item.name)
        _add_option(group, item, beside if taken else "")
    return renamed


def _add_option(group: Any, item: Field, prefix: str = "") -> None:
    options = {name: value for name, value in item.metadata.items() if name not in ("within", "identity")}
    aliases, name = options.pop("aliases", ()), f"{prefix}{item.name}"
    names = [f"--{name}", *(() if prefix else aliases)]
    default = None if item.default is MISSING else item.default
    if isinstance(default, bool):
        # Both `--x`, `--x false` and VideoMAE's `--no_x` work.
        group.add_argument(*names, dest=name, nargs="?", const=True, type=parse_bool, default=default, **options)
        group.add_argument(f"--no_{name}", dest=name, action="store_false", help=argparse.SUPPRESS)
        return
    if not {"type", "nargs", "action"} & set(options):
        options["type"] = _type_of(item, default)
    group.add_argument(*names, dest=name, default=default, **options)


def _type_of(item: Field, default: Any) -> type:
    if default is not None:
        return type(default)
    kinds = [kind for kind in get_args(item.type) if kind is not type(None)]
    return kinds[0] if kinds else item.type


def from_args(config: type[Config], args: argparse.Namespace) -> Config:
    """The dataclass back from parsed arguments, its values checked.

    Raises:
        ValueError: see `check_values`.
    """
    made = config(**{item.name: getattr(args, item.name) for item in fields(config)})
    check_values(made)
    return made


def check_values(config: Any) -> None:
    """What argparse checks of a command line, for values that came in another way, and the intervals.

    Raises:
        ValueError: a value of the dataclass is of another type than its flag's, none of its choices, or a number
            outside of its interval.
    """
    for item in fields(config):
        value, within, choices = getattr(config, item.name), item.metadata["within"], item.metadata.get("choices")
        if not any(_is_a(value, kind) for kind in get_args(item.type) or (item.type,)):
            wanted = getattr(item.type, "__name__", None) or str(item.type)
            raise ValueError(f"--{item.name} must be of type {wanted}, got {value!r} ({type(value).__name__})")
        values = value if isinstance(value, list | tuple) else (value,)
        if choices is not None and value is not None and not set(values) <= set(choices):
            raise ValueError(f"--{item.name} must be one of {', '.join(map(str, choices))}, got {value!r}")
        for number in values:
            if isinstance(number, bool) or not isinstance(number, int | float) or number in Interval.parse(within):
                continue
            wanted = "be finite" if within == EVERYWHERE else f"lie in {within}"
            raise ValueError(f"--{item.name} must {wanted}, got {number:g}")


def _is_a(value: Any, kind: Any) -> bool:
    """Whether a value may stand where its field says `kind`; whole numbers count as numbers, lists as tuples."""
    members, kind = get_args(kind), get_origin(kind) or kind
    if kind in (int, float):
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    if kind in (list, tuple):
        return isinstance(value, list | tuple) and all(_is_a(one, members[0]) for one in value if members)
    return not isinstance(kind, type) or isinstance(value, kind)


def settings_from_args(cls: type[Config], args: argparse.Namespace) -> Config:
    """A dataclass of config dataclasses, its topics, from parsed arguments. Raises ValueError, as `from_args`."""
    return cls(**{item.name: from_args(item.type, args) for item in fields(cls)})


def read_changes(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """The parsed flags, after those that `--change FLAG VALUE` names have got their new value; "none" is the None of a
    flag whose default that is.

    Raises:
        ValueError: --change names itself, or a flag twice.
    """
    changes = parser.parse_args(argv).change or ()
    names = [name.lstrip("-") for name, _ in changes]
    for name in names:
        if name == "change" or names.count(name) > 1:
            raise ValueError(f"--change {name}: name each flag once, and only flags that the run has a value of")
    none = {name for name, (_, value) in zip(names, changes, strict=True)
            if value.lower() == "none" and parser.get_default(name) is None}
    words = [word for name, (_, value) in zip(names, changes, strict=True) if name not in none
             for word in (f"--{name}", *_words_of(parser, name, value))]
    args = parser.parse_args([*argv, *words])
    for name in none:
        setattr(args, name, None)
    return args


def _words_of(parser: argparse.ArgumentParser, name: str, value: str) -> list[str]:
    """The words of a flag's new value: a flag of one value takes all of it, spaces too."""
    action = parser._option_string_actions.get(f"--{name}")
    return [value] if action is not None and action.nargs is None else value.split() or [""]


def given_flags(argv: Sequence[str]) -> set[str]:
    """Names of the options that stand in `argv` (used to tell a default from a choice)."""
    return {word.split("=", 1)[0].lstrip("-").replace("-", "_") for word in argv if word.startswith("--")}


def declared_flags(configs: Iterable[type]) -> dict[str, Field]:
    """Every flag of some config dataclasses by name."""
    return {item.name: item for config in configs for item in fields(config)}
