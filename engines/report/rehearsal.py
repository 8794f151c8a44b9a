"""What a rehearsed row says about the whole one: speed, memory, days to the end, and what would go wrong.

    python -m tats.engines.report.rehearsal WORK --rows 9537 --epochs 400 100 --clips 640 1280

run_scripts/rehearse.sh calls it. WORK holds pretrain/, finetune/ and what the programs wrote, pretrain.log, resume.log,
finetune.log.
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

from ...datasets.program import run_program
from ..config.flags import FlagParser

STARVED = 0.2    # share of the time spent waiting for data above which more loaders pay
# Warnings that a few steps bring with them: of the shortened flags, and of a policy that has hardly begun.
OF_REHEARSALS = re.compile(r"another value of|the policy never acts|error map is still flat|WARNING epoch \d+: ")
FULL = 0.9       # share of the GPU's memory above which another driver or fragment ends the run


class Part(NamedTuple):
    """A rehearsed epoch: its name, clips, its line of log.txt, and how many clips the whole row has of it."""

    name: str
    clips: int
    line: dict
    whole: int

    @property
    def speed(self) -> float:
        """Clips a second, start of the loaders and validation included."""
        return self.clips / max(self.line["seconds"], 1e-9)

    @property
    def days(self) -> float:
        """That the whole row takes at this speed."""
        return self.whole / self.speed / 86400


def read_parts(work: Path, rows: int, epochs: Sequence[int], clips: Sequence[int], random_epochs: int) -> list[Part]:
    """The rehearsed epochs: random masks, the policy's (or the method's own) masks, fine-tuning.

    Args:
        rows: videos of the row's training list. epochs: of pre-training and fine-tuning. clips: of a rehearsed epoch of
            either. random_epochs: of pre-training that have random masks.

    Raises:
        ValueError: a run left no line in its log.txt.
    """
    pretraining, finetuning = (_lines(work / name / "log.txt") for name in ("pretrain", "finetune"))
    if len(pretraining) < 2 or not finetuning:
        raise ValueError(f"{work} has {len(pretraining)} epochs of pre-training and {len(finetuning)} of fine-tuning, "
                         "a rehearsal has 2 and 1: see its .log files")
    first = min(random_epochs, epochs[0])
    return [Part(f"pre-training, {first} epochs of random masks", clips[0], pretraining[0], rows * first),
            Part(f"pre-training, {epochs[0] - first} epochs, resumed", clips[0], pretraining[1],
                 rows * (epochs[0] - first)),
            Part(f"fine-tuning, {epochs[1]} epochs", clips[1], finetuning[-1], rows * epochs[1])]


def _lines(path: Path) -> list[dict]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def report(parts: Sequence[Part], problems: Sequence[str]) -> str:
    """The page for a terminal."""
    lines = [f"{'':<48}{'clips/s':>9}{'data':>7}{'memory':>10}{'days':>8}"]
    for part in parts:
        memory, data = part.line.get("peak_memory_gb"), part.line.get("train_data_share")
        lines.append(f"{part.name:<48}{part.speed:>9.1f}{'-' if data is None else f'{data:.0%}':>7}"
                     f"{'-' if memory is None else f'{memory:.1f} GB':>10}{part.days:>8.1f}")
    lines.append(f"{'the whole row':<48}{sum(part.days for part in parts):>34.1f}")
    lines += ["", "clips/s holds the start of the loaders and of fine-tuning the validation: long runs are faster.", ""]
    return "\n".join(lines + (["What would go wrong:", *(f"- {one}" for one in problems)] if problems
                              else ["Nothing was found that would go wrong."])) + "\n"


def problems_of(work: Path, parts: Sequence[Part], memory: float | None, epochs: Sequence[int]) -> Iterator[str]:
    """What the rehearsal has shown, a line each.

    Args:
        memory: of a GPU, GiB; None without one.
    """
    for part in parts:
        data, peak = part.line.get("train_data_share") or 0.0, part.line.get("peak_memory_gb") or 0.0
        if data > STARVED:
            yield (f"{part.name}: {data:.0%} of the time waits for data: more CPUs and --num_workers, or "
                   "tats.datasets.prepare_videos")
        if memory and peak > FULL * memory:
            yield f"{part.name}: {peak:.1f} of {memory:.1f} GB: --use_checkpoint, or a smaller --batch_size"
    if "resumed from" not in _text(work / "resume.log"):
        yield "the second start did not resume from the first one's checkpoint: see resume.log"
    for run, count in zip(("pretrain", "finetune"), epochs, strict=True):
        yield from _disk(work / run, count)
        bad = _text(work / run / "bad_videos.txt").split("\n")
        if any(line.strip() for line in bad):
            yield f"{sum(bool(line.strip()) for line in bad)} unreadable video(s): {work / run / 'bad_videos.txt'}"
    result = json.loads(_text(work / "finetune/result.json") or "{}")
    if result.get("num_evaluated") != result.get("num_expected") or not result:
        yield f"the test evaluated {result.get('num_evaluated', 0)} of {result.get('num_expected', '?')} videos"
    said = [line for name in ("pretrain.log", "resume.log", "finetune.log") for line in _text(work / name).splitlines()]
    yield from dict.fromkeys(re.sub(r".*?\bWARNING\b[: ]*", "", line) for line in said if "WARNING" in line
                             and not OF_REHEARSALS.search(line))


def _disk(run: Path, epochs: int) -> Iterator[str]:
    """Where the checkpoints of the whole run do not fit beside what is there."""
    record = json.loads(_text(run / "settings.json") or "{}").get("settings", {}).get("run", {})
    sizes = [path.stat().st_size for path in run.glob("checkpoint-*.pth")]
    if not sizes or not record:
        return
    kept = record.get("keep_last", 3) + 1 + epochs // max(1, 50 if run.name == "pretrain" else 25)
    needed, free = kept * max(sizes) / 2**30, shutil.disk_usage(run).free / 2**30
    if needed > free:
        yield f"{run.name}: {kept} checkpoints of {max(sizes) / 2**30:.1f} GB need {needed:.0f} GB, {free:.0f} are free"


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def get_parser() -> argparse.ArgumentParser:
    """The program's command line."""
    parser = FlagParser("rehearsal", description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path, help="folder of the rehearsal")
    parser.add_argument("--rows", type=int, required=True, help="videos of the row's training list")
    parser.add_argument("--epochs", type=int, nargs=2, required=True, help="of the row's pre-training and fine-tuning")
    parser.add_argument("--clips", type=int, nargs=2, required=True, help="of a rehearsed epoch of either")
    parser.add_argument("--random_epochs", type=int, default=10, help="m_o")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Print the report."""
    args = get_parser().parse_args(argv)
    parts = read_parts(args.work, args.rows, args.epochs, args.clips, args.random_epochs)
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30 if torch.cuda.is_available() else None
    sys.stdout.write(report(parts, list(problems_of(args.work, parts, memory, args.epochs))))


if __name__ == "__main__":
    run_program(main)
