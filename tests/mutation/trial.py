"""Run tests on a mutated copy of the checkout, as forks of one process that has torch imported."""

import contextlib
import os
import resource
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

_LEFT_OUT = (".git", ".venv", ".deps", "output", "__pycache__", "*.pth", ".pytest_cache", ".ruff_cache")


class Outcome(NamedTuple):
    """verdict: survived, killed, timeout, or broken (the tests could not be run). by: the test that noticed."""

    verdict: str
    by: str
    seconds: float


def copy_checkout(root: Path, folder: Path) -> Path:
    """A copy below `folder`, in a folder `tats`, so that it is importable by that name."""
    return Path(shutil.copytree(root, folder / "tats", ignore=shutil.ignore_patterns(*_LEFT_OUT)))


class _FirstFailure:
    """A pytest plugin."""

    def __init__(self):
        self.name = ""

    def pytest_runtest_logreport(self, report):
        if report.failed and not self.name:
            self.name = report.nodeid

    def pytest_collectreport(self, report):
        if report.failed and not self.name:
            self.name = f"{report.nodeid} (collecting)"


class Trial:
    """The tests of one mutant, running. `poll` until it gives an outcome.

    Args:
        copy: from `copy_checkout`, mutated. tests: below its tests/. cpu_seconds: of processor time, then they end.
    """

    def __init__(self, copy: Path, tests: tuple[str, ...], cpu_seconds: int):
        self.copy, self.begun, self.limit = copy, time.monotonic(), 10 * cpu_seconds + 60
        self.note = copy.parent / "note"
        self.note.unlink(missing_ok=True)
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._run(tests, cpu_seconds)

    def _run(self, tests: tuple[str, ...], cpu_seconds: int) -> None:
        """In the fork; does not return."""
        code = 70
        try:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 5))
            with open(self.copy.parent / "log", "w") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            os.chdir(self.copy)
            sys.path.insert(0, str(self.copy.parent))
            os.environ |= {"PYTHONPATH": str(self.copy.parent), "OMP_NUM_THREADS": "1"}
            first = _FirstFailure()
            code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow and not faults",
                                "--tb=line", "-c", "pyproject.toml", *(f"tests/{test}" for test in tests)],
                               plugins=[first])
            self.note.write_text(first.name)
        finally:
            os._exit(int(code))

    def poll(self) -> Outcome | None:
        """None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        seconds = round(time.monotonic() - self.begun, 1)
        if pid == 0:
            if seconds > self.limit:
                self.end()
                return Outcome("timeout", "", seconds)
            return None
        with contextlib.suppress(ProcessLookupError):   # what its tests have left running
            os.killpg(self.pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(status)
        by = self.note.read_text() if self.note.exists() else ""
        if code in (-signal.SIGXCPU, -signal.SIGKILL):
            return Outcome("timeout", by, seconds)
        if code == 0:
            return Outcome("survived", "", seconds)
        if code in (1, 2, 3) or code < 0:   # failed, could not be collected, or the interpreter fell
            return Outcome("killed", by, seconds)
        return Outcome("broken", by, seconds)

    def end(self) -> None:
        """Kill it with all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
