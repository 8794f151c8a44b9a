"""What a rehearsed row says about the whole one: speed, memory, days to the end, and what would go wrong.

    python -m tats.engines.report.rehearsal WORK --videos 9537 3783 3783 --epochs 400 100 --clips 2560 1280
        --tested 24 20

run_scripts/rehearse.sh calls it. WORK holds pretrain/, finetune/ and what the programs wrote, pretrain.log, resume.log,
finetune.log; also problems.txt, where the script has found some itself.
"""

import argparse
import json
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from tabulate import tabulate

from ...datasets.program import run_program
from ..config.flags import FlagParser

STARVED = 0.2    # share of the time spent waiting for data above which more loaders pay
FULL = 0.9       # share of the GPU's memory above which another driver or fragment ends the run
LONG = 100       # days that nobody waits for
# Warnings that a few steps bring with them: of the shortened flags, and of a policy that has hardly begun.
OF_REHEARSALS = re.compile(r"another value of|the policy never acts|error map is still flat|WARNING epoch \d+: ")
STEP = re.compile(r" (?P<title>epoch \d+|validation|test) \[(?P<batch>\d+)/(?P<batches>\d+)\] (?:loss \S+ )?"
                  r"(?P<each>[\d.]+) s a step, (?P<share>\d+)% of it waiting")   # as `core.logs.Progress` writes it


class Timing(NamedTuple):
    """Batches of a pass over a loader, and the seconds that they took; `waiting`: of these, for data.

    The first batch, with the start of the loaders, is left out where there are others; else its wait for them is, and
    `waiting` is not known.
    """

    batches: int
    seconds: float
    waiting: float | None
    of: int   # batches of the whole pass

    @property
    def data_share(self) -> float | None:
        """Share of the time that was spent waiting for data."""
        return None if self.waiting is None else self.waiting / max(self.seconds, 1e-9)


class Part(NamedTuple):
    """A part of the row: its name, rehearsed clips and their timing, and how many clips the whole row has of it."""

    name: str
    clips: int
    timing: Timing
    whole: int

    @property
    def speed(self) -> float:
        """Clips a second, of all processes."""
        return self.clips * self.timing.batches / self.timing.of / max(self.timing.seconds, 1e-9)

    @property
    def days(self) -> float:
        """That the whole row takes at this speed."""
        return self.whole / self.speed / 86400


class Row(NamedTuple):
    """The whole row.

    videos: of its lists train, val and test. epochs: of pre-training and fine-tuning. random_epochs: of pre-training
    with random masks. views: of a video in the test.
    """

    videos: Sequence[int]
    epochs: Sequence[int]
    random_epochs: int
    views: int


def timing_of(log: str, title: str) -> Timing:
    """Of the batches of `title` in what a program wrote, a line a batch.

    Raises:
        ValueError: there is no such line.
    """
    found = {int(step["batch"]): step for step in STEP.finditer(log) if step["title"] == title}
    if not found:
        raise ValueError(f"no line of {title}")
    first, last = min(found), max(found)
    (before, waited), (seconds, waiting) = (
        (batch * float(found[batch]["each"]), batch * float(found[batch]["each"]) * float(found[batch]["share"]) / 100)
        for batch in (first, last))
    batches = int(found[last]["batches"])
    if first == last:
        return Timing(last, seconds - waiting, None, batches)
    waiting = min(max(0.0, waiting - waited), seconds - before)   # the shares are rounded
    return Timing(last - first, seconds - before, waiting, batches)


def read_parts(work: Path, row: Row, clips: Sequence[int], tested: Sequence[int]) -> list[Part]:
    """The rehearsed parts: random masks, the policy's (or the method's own) masks, fine-tuning, validation, test.

    Args:
        clips: of a rehearsed epoch of pre-training and fine-tuning. tested: videos of the validation and the test.

    Raises:
        ValueError: a program has left no line of a part.
    """
    first = min(row.random_epochs, row.epochs[0])
    train, val, test = row.videos
    parts = (
        ("pretrain", "epoch 0", f"pre-training, {first} epochs of random masks", clips[0], train * first),
        ("resume", "epoch 1", f"pre-training, {row.epochs[0] - first} epochs, resumed", clips[0],
         train * (row.epochs[0] - first)),
        ("finetune", "epoch 0", f"fine-tuning, {row.epochs[1]} epochs", clips[1], train * row.epochs[1]),
        ("finetune", "validation", f"validation, {row.epochs[1]} times", tested[0], val * row.epochs[1]),
        ("finetune", "test", f"test, {row.views} views of a video", tested[1] * row.views, test * row.views))
    found = []
    for log, title, name, count, whole in parts:
        try:
            found.append(Part(name, count, timing_of(_text(work / f"{log}.log"), title), whole))
        except ValueError as error:
            raise ValueError(f"{work / log}.log: {error}, the rehearsal has not come to its end") from None
    return found


def report(parts: Sequence[Part], peaks: Sequence[str], problems: Sequence[str]) -> str:
    """The page for a terminal; peaks: the largest memory of each part."""
    table = [(part.name, f"{part.speed:.3g}", _share(part.timing.data_share), peak, _days(part.days))
             for part, peak in zip(parts, peaks, strict=True)]
    table.append(("the whole row", "", "", "", _days(sum(part.days for part in parts))))
    lines = [tabulate(table, ("", "clips/s", "waits for data", "memory", "days"), tablefmt="plain",
                      disable_numparse=True, colalign=("left", *["right"] * 4)), "",
             "clips/s is of all processes, without the first batch; the test's clips are views.", ""]
    return "\n".join(lines + (["What would go wrong:", *(f"- {one}" for one in problems)] if problems
                              else ["Nothing was found that would go wrong."])) + "\n"


def _days(value: float) -> str:
    return f"{value:.3g}" if value < LONG else f"{value:.0f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def peak_memory(work: Path) -> list[tuple[float, bool]]:
    """(GB, whether it is a GPU's) of each of `read_parts`: log.txt's on a GPU, else the process's main memory."""
    found = []
    for log, run, place in (("pretrain", "pretrain", 0), ("resume", "pretrain", 1), ("finetune", "finetune", -1)):
        lines = [json.loads(line) for line in _text(work / run / "log.txt").splitlines() if line.strip()]
        peak = lines[place].get("peak_memory_gb") if len(lines) > max(place, 0) else None
        said = re.findall(r"at most ([\d.]+) GB of main memory", _text(work / f"{log}.log"))
        found.append((peak, True) if peak is not None else (float(said[-1]) if said else 0.0, False))
    return [*found, found[-1], found[-1]]


def problems_of(work: Path, parts: Sequence[Part], memory: float | None, epochs: Sequence[int]) -> Iterator[str]:
    """What the rehearsal has shown, a line each.

    Args:
        memory: of a GPU, GiB; None without one.
    """
    yield from filter(None, _text(work / "problems.txt").splitlines())
    for part, (peak, on_gpu) in zip(parts, peak_memory(work), strict=True):
        if (share := part.timing.data_share or 0.0) > STARVED:
            yield (f"{part.name}: {share:.0%} of the time waits for data: more CPUs and "
                   "--num_workers, or tats.datasets.prepare_videos")
        if memory and on_gpu and peak > FULL * memory:
            yield f"{part.name}: {peak:.1f} of {memory:.1f} GB: --use_checkpoint, or a smaller --batch_size"
    if (days := sum(part.days for part in parts)) > LONG:
        yield f"the whole row takes {days:.0f} days on this machine: it is meant for 8 GPUs"
    if "resumed from" not in _text(work / "resume.log"):
        yield "the second start did not resume from the first one's checkpoint: see resume.log"
    for run, count in zip(("pretrain", "finetune"), epochs, strict=True):
        yield from _disk(work / run, count)
        bad = [line for line in _text(work / run / "bad_videos.txt").splitlines() if line.strip()]
        if bad:
            yield f"{len(bad)} unreadable video(s): {work / run / 'bad_videos.txt'}"
    result = json.loads(_text(work / "finetune/result.json") or "{}")
    if result.get("num_evaluated") != result.get("num_expected") or not result:
        yield f"the test evaluated {result.get('num_evaluated', 0)} of {result.get('num_expected', '?')} videos"
    said = [line for name in ("pretrain.log", "resume.log", "finetune.log") for line in _text(work / name).splitlines()]
    yield from dict.fromkeys(re.sub(r".*?\b(WARNING\b|note:)[: ]*(\S+\.py:\d+: \w+: )?", "", line) for line in said
                             if re.search(r"\bWARNING\b|^note: ", line) and not OF_REHEARSALS.search(line))


def _disk(run: Path, epochs: int) -> Iterator[str]:
    """Where the checkpoints of the whole run do not fit beside what is there."""
    record = json.loads(_text(run / "settings.json") or "{}").get("settings", {}).get("run", {})
    sizes = [_size(path) + _size(path.with_suffix("")) for path in run.glob("checkpoint-*.pth")]
    if not sizes or not record:
        return
    kept = record.get("keep_last", 3) + 1 + epochs // max(1, 50 if run.name == "pretrain" else 25)
    needed, free = kept * max(sizes) / 2**30, shutil.disk_usage(run).free / 2**30
    if needed > free:
        yield f"{run.name}: {kept} checkpoints of {max(sizes) / 2**30:.1f} GB need {needed:.0f} GB, {free:.0f} are free"


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder (DeepSpeed's half of a checkpoint)."""
    return sum(one.stat().st_size for one in (path.rglob("*") if path.is_dir() else (path,)) if one.is_file())


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def get_parser() -> argparse.ArgumentParser:
    """The program's command line."""
    parser = FlagParser("rehearsal", description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path, help="folder of the rehearsal")
    parser.add_argument("--videos", type=int, nargs=3, required=True, help="of the row's lists train, val and test")
    parser.add_argument("--epochs", type=int, nargs=2, required=True, help="of the row's pre-training and fine-tuning")
    parser.add_argument("--clips", type=int, nargs=2, required=True, help="of a rehearsed epoch of either")
    parser.add_argument("--tested", type=int, nargs=2, required=True, help="videos of the rehearsed val and test")
    parser.add_argument("--random_epochs", type=int, default=10, help="m_o")
    parser.add_argument("--views", type=int, default=6, help="of a video in the row's test")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Print the report.

    Raises:
        ValueError: the rehearsal has not come to its end.
    """
    args = get_parser().parse_args(argv)
    parts = read_parts(args.work, Row(args.videos, args.epochs, args.random_epochs, args.views), args.clips,
                       args.tested)
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30 if torch.cuda.is_available() else None
    peaks = [f"{peak:.1f} GB{'' if on_gpu else ' RAM'}" for peak, on_gpu in peak_memory(args.work)]
    sys.stdout.write(report(parts, peaks, list(problems_of(args.work, parts, memory, args.epochs))))


if __name__ == "__main__":
    run_program(main)
