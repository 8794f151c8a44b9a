"""The source files of a plugin, and a digest of them: another text under the same name is another plugin."""

import ast
import hashlib
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points
from pathlib import Path

from .plugins import ENTRY_POINTS, module_name

OWN = __name__.partition(".")[0]   # this package: a plugin imports it, and it is no part of the plugin


def digests_of(names: Iterable[str]) -> dict[str, str]:
    """16 hexadecimal digits of the sources by module: of `names`, as --plugin takes them, and of the plugins that come
    with installed packages. All of them have been imported."""
    modules = {module_name(name) for name in names} | {point.module for point in entry_points(group=ENTRY_POINTS)}
    return {name: _digest(name) for name in sorted(modules) if name in sys.modules}


def _digest(name: str) -> str:
    """Of a package: all of its .py files. Of a module: its file, and the modules beside it that it imports."""
    module = sys.modules[name]
    file, top = Path(module.__file__).resolve(), name.partition(".")[0]
    root = file.parents[name.count(".") + (file.name == "__init__.py")]   # in which its first name is looked for
    if hasattr(module, "__path__"):
        found = sorted(file.parent.rglob("*.py"))
    else:
        shared = root in {Path(sysconfig.get_path(one)).resolve() for one in ("stdlib", "purelib", "platlib")}
        found = [file, *sorted(_imported(file, root, {top} if shared else None))]
    digest = hashlib.sha256()
    for path in found:   # its own name does not count, those of the others do
        digest.update(f"{os.path.relpath(path, file.parent) if path != file else ''}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _imported(file: Path, root: Path, within: set[str] | None) -> set[Path]:
    """The files below `root` that a file imports, and those that they import; `within`: of these first names alone."""
    seen, todo = set(), [file]
    while todo:
        path = todo.pop()
        for parts in _names_in(path, root):
            if parts[0] == OWN or (within is not None and parts[0] not in within):
                continue
            for end in range(1, len(parts) + 1):
                place = root.joinpath(*parts[:end])
                for one in (place.with_suffix(".py"), place / "__init__.py"):
                    if one.is_file() and one not in seen and one != file:
                        seen.add(one)
                        todo.append(one)
    return seen


def _names_in(path: Path, root: Path) -> Iterator[tuple[str, ...]]:
    """The dotted names that a file imports, from `root` on."""
    own = path.parent.relative_to(root).parts
    if own:
        yield own   # the packages that it lies in run before it
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):   # compiled, or of another Python: it is what it is, and imports nothing of ours
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (tuple(one.name.split(".")) for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            before = own[:len(own) - node.level + 1] if node.level else ()
            base = (*before, *(node.module.split(".") if node.module else ()))
            yield from ((*base, one.name) for one in node.names)
