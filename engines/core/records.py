"""Figures on disk: CSV tables, the commit that they were made with, and which file is which."""

import csv
import hashlib
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...datasets.files import written_whole


def write_csv(path: Path, rows: Sequence[Mapping], digits: int | None = None) -> None:
    """Rows with different columns as one CSV; what a row has not stays empty.

    Args:
        digits: significant digits of its floats; None: as many as tell them apart.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    with written_whole(path) as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: f"{value:.{digits}g}" if digits and isinstance(value, float) else value
                             for name, value in row.items()})


def commit_of_source() -> str | None:
    """The commit that this code was run from, None outside a checkout."""
    try:
        done = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True,
                              cwd=Path(__file__).parent, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
