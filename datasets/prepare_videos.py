"""Re-encode the videos of a list so that training reads them fast: small pictures, H.264, a key frame every few frames.

    python -m tats.datasets.prepare_videos lists/ucf101/train.csv --root UCF101 --out UCF101_small

writes OUT/videos/..., the list with the new paths as OUT/train.csv, and OUT/train.report.json. Lists may share an OUT;
OUT/sources.jsonl says what each video was made of. Run again, it goes on where it stopped. Frame i of the new video is
frame i of the old one, unless --fps says how many a second there are to be; sound is dropped.
"""

import argparse
import contextlib
import json
import logging
import os
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain, count
from pathlib import Path
from types import MappingProxyType

import numpy as np

from .files import must_be_of_list, must_not_replace, recorded_otherwise, write_whole
from .lists.columns import WHOLE
from .lists.list_file import ClipList, read_list
from .processes.cores import usable_cores
from .processes.parallel import WorkerDied, for_each
from .program import run_program
from .reencode import Encoding, Job, encode
from .video.decode import FRAME_PATTERN, open_video

logger = logging.getLogger(__name__)

_CLIP_FRAMES, _CLIP_STRIDE = 16, 4
_SOURCES = "sources.jsonl"


def plan(rows: ClipList, folder: Path, root: str, made: Mapping[str, list] = MappingProxyType({})) -> list[Job]:
    """A target below `folder` for every video: its path below `root`, so that lists can share a folder.

    Args:
        made: of `read_sources`: what was made of another video keeps its name.

    Raises:
        ValueError: a video outside the root.
    """
    jobs, owners = {}, {target: source for target, (source, *_) in made.items()}
    wanted = [(os.path.abspath(path), rows.span(row)) for row, path in enumerate(rows.paths)]
    for source, span in dict.fromkeys(wanted):
        relative = os.path.relpath(source, root)
        if relative.startswith(".."):
            raise ValueError(f"{source} does not lie below --root {root}")
        part = "" if span == WHOLE else f".{span[0]}-{span[1]}"
        stems = chain((os.path.splitext(relative)[0], relative), (f"{relative}.{number}" for number in count(2)))
        for stem in stems:   # a.avi and a.mp4 side by side
            target = str(folder / f"{stem}{part}.mp4")
            if owners.setdefault(target, source) == source:
                break
        jobs[source, span] = Job(source, target, span)
    return [jobs[key] for key in wanted]


def read_sources(out: Path) -> dict[str, list]:
    """What the videos of `out` were made of, by their paths: source, its bytes and its time of change (ns)."""
    made = {}
    try:
        lines = (out / _SOURCES).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except FileNotFoundError:
        return made
    for line in lines:   # of a target that stands there twice the last counts
        with contextlib.suppress(ValueError, TypeError, AttributeError):   # a line that a full disk has cut
            target, *state = json.loads(line)
            if len(state) == 3:
                made[str(out / target)] = state
    return made


def _state(source: str) -> list:
    about = os.stat(source)
    return [source, about.st_size, about.st_mtime_ns]


def read_time(paths: Sequence[str], frame_pattern: str = "") -> float:
    """Seconds to read a training clip (16 frames, stride 4, random start), the mean over `paths`."""
    starts = random.Random(0)
    begin = time.perf_counter()
    for path in paths:
        with open_video(path, frame_pattern=frame_pattern) as video:
            last = max(0, video.num_frames - _CLIP_FRAMES * _CLIP_STRIDE)
            frames = starts.randint(0, last) + np.arange(_CLIP_FRAMES) * _CLIP_STRIDE
            video.read(np.minimum(frames, video.num_frames - 1))
    return (time.perf_counter() - begin) / len(paths)


def _claim(out: Path, settings: dict) -> None:
    """Keep videos of different settings apart.

    Raises:
        ValueError: `out` holds videos made otherwise.
    """
    record = out / "settings.json"
    if other := recorded_otherwise(record, settings):
        raise ValueError(f"{out} holds videos made with {other}: choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_whole(record, json.dumps(settings) + "\n")


def _encode_all(jobs: Sequence[Job], work: Callable[[Job], str], workers: int, out: Path,
                made: Mapping[str, list]) -> dict[Job, str]:
    """job -> why it failed; videos that are already there are passed over. What each was made of is written down."""
    states = {}
    for job in dict.fromkeys(jobs):
        with contextlib.suppress(OSError):
            states[job] = _state(job.source)
    waiting = [job for job in dict.fromkeys(jobs) if not _is_done(job, states.get(job), made.get(job.target))]
    logger.info("%d videos, %d already done", len(set(jobs)), len(set(jobs)) - len(waiting))
    failures = {}
    with open(out / _SOURCES, "a", encoding="utf-8", errors="surrogateescape") as file:
        def keep(job: Job) -> None:
            if job in states and states[job] != made.get(job.target):
                file.write("\n" + json.dumps([os.path.relpath(job.target, out), *states[job]], ensure_ascii=False))
                file.flush()   # in front of the line: one that was cut spoils no other

        for job in set(jobs).difference(waiting):   # those of an earlier version
            keep(job)
        for position, result in for_each(work, waiting, workers, "encoding"):
            cause = str(result) if isinstance(result, WorkerDied) else result
            if cause:
                failures[waiting[position]] = cause
            else:
                keep(waiting[position])
    return failures


def _is_done(job: Job, state: list | None, made: list | None) -> bool:
    """Whether the target is made of what the source is now; where nothing is written down the times must say it."""
    try:
        written = os.stat(job.target).st_mtime_ns
    except OSError:
        return False
    return state is not None and (state == made if made is not None else written >= state[2])


def get_parser() -> argparse.ArgumentParser:
    """The program's command line."""
    parser = argparse.ArgumentParser("prepare_videos", description=__doc__.splitlines()[0])
    default = Encoding()
    parser.add_argument("list", help="list file: `path label` a line")
    parser.add_argument("--out", required=True, help="folder for the videos, the new list and the report")
    parser.add_argument("--root", default="/", help="the new videos keep their folders below this one")
    parser.add_argument("--short_side", type=int, default=default.short_side, help="pixels; nothing is enlarged")
    parser.add_argument("--gop", type=int, default=default.gop, help="frames from one key frame to the next")
    parser.add_argument("--crf", type=int, default=default.crf, help="quality of H.264, lower is better")
    parser.add_argument("--preset", default=default.preset, help="speed of x264 against size")
    parser.add_argument("--fps", type=float, help="frames a second of the new videos: those that are shown at these "
                        "times, so that a stride is the same time in every video; none: all frames")
    parser.add_argument("--frame_pattern", default="", help=FRAME_PATTERN)
    parser.add_argument("--num_workers", type=int, default=usable_cores(), help="processes; 0: none beside this one")
    parser.add_argument("--measure", type=int, default=16, help="clips read to compare the speeds; 0: none")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; 1 when some videos could not be encoded (they are left out of the new list), else 0.

    Raises:
        FileNotFoundError, ValueError: no list, bad rows, or an --out of another encoding.
    """
    args = get_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    encoding = Encoding(args.short_side, args.gop, args.crf, args.preset, args.fps)
    if args.fps is not None and not 0 < args.fps < 1000:
        raise ValueError(f"--fps must lie between 0 and 1000, got {args.fps:g}")
    if encoding.short_side < 16 or encoding.gop < 1 or not 0 <= encoding.crf <= 51:
        raise ValueError(f"--short_side must be at least 16, --gop at least 1, --crf from 0 to 51, got {encoding}")
    rows, out = read_list(args.list, need_label=False), Path(args.out).resolve()
    root = os.path.abspath(args.root)
    must_not_replace(out / f"{Path(args.list).stem}.csv", [args.list], "--out")
    must_be_of_list(out / f"{Path(args.list).stem}.report.json", args.list)
    made = read_sources(out)
    jobs = plan(rows, out / "videos", root, made)
    pictures = {"frame_pattern": args.frame_pattern} if args.frame_pattern else {}
    written = {name: value for name, value in encoding._asdict().items() if value is not None and value is not False}
    _claim(out, {**written, "root": root, **pictures})
    failures = _encode_all(jobs, partial(encode, encoding=encoding, **pictures), args.num_workers, out, made)

    done = [row for row, job in enumerate(jobs) if job not in failures]
    name = Path(args.list).stem
    write_whole(out / f"{name}.csv", "".join(f"{rows.line(row, jobs[row].target)}\n" for row in done))
    report = {"list": os.path.abspath(args.list), "encoding": written, "videos": len(done),
              "failed": {job.source: cause for job, cause in failures.items()},
              **_compare([jobs[row] for row in done], args.measure, args.frame_pattern)}
    write_whole(out / f"{name}.report.json", json.dumps(report, indent=1) + "\n")
    logger.info("%d videos in %s, %d could not be encoded; see %s", len(done), out / f"{name}.csv", len(failures),
                out / f"{name}.report.json")
    return 1 if failures else 0


def _compare(jobs: Sequence[Job], clips: int, frame_pattern: str) -> dict:
    """What it was good for: bytes and the time of reading a clip, before and after."""
    if not jobs or not clips:
        return {}
    some = random.Random(0).sample(list(jobs), min(clips, len(jobs)))
    before = read_time([job.source for job in some], frame_pattern)
    after = read_time([job.target for job in some])
    logger.info("reading a clip takes %.1f ms instead of %.1f ms: %.1f times faster", 1e3 * after, 1e3 * before,
                before / after)
    return {"clip_ms_before": 1e3 * before, "clip_ms_after": 1e3 * after, "times_faster": before / after}


if __name__ == "__main__":
    run_program(lambda: sys.exit(main()))
