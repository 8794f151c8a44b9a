"""Modules of a user's own, imported before the flags are read, so that what they register is there for every flag."""

import importlib
import os
import sys
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path

ENTRY_POINTS = "tats.plugins"   # the group by which an installed package names modules that register something


def load_plugins(names: Iterable[str]) -> None:
    """Import the modules that installed packages name in the entry point group `tats.plugins`, then `names`.

    Args:
        names: modules, looked for in the working directory too, or paths of .py files. Each is imported once.

    Raises:
        ValueError: one cannot be imported.
    """
    for point in entry_points(group=ENTRY_POINTS):
        _imported(f"the entry point {point.name} = {point.value}", point.load)
    for name in names:
        _imported(f"--plugin {name}", lambda name=name: _import_module_or_file(name))


def _imported(what: str, load) -> None:
    try:
        load()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's module may raise anything, or end the program
        raise ValueError(f"{what} cannot be imported: {type(error).__name__}: {error}") from error


def module_name(name: str) -> str:
    """The module that a name, or the path of a .py file, is imported as."""
    return Path(name).stem if name.endswith(".py") else name


def _import_module_or_file(name: str) -> None:
    if not name.endswith(".py"):
        if not all(part.isidentifier() for part in name.split(".")):
            raise ImportError("it is neither a MODULE nor a FILE.py")
        if os.getcwd() not in sys.path:   # as `python -m` has it; torchrun and installed scripts do not
            sys.path.insert(0, os.getcwd())
        if getattr(importlib.import_module(name), "__file__", None) is None:
            raise ImportError("it is a folder without __init__.py, or built into Python, and nothing of it has run: "
                              f"name a module in it ({name}.MODULE), or a .py file")
        return
    path = Path(name).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    # By its folder and stem, so that a loader's worker that starts afresh can import it again by name.
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    module = importlib.import_module(module_name(name))
    if Path(module.__file__ or "").resolve() != path:
        raise ImportError(f"the name {path.stem} belongs to {module.__file__}: rename the file")
