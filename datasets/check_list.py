"""Check a list of videos before a long run: rows, labels, duplicates, missing and unreadable videos, leakage.

    python -m tats.datasets.check_list lists/ucf101/train.csv --against lists/ucf101/test.csv --num_classes 101

writes train.clean.csv (what can be used) and train.report.json beside the list, or into --out.
Exit code 0: nothing found; 1: something was found and left out of the clean list; 2: bad arguments.
"""

import argparse
import hashlib
import json
import logging
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .files import must_be_of_list, write_whole
from .lists.columns import WHOLE
from .lists.list_file import ClipList, scan_list
from .processes.cores import usable_cores
from .processes.parallel import WorkerDied, for_each
from .program import run_program
from .sources.opening import is_elsewhere, open_source
from .video.decode import BACKENDS, FRAME_PATTERN, VideoError, open_video, resolve_backend

logger = logging.getLogger(__name__)

PROBLEMS = ("bad row", "missing", "unreadable", "too short", "duplicate", "conflicting label", "leakage")
_PROBE_BYTES = 1 << 16


class Probe(NamedTuple):
    """What was found out about a video.

    Attributes:
        problem: "", "missing" or "unreadable", and its cause.
        frames: number of frames.
        identity: of its content: size and a digest of its first and last 64 KiB; empty for folders.
    """

    problem: str
    cause: str
    frames: int
    identity: str


def probe(job: tuple[str, tuple[int, int]], backend: str, every_frame: bool, seconds: float = 0,
          frame_pattern: str = "") -> Probe:
    """Open a video and decode its first, middle and last frame, or all. job: its path, and the row's span."""
    path, span = job
    if not is_elsewhere(path) and not os.path.exists(path):
        return Probe("missing", "no such file", 0, "")
    try:
        identity = _identity(path)
        with open_video(path, backend, seconds, frame_pattern) as video:
            if span != WHOLE:
                video.restrict(*span)
            frames = video.num_frames
            if every_frame:
                for start in range(0, frames, 64):
                    video.read(np.arange(start, min(start + 64, frames)))
            else:
                video.read(sorted({0, frames // 2, frames - 1}))
    except VideoError as error:
        return Probe("unreadable", error.cause, 0, "")
    except OSError as error:
        return Probe("unreadable", error.strerror or str(error), 0, "")
    return Probe("", "", frames, identity)


def _identity(path: str) -> str:
    if os.path.isdir(path):
        return ""
    with open_source(path) if is_elsewhere(path) else open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        digest = hashlib.sha256(file.read(_PROBE_BYTES))
        file.seek(max(0, size - _PROBE_BYTES))
        digest.update(file.read(_PROBE_BYTES))
    return f"{size}-{digest.hexdigest()[:32]}"


def find_repeats(rows: ClipList, identities: Sequence[str]) -> dict[int, tuple[str, str]]:
    """row -> ("duplicate" or "conflicting label", cause).

    Two rows are the same video when they lead to the same file or to equal content. The first of equal labels stays;
    where labels differ all go, since nobody knows which is right.
    """
    groups = defaultdict(list)
    for row, key in enumerate(_keys(rows, identities)):
        groups[key].append(row)
    found = {}
    for same in groups.values():
        conflict = len({int(rows.labels[row]) for row in same}) > 1
        for row in same if conflict else same[1:]:
            other = same[0] if row != same[0] else same[1]
            found[row] = ("conflicting label" if conflict else "duplicate", f"same video as line {rows.lines[other]}")
    return found


def find_leaks(rows: ClipList, identities: Sequence[str], others: dict[str, str]) -> dict[int, tuple[str, str]]:
    """row -> ("leakage", cause) for the videos that are in `others` too (key of a video -> list it stands in)."""
    return {row: ("leakage", f"also in {others[key]}")
            for row, key in enumerate(_keys(rows, identities)) if key in others}


def _keys(rows: ClipList, identities: Sequence[str]) -> list[str]:
    keys = [identity or os.path.realpath(path) for path, identity in zip(rows.paths, identities, strict=True)]
    if rows.spans is None:
        return keys
    return [f"{key} {rows.span(row)}" if rows.span(row) != WHOLE else key for row, key in enumerate(keys)]


def _probe_all(rows: ClipList, look, workers: int) -> list[Probe]:
    found = [Probe("unreadable", "", 0, "")] * len(rows)
    jobs = [(path, rows.span(row)) for row, path in enumerate(rows.paths)]
    for position, result in for_each(look, jobs, workers, f"checking {rows.source}"):
        found[position] = Probe("unreadable", str(result), 0, "") if isinstance(result, WorkerDied) else result
    return found


def check(rows: ClipList, probes: Sequence[Probe], others: dict[str, str],
          min_frames: int) -> dict[int, tuple[str, str]]:
    """row -> (problem, cause) for all rows that do not belong in the clean list."""
    identities = [one.identity for one in probes]
    found = {**find_repeats(rows, identities), **find_leaks(rows, identities, others)}
    for row, one in enumerate(probes):
        if one.problem:
            found[row] = (one.problem, one.cause)
        elif one.frames < min_frames:
            found[row] = ("too short", f"{one.frames} frames of {min_frames}")
    return found


def _histogram(labels: np.ndarray, num_classes: int | None) -> dict:
    counts = Counter(labels[labels >= 0].tolist())
    size = num_classes or max(counts, default=-1) + 1
    return {"classes": len(counts), "videos_per_class": {str(label): counts[label] for label in range(size)},
            "empty_classes": [label for label in range(size) if not counts[label]]}


def get_parser() -> argparse.ArgumentParser:
    """The program's command line."""
    parser = argparse.ArgumentParser("check_list", description=__doc__.splitlines()[0])
    parser.add_argument("list", help="list file: `path label` a line")
    parser.add_argument("--against", nargs="+", default=[], help="lists that must share no video with this one")
    parser.add_argument("--out", help="folder for the clean list and the report; beside the list if not given")
    parser.add_argument("--num_classes", type=int, help="labels must lie below this")
    parser.add_argument("--no_label", action="store_true", help="labels are optional (pre-training)")
    parser.add_argument("--min_frames", type=int, default=1, help="shorter videos are left out")
    parser.add_argument("--every_frame", action="store_true", help="decode all frames, not three of each video")
    parser.add_argument("--video_backend", default="auto", choices=("auto", *BACKENDS))
    parser.add_argument("--decode_timeout", type=float, default=120, help="seconds for a decoder and a video")
    parser.add_argument("--frame_pattern", default="", help=FRAME_PATTERN)
    parser.add_argument("--num_workers", type=int, default=usable_cores(), help="processes; 0: none beside this one")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; 1 when something was found, else 0.

    Raises:
        FileNotFoundError, ValueError: a list that is not there or holds nothing.
    """
    args = get_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    path, out = Path(args.list), Path(args.out or Path(args.list).parent)
    must_be_of_list(out / f"{path.stem}.report.json", path)
    rows, bad = scan_list(path, not args.no_label, args.num_classes)
    look = partial(probe, backend=resolve_backend(args.video_backend), every_frame=args.every_frame,
                   seconds=args.decode_timeout, frame_pattern=args.frame_pattern)
    others = {}
    for other in args.against:
        strangers = scan_list(other, need_label=False)[0]
        identities = [one.identity for one in _probe_all(strangers, look, args.num_workers)]
        others.update((key, other) for key in _keys(strangers, identities))
    probes = _probe_all(rows, look, args.num_workers)
    found = check(rows, probes, others, args.min_frames)

    kept = [row for row in range(len(rows)) if row not in found]
    counts = Counter(problem for problem, _ in found.values()) + Counter({"bad row": len(bad)})
    findings = [{"line": int(rows.lines[row]), "path": rows.paths[row], "problem": problem, "cause": cause}
                for row, (problem, cause) in sorted(found.items())]
    report = {"list": os.path.abspath(path), "against": args.against, "rows": len(rows) + len(bad), "kept": len(kept),
              "problems": {problem: counts[problem] for problem in PROBLEMS}, "bad_rows": bad, "findings": findings,
              **_histogram(rows.labels[kept], args.num_classes)}
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / f"{path.stem}.clean.csv", "".join(f"{rows.line(row)}\n" for row in kept))
    write_whole(out / f"{path.stem}.report.json", json.dumps(report, indent=1) + "\n")
    _tell(report, out / f"{path.stem}.report.json")
    return 1 if found or bad else 0


def _tell(report: dict, written: Path) -> None:
    found = ", ".join(f"{count} {problem}" for problem, count in report["problems"].items() if count)
    logger.info("%s: %d of %d rows can be used, %d classes; %s", report["list"], report["kept"], report["rows"],
                report["classes"], found or "nothing wrong")
    for line in (report["bad_rows"] + [f"line {one['line']}: {one['path']} ({one['problem']}: {one['cause']})"
                                       for one in report["findings"]])[:5]:
        logger.info("  %s", line)
    if report["empty_classes"]:
        logger.info("  %d classes without a video, the first is %d", len(report["empty_classes"]),
                    report["empty_classes"][0])
    logger.info("  the whole report: %s", written)


if __name__ == "__main__":
    run_program(lambda: sys.exit(main()))
