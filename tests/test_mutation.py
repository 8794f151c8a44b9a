"""The mutation harness on a module of five lines: what it changes, and that it tells survivors from the noticed."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = Path(__file__).parent / "mutation"
SOURCE = '''def area(width: int | None, height: float = 2.0):
    log = []
    log.append(width)  # for nobody
    if width is None:
        raise ValueError("no width")
    return width * height
'''


@pytest.fixture
def mutants(monkeypatch):
    pytest.importorskip("cosmic_ray")
    monkeypatch.syspath_prepend(str(HARNESS))
    import mutants

    return mutants


def test_every_place_but_types_is_changed_once(mutants):
    found = mutants.sample({"a.py": SOURCE}, 100, seed=0)
    assert len({(one.line, one.column) for one in found}) == len(found)   # one mutant a site
    assert {one.line for one in found} == {1, 3, 4, 5, 6}
    assert [one.column for one in found if one.line == 1] == [SOURCE.index("2.0")]   # the default, not `int | None`
    assert {(one.before, one.after) for one in found if one.line in (3, 5)} == {
        ("log.append(width)", "pass"), ('raise ValueError("no width")', "pass")}
    for one in found:
        assert mutants.mutated(SOURCE, one.operator, one.occurrence).splitlines()[one.line - 1] != SOURCE.splitlines()[
            one.line - 1]


def test_the_sample_follows_the_seed_and_no_other_file(mutants):
    few = mutants.sample({"a.py": SOURCE}, 3, seed=1)
    assert few == mutants.sample({"a.py": SOURCE}, 3, seed=1)
    moved = mutants.sample({"a.py": "# a line more\n" + SOURCE}, 3, seed=1)
    assert [(one.after, one.line) for one in moved] == [(one.after, one.line + 1) for one in few]


RUN = """
import sys
import run, targets
from pathlib import Path
root = Path(sys.argv[1])
run.ROOT = root
targets.TARGETS.clear()
targets.TARGETS["models/*.py"] = ("test_area.py",)
run.main(["--sample", "100", "--out", str(root / "out"), *sys.argv[2:]])
"""


@pytest.mark.slow
def test_survivors_are_told_from_what_was_noticed(tmp_path, mutants):
    """The same command goes on: what has been tried is not tried again, unless it is asked for."""
    (tmp_path / "models").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "pyproject.toml").write_text(
        "[tool.pytest.ini_options]\naddopts = '--import-mode=importlib'\nmarkers = ['slow: ', 'faults: ']\n")
    (tmp_path / "models" / "area.py").write_text(SOURCE)
    (tmp_path / "tests" / "test_area.py").write_text(
        "from tats.models.area import area\n\n\ndef test_area():\n    assert area(3, 5) == 15\n")

    def run(*more):
        return subprocess.run([sys.executable, "-c", RUN, str(tmp_path), *more], capture_output=True, text=True,
                              env=os.environ | {"PYTHONPATH": str(HARNESS)}, check=False)

    done = run()
    assert done.returncode == 0, done.stderr[-3000:]
    rows = list(csv.DictReader((tmp_path / "out" / "mutants.csv").read_text().splitlines()))
    verdicts = {(row["before"], row["verdict"]) for row in rows}
    assert ("log.append(width)", "survived") in verdicts and ('raise ValueError("no width")', "survived") in verdicts
    assert {row["verdict"] for row in rows if row["line"] in ("4", "6")} == {"killed"}
    assert all(row["by"].endswith("test_area.py::test_area") for row in rows if row["verdict"] == "killed")
    page = (tmp_path / "out" / "summary.md").read_text()
    survived = sum(row["verdict"] == "survived" for row in rows)
    assert f"| models/area.py | {len(rows)} | {len(rows) - survived} | 0 | {survived} | 0 |" in page
    assert "- models/area.py:3 (DeleteStatement) `log.append(width)` → `pass`" in page
    assert (tmp_path / "models" / "area.py").read_text() == SOURCE
    assert f"{len(rows)} mutants, 0 of them to be tried" in run().stderr
    assert f"{len(rows)} mutants, {survived} of them to be tried" in run("--again", "survived").stderr
