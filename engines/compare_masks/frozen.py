"""Frozen features of a list's videos, as both comparisons read them."""

from pathlib import Path

import numpy as np

from .. import extract_features


def extracted(checkpoint: str | Path, listed: str | Path, out: Path, *more: str) -> tuple[np.ndarray, np.ndarray]:
    """(features, paths) of a list's videos by `extract_features`.

    Args:
        out: the file that it writes; it is not kept. more: further arguments.

    Raises:
        ValueError: as `taken`.
    """
    extract_features.main(["--checkpoint", str(checkpoint), "--list", str(listed), "--out", str(out),
                           "--sampling_rate", "1", "--num_workers", "0", *more])
    return taken(out)


def taken(out: Path) -> tuple[np.ndarray, np.ndarray]:
    """(features, paths) of the file that `extract_features` has written; the file is not kept.

    Raises:
        ValueError: videos that cannot be read. Their features are zeros, and would be judged as any other's.
    """
    with np.load(out) as stored:
        features, paths, readable = stored["features"], stored["paths"], stored["readable"]
    out.unlink()
    if not readable.all():
        raise ValueError(f"{(~readable).sum()} of the {len(readable)} videos whose features are compared cannot be "
                         f"read, the first is {paths[~readable][0]}: put them back, or delete what was prepared and "
                         "start again, which prepares it anew")
    return features, paths
