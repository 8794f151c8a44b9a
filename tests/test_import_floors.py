"""Imports run one way, run_scripts -> engines -> datasets, masking -> models, and need no more than they use."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# The floors of the house, from the ground up. A file imports files of its own room and of the rooms that stand on a
# line above its own; two rooms of one line know nothing of each other. "engines/run" stands for the programs, "loops"
# for the three engines: both lie in engines/ itself.
FLOORS = [
    ["models/fused"], ["models"], ["models/convert"], ["models/programs"],
    ["datasets/sources"],
    ["masking", "datasets/synthetic", "datasets/video", "datasets/transforms"],
    ["datasets/lists", "datasets/processes"], ["datasets"],
    ["engines/config"], ["engines/core", "engines/machine"], ["engines/training"],
    ["engines/pretrain", "engines/finetune"], ["engines/loops"], ["engines/motion", "engines/figures"],
    ["engines/runs"], ["engines/hook"], ["engines/programs"],
    ["engines/benchmark", "engines/compare_masks", "engines/front_door", "engines/report"],
    ["engines/check_gpu", "engines/compare_clips"],
]
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
FOLDERS = ("models", "masking", "datasets", "engines")
# What one of the four folders may import besides itself.
ALLOWED = {"models": set(), "masking": {"models"}, "datasets": {"models"}, "engines": {"models", "masking", "datasets"}}
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def room_of(path):
    """The room of a file of the four folders."""
    path = path.relative_to(ROOT)
    folder = path.parent.as_posix()
    if path.name == "comparison_pairs.py":   # a program over the tables of compare_masks
        return "engines/compare_masks"
    if folder == "engines":
        return "engines/loops" if path.name.startswith("engine_for_") else "engines/programs"
    return "models/programs" if folder == "models" and path.stem.startswith(("export_", "import_")) else folder


def file_of(parts):
    """The file of a module, named by its parts below the root; None where it is no module."""
    base = ROOT.joinpath(*parts)
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def imports(path):
    """(line, file) of every import of ours, at any depth of the code; AssertionError where one is not relative."""
    package = path.parent.relative_to(ROOT).parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level <= len(package) + 1, f"{path}:{node.lineno} reaches above the package"
            base = [*package[: len(package) - node.level + 1], *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                yield node.lineno, file_of([*base, alias.name]) or file_of(base)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            ours = {name for name in names if name.split(".")[0] in {"tats", "tests", "run_scripts", *FOLDERS}}
            assert not ours, f"{path}:{node.lineno} imports {ours} absolutely"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way_and_are_relative(path):
    room = room_of(path)
    for line, target in imports(path):
        folder, other = path.relative_to(ROOT).parts[0], target.relative_to(ROOT).parts[0]
        assert other == folder or other in ALLOWED[folder], f"{path}:{line}: {folder} must not import {other}"
        below = room_of(target)
        if path.name != "__init__.py" and target.name != "__init__.py":   # a front door names what stands behind it
            assert below == room or LEVEL[below] < LEVEL[room], f"{path}:{line}: {room} must not import {below}"


def test_no_file_imports_itself_in_a_circle():
    """Imports inside functions count too: a circle that is only put off is one."""
    graph = {path: {target for _, target in imports(path)} - {path} for path in FILES}
    while leaves := [path for path, targets in graph.items() if not targets & set(graph)]:
        for path in leaves:
            del graph[path]
    assert not graph, f"in or above a circle: {sorted(str(path.relative_to(ROOT)) for path in graph)}"


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES}), ids=str)
def test_a_room_is_small_enough_to_survey(folder):
    assert len([path for path in folder.glob("*.py") if path.name != "__init__.py"]) <= 15


def test_the_reader_of_imports_sees_them_all(tmp_path, monkeypatch):
    for folder in ("engines/core", "masking"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "__init__.py").touch()
    for name in ("engines/core/b.py", "engines/core/x.py", "engines/__init__.py", "engines/e.py", "masking/f.py"):
        (tmp_path / name).touch()
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / "engines/core/x.py"
    path.write_text("import os.path\nfrom . import b\nfrom .b import d\nfrom ...masking import e\n"
                    "def f():\n    from ...masking.f import g\n    from .. import e\n")
    assert [(line, str(target.relative_to(tmp_path))) for line, target in imports(path)] == [
        (2, "engines/core/b.py"), (3, "engines/core/b.py"), (4, "masking/__init__.py"), (6, "masking/f.py"),
        (7, "engines/e.py")]
    path.write_text("from tats.models import a\n")
    with pytest.raises(AssertionError, match="absolutely"):
        list(imports(path))


OPTIONAL = ("decord", "av", "torchcodec", "deepspeed", "tensorboardX", "transformers", "safetensors", "matplotlib",
            "sklearn", "tqdm", "pandas", "tabulate", "jinja2", "triton")


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
