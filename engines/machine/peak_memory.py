"""The largest resident memory of a part of a process's life; the system's own number is of all of it."""

import contextlib
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def begin_peak() -> bool:
    """Let the largest resident memory begin anew, at what is resident now. False where the system cannot do it."""
    with contextlib.suppress(OSError):
        _RESET.write_text("5")
        return True
    return False


def peak_mib() -> float:
    """The largest resident memory in MiB since `begin_peak` returned True."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 2**10
