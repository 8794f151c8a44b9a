"""Cores: how many a process may use, and that its threads do not hold them while they wait."""

import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")   # how OpenMP's threads wait, as a user says it


def usable_cores(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """Those of the affinity, and no more than the quota of a container; at least 1, and whole ones.

    Args:
        cgroups: where the control groups are mounted, version 1 or 2. membership: the groups of this process.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([cores, *_quotas(cgroups, membership)])))


def wait_asleep(environment: MutableMapping[str, str]) -> bool:
    """Make the threads of processes that start with this environment sleep while they wait; False where it says already
    how they wait."""
    if any(environment.get(name) for name in WAITING):
        return False
    environment["OMP_WAIT_POLICY"] = "passive"
    return True


def _quotas(cgroups: Path, membership: Path) -> Iterator[float]:
    """Of every group that this process is in, and of the groups above it, each of which limits those below."""
    for controllers, group in _groups(membership):
        root = next((cgroups / name for name in _mounts(controllers) if (cgroups / name).is_dir()), cgroups)
        for place in (group, *group.parents):
            folder = root / place.relative_to("/")   # inside a container this may name nothing; its own root counts
            quota = _cores(folder / "cpu.max") if not controllers else _cores(folder / "cpu.cfs_quota_us",
                                                                              folder / "cpu.cfs_period_us")
            if quota is not None:
                yield quota


def _groups(membership: Path) -> list[tuple[str, Path]]:
    """(controllers, group) of the lines that can limit the processor; the controllers of version 2 are ''."""
    try:
        lines = [line.split(":", 2) for line in membership.read_text().splitlines()]
    except OSError:
        lines = []
    found = [(line[1], Path(line[2])) for line in lines if len(line) == 3 and line[2].startswith("/")]
    return [one for one in found if not one[0] or "cpu" in one[0].split(",")] or [("", Path("/"))]


def _mounts(controllers: str) -> tuple[str, ...]:
    """Names that a mount of these controllers may have."""
    return (controllers, "cpu") if controllers else ("unified", ".")


def _cores(*files: Path) -> float | None:
    """quota / period, which stand in one file or in two; None where nothing is limited or known."""
    try:
        quota, period = (int(word) for file in files for word in file.read_text().split())
    except (OSError, ValueError):   # no file, or "max"
        return None
    return quota / period if quota > 0 and period > 0 else None
