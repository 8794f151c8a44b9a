"""List the programs, or run one of them.

    python -m tats                                 the programs, a line each
    python -m tats --version
    python -m tats run_mae_pretraining FLAGS       the same as python -m tats.engines.run_mae_pretraining FLAGS
"""

import ast
import importlib.metadata
import importlib.util
import os
import pkgutil
import runpy
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

FOLDERS = ("tats.engines", "tats.datasets", "tats.models")


def programs() -> Iterator[tuple[str, str]]:
    """(module, first line of its docstring) of every program; nothing is imported but the three folders."""
    for folder in FOLDERS:
        for found in pkgutil.iter_modules(importlib.import_module(folder).__path__):
            if found.name == "front_door":   # this file, which is tats.__main__ once installed
                continue
            base = Path(found.module_finder.path) / found.name
            source = base / "__main__.py" if found.ispkg else base.with_suffix(".py")
            text = source.read_text(encoding="utf-8") if source.is_file() else ""
            if '\nif __name__ == "__main__":\n' in text:
                yield f"{folder}.{found.name}", (ast.get_docstring(ast.parse(text)) or "").splitlines()[0]


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 2 for a name that is no program."""
    name, *rest = [*(sys.argv[1:] if argv is None else argv), ""]
    if name in ("", "-h", "--help"):
        known = list(programs())
        width = max(len(module) for module, _ in known)
        sys.stdout.write("".join(f"python -m {module:<{width}}  {line}\n" for module, line in known))
        return 0
    if name == "--version":
        sys.stdout.write(f"tats {importlib.metadata.version('tats-video')}\n")
        return 0
    module = {module.rsplit(".", 1)[1]: module for module, _ in programs()}.get(name)
    if module is None:
        sys.stderr.write(f"error: tats has no program {name}; python -m tats lists them\n")
        return 2
    importlib.import_module("tats.datasets.processes.cores").wait_asleep(os.environ)   # before torch is loaded
    sys.argv = [module, *rest[:-1]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
