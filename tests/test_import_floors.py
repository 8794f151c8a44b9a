"""Imports run one way, run_scripts -> engines -> datasets, masking -> models, and need no more than they use."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What a room may import besides itself.
ALLOWED = {"models": set(), "masking": {"models"}, "datasets": {"models"}, "engines": {"models", "masking", "datasets"}}
FILES = [path for room in ALLOWED for path in sorted((ROOT / room).rglob("*.py"))]


def imported_rooms(path):
    """(line, room or first name of a module) of every import of ours, at any depth of the code."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level <= 2, f"{path}:{node.lineno} reaches above the package"
            names = [node.module] if node.module else [alias.name for alias in node.names]
            if node.level == 2:
                yield from ((node.lineno, name.split(".")[0]) for name in names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "absolute " + node.module.split(".")[0]
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, "absolute " + alias.name.split(".")[0]) for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way_and_are_relative(path):
    room = path.relative_to(ROOT).parts[0]
    for line, name in imported_rooms(path):
        kind, _, module = name.rpartition(" ")
        if kind:
            ours = {"tats", "tests", "run_scripts", *ALLOWED}
            assert module not in ours, f"{path}:{line} imports {module} absolutely"
        else:
            assert module in ALLOWED[room] | {room}, f"{path}:{line}: {room} must not import {module}"


def test_the_reader_of_imports_sees_them_all(tmp_path):
    source = ("import os.path\nfrom tats.models import a\nfrom . import b\nfrom .c import d\nfrom ..masking import e\n"
              "def f():\n    from .. import engines\n")
    (tmp_path / "x.py").write_text(source)
    assert list(imported_rooms(tmp_path / "x.py")) == [(1, "absolute os"), (2, "absolute tats"), (5, "masking"),
                                                       (7, "engines")]


OPTIONAL = ("decord", "av", "torchcodec", "deepspeed", "tensorboardX", "transformers", "safetensors", "matplotlib",
            "sklearn", "tqdm")


@pytest.mark.parametrize(("module", "forbidden"), [
    ("tats.models", ("tats.masking", "tats.engines", "tats.datasets")),
    ("tats.masking", ("tats.engines", "tats.datasets")),
    ("tats.datasets", ("tats.engines", "tats.masking")),
])
def test_import_with_nothing_but_torch_and_timm(module, forbidden, tmp_path):
    """In a fresh interpreter where the optional libraries cannot be imported at all."""
    code = (f"import sys\nfor name in {OPTIONAL}: sys.modules[name] = None\nimport {module}\n"
            f"found = [name for name in sys.modules if name.startswith({forbidden})]\n"
            "assert not found, found")
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)


def test_no_model_is_registered_with_timm(tmp_path):
    code = ("import timm, json\nbefore = set(timm.list_models())\nimport tats.models\n"
            "assert set(timm.list_models()) == before")
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=tmp_path)
