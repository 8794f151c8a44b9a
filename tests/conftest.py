"""Shared fixtures: a small set of real .mp4 files, and the folder of given clips where there is one."""

import os
import random
import signal
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

torch.set_num_threads(1)


def pytest_addoption(parser):
    parser.addoption("--fork", action="append", default=[], metavar="NAME=PATH", help="a clone for test_real_fork.py; "
                     "NAME: videomae, adamae, videomaev2, mae_dfer, mae_st; a PATH alone is MCG-NJU/VideoMAE's")
    parser.addoption("--long", action="store_true", help="fault tests at full size: 200 files, 2,000 clips, 20 kills")


def pytest_configure():
    """A shell starts what it runs in the background with Ctrl-C ignored, which every process started here inherits."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Files with slow tests first: a process takes whole files (their fixtures are costly), the last ends the run."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    for item in items:
        if item.get_closest_marker("faults") or item.get_closest_marker("slow"):
            # Real processes, signals and kills, with limits of time: on a machine that is busy once more, and said so.
            item.add_marker(pytest.mark.flaky(reruns=1))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(autouse=True)
def the_same_numbers():
    """Each test begins with the same random state, whatever tests ran before it in this process."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


@pytest.fixture(autouse=True)
def nothing_decoded_before():
    """A test that runs a comparison's cell in its own process leaves no decoded videos to the next one."""
    yield
    if decode := sys.modules.get("tats.datasets.video.decode"):
        decode.keep_videos(0)


@pytest.fixture
def fault(request):
    """`fault(name, happened, lost)`: a row of the table of faults that stands at the end of the run."""
    def note(name: str, happened: str, lost: str = "nothing") -> None:
        # On the report, not in a list here: with -n tests run in other processes, and their reports travel.
        request.node.user_properties.append(("fault", [name, happened, lost]))

    return note


def pytest_terminal_summary(terminalreporter):
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ())
               if report.when == "call"]
    noted = [(key, value, report) for report in reports for key, value in report.user_properties]
    rows = sorted([*value, "" if report.passed else "FAILED"] for key, value, report in noted if key == "fault")
    if rows:
        write_table(terminalreporter, "faults", [["fault", "what happened", "lost", ""], *rows], "  ", "")
    forks = {}
    for key, value, report in noted:
        if key == "fork":
            forks.setdefault(value["codebase"], {}).update(
                value if report.passed else {name: f"{cell} FAILED" if name != "codebase" else cell
                                             for name, cell in value.items()})
    if forks:
        names = list(dict.fromkeys(name for cells in forks.values() for name in cells))
        rows = [[str(cells.get(name, "")) for name in names] for cells in forks.values()]
        write_table(terminalreporter, "forks", [names, ["---"] * len(names), *rows], " | ", "|")


def write_table(terminalreporter, title, rows, between, edge):
    """The first row is the heading; columns are aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    terminalreporter.section(title)
    for row in rows:
        cells = between.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        terminalreporter.write_line(f"{edge} {cells} {edge}" if edge else cells.rstrip())


@pytest.fixture(autouse=True)
def the_same_environment():
    """Programs that run within a test write to the environment (ranks, folders), and the next one must not read it."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """A folder of moving shapes: 24 train, 8 val and 8 test videos with their lists and truth."""
    from tats.datasets.moving_shapes import ShapesConfig, write_moving_shapes

    folder = tmp_path_factory.mktemp("shapes")
    write_moving_shapes(ShapesConfig(folder, (24, 8, 8)), workers=1, progress=False)
    return folder


@pytest.fixture(scope="session")
def given():
    """The folder of given data (clips, golden values); tests that need it are skipped without."""
    folder = Path(os.environ.get("TATS_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "clips").is_dir():
        pytest.skip("no folder of given clips (TATS_SHARED)")
    return folder
