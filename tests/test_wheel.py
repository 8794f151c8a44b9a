"""The wheel, built and installed where the checkout is not: every module imports, the programs list and start."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow

IMPORT_ALL = """
import importlib, pkgutil, sys
import tats, tats.models, tats.masking, tats.datasets, tats.engines
assert all("clean" in folder for package in (tats, tats.models) for folder in package.__path__), tats.__path__
for package in (tats.models, tats.masking, tats.datasets, tats.engines):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
"""


# In one process: most of a program's start is torch.
HELP_ALL = """
import runpy, sys
for module in sys.argv[1:]:
    sys.argv = [module, "--help"]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        assert not end.code, module
"""


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """python of an environment that has this project's wheel, and this environment's other packages."""
    folder = tmp_path_factory.mktemp("clean")
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".git", ".venv", "output", "build", "*.egg-info"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source], check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    python = folder / "env/bin/python"
    place = subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], check=True,
                           capture_output=True, text=True).stdout.strip()
    wheel, = folder.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", place, wheel], check=True)
    # Behind the wheel's own files; .pth files in there, such as that of an editable install, are not followed.
    (Path(place) / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def run(python, *arguments):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL"))}
    return subprocess.run([python, *arguments], capture_output=True, text=True, env=environment,
                          cwd=python.parents[2])


def test_every_module_imports(clean):
    done = run(clean, "-c", IMPORT_ALL)
    assert done.returncode == 0, done.stderr


def test_the_programs_are_listed_and_start(clean):
    listed = run(clean, "-m", "tats")
    modules = [line.split()[2] for line in listed.stdout.splitlines()]
    assert listed.returncode == 0 and {"tats.engines.run_mae_pretraining", "tats.engines.benchmark",
                                       "tats.models.export_hf"} <= set(modules)
    assert all(len(line.split()) > 5 for line in listed.stdout.splitlines())
    assert run(clean, "-m", "tats", "--version").stdout == run(clean, "-m", "tats.engines.report", "--version").stdout
    unknown = run(clean, "-m", "tats", "train")
    assert unknown.returncode == 2 and "train" in unknown.stderr
    helped = run(clean, "-c", HELP_ALL, *modules)
    assert helped.returncode == 0 and helped.stdout.count("usage: ") == len(modules), helped.stderr


def test_a_program_runs_from_the_wheel(clean, shapes, tmp_path):
    done = run(clean, "-m", "tats", "run_mae_pretraining", "--model", "pretrain_tats_tiny", "--data_set",
               "moving-shapes", "--pretrain_aug", "resize", "--batch_size", "8", "--epochs", "1", "--mae_only_epochs",
               "0", "--num_workers", "0", "--mask_type", "tats", "--mask_ratio", "0.9", "--data_path",
               str(shapes / "train.csv"), "--output_dir", str(tmp_path))
    assert done.returncode == 0 and (tmp_path / "checkpoint-0.pth").is_file(), done.stderr
    report = run(clean, "-m", "tats", "report", str(tmp_path), "--out", str(tmp_path / "report.html"))
    assert report.returncode == 0 and "fixed_error" in (tmp_path / "report.html").read_text(), report.stderr
