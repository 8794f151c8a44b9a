"""Re-encode the videos of a list so that training reads them fast: small pictures, H.264, a key frame every few frames.

    python -m tats.datasets.prepare_videos lists/ucf101/train.csv --root UCF101 --out UCF101_small

writes OUT/videos/..., the list with the new paths as OUT/train.csv, and OUT/train.report.json. Lists may share an OUT.
Run again, it goes on where it stopped. Frame i of the new video is frame i of the old one; sound is dropped.
"""

import argparse
import json
import logging
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from .cores import usable_cores
from .files import write_whole
from .lists.columns import WHOLE
from .lists.list_file import ClipList, read_list
from .parallel import WorkerDied, for_each
from .program import run_program
from .video.container_file import choose_stream, open_container
from .video.decode import FRAME_PATTERN, VideoError, open_video

logger = logging.getLogger(__name__)

_READ_AT_ONCE = 128 << 20   # bytes of raw frames in memory
_DEFAULT_RATE = 25          # for folders of pictures, which have none
_CLIP_FRAMES, _CLIP_STRIDE = 16, 4

# Three of four frames are such that no other refers to them: the reader skips those that it does not want. No entropy
# coding and no filter that cost time to undo. CPU time of `PretrainClips` for a clip at 224, before and after:
# 1280x720 H.264 193 -> 19 ms, 340x256 H.264 40 -> 16 ms, 320x240 MPEG-4 (UCF101's .avi) 15 -> 16 ms: leave those.
_FAST_TO_READ = {"bf": "3", "b-pyramid": "none", "b_strategy": "0", "sc_threshold": "0", "tune": "fastdecode"}


class Encoding(NamedTuple):
    """How the videos are written: the shorter side in pixels, frames between key frames, quality, and speed."""

    short_side: int = 256
    gop: int = 8
    crf: int = 20
    preset: str = "fast"


class Job(NamedTuple):
    """One video: where it is, where it goes, and which part of it, as lists of pictures say it."""

    source: str
    target: str
    span: tuple[int, int] = WHOLE


def encode(job: Job, encoding: Encoding, frame_pattern: str = "") -> str:
    """Write `job.target`, whole or not at all; returns why it failed, "" when it did not."""
    part = f"{job.target}.part"
    try:
        os.makedirs(os.path.dirname(job.target), exist_ok=True)
        _encode(job, part, encoding, frame_pattern)
        os.replace(part, job.target)
    except VideoError as error:
        return error.cause
    except (av.FFmpegError, OSError) as error:
        return f"cannot be written: {error.strerror or error}"
    finally:
        if os.path.exists(part):
            os.unlink(part)
    return ""


def _encode(job: Job, target: str, encoding: Encoding, frame_pattern: str) -> None:
    with open_video(job.source, frame_pattern=frame_pattern) as video, av.open(target, "w", format="mp4") as container:
        if job.span != WHOLE:
            video.restrict(*job.span)
        stream = container.add_stream("libx264", rate=_frame_rate(job.source))
        first = video.read([0])
        height, width = first.shape[1:3]
        stream.height, stream.width = scaled_size(height, width, encoding.short_side)
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1   # processes are the parallel part
        stream.options = {"crf": str(encoding.crf), "preset": encoding.preset, "g": str(encoding.gop), **_FAST_TO_READ}
        at_once = max(1, _READ_AT_ONCE // first.nbytes)
        for start in range(0, video.num_frames, at_once):
            for picture in video.read(np.arange(start, min(start + at_once, video.num_frames))):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame = frame.reformat(stream.width, stream.height, "yuv420p", interpolation="BICUBIC")
                container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _frame_rate(source: str):
    if os.path.isdir(source):
        return _DEFAULT_RATE
    with open_container(source) as container:
        return choose_stream(source, container).average_rate or _DEFAULT_RATE


def scaled_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(height, width) with the shorter side at most `short_side`, never enlarged, both even as yuv420p needs."""
    scale = min(1.0, short_side / min(height, width))
    return tuple(max(2, round(side * scale / 2) * 2) for side in (height, width))


def plan(rows: ClipList, folder: Path, root: str) -> list[Job]:
    """A target below `folder` for every video: its path below `root`, so that lists can share a folder.

    Raises:
        ValueError: a video outside the root.
    """
    jobs, owners = {}, {}
    wanted = [(os.path.abspath(path), rows.span(row)) for row, path in enumerate(rows.paths)]
    for source, span in dict.fromkeys(wanted):
        relative = os.path.relpath(source, root)
        if relative.startswith(".."):
            raise ValueError(f"{source} does not lie below --root {root}")
        part = "" if span == WHOLE else f".{span[0]}-{span[1]}"
        target = f"{os.path.splitext(relative)[0]}{part}.mp4"
        if owners.setdefault(target, source) != source:   # a.avi and a.mp4 side by side
            target = f"{relative}{part}.mp4"
        jobs[source, span] = Job(source, str(folder / target), span)
    return [jobs[key] for key in wanted]


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
    if record.is_file() and json.loads(record.read_text()) != settings:
        raise ValueError(f"{out} holds videos made with {record.read_text().strip()}: choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_whole(record, json.dumps(settings) + "\n")


def _encode_all(jobs: Sequence[Job], work: Callable[[Job], str], workers: int) -> dict[Job, str]:
    """job -> why it failed; videos that are already there are passed over."""
    waiting = [job for job in dict.fromkeys(jobs) if not _is_done(job)]
    logger.info("%d videos, %d already done", len(set(jobs)), len(set(jobs)) - len(waiting))
    failures = {}
    for position, result in for_each(work, waiting, workers, "encoding"):
        cause = str(result) if isinstance(result, WorkerDied) else result
        if cause:
            failures[waiting[position]] = cause
    return failures


def _is_done(job: Job) -> bool:
    try:
        return os.path.getmtime(job.target) >= os.path.getmtime(job.source)
    except OSError:
        return False


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
    encoding = Encoding(args.short_side, args.gop, args.crf, args.preset)
    if encoding.short_side < 16 or encoding.gop < 1 or not 0 <= encoding.crf <= 51:
        raise ValueError(f"--short_side must be at least 16, --gop at least 1, --crf from 0 to 51, got {encoding}")
    rows, out = read_list(args.list, need_label=False), Path(args.out).resolve()
    root = os.path.abspath(args.root)
    jobs = plan(rows, out / "videos", root)
    pictures = {"frame_pattern": args.frame_pattern} if args.frame_pattern else {}
    _claim(out, {**encoding._asdict(), "root": root, **pictures})
    failures = _encode_all(jobs, partial(encode, encoding=encoding, **pictures), args.num_workers)

    done = [row for row, job in enumerate(jobs) if job not in failures]
    name = Path(args.list).stem
    write_whole(out / f"{name}.csv", "".join(f"{rows.line(row, jobs[row].target)}\n" for row in done))
    report = {"list": args.list, "encoding": encoding._asdict(), "videos": len(done),
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
