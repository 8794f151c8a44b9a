"""Every measurement of the page of performance, one after another, and its table: `benchmark all`.

A measurement whose CSV is there is kept, so that a command that was ended goes on where it was.
"""

import csv
import logging
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ...datasets.files import write_whole
from .measurements import ON_THE_CPU, BenchmarkConfig, measured
from .originals import Clone

logger = logging.getLogger(__name__)

CLONES = {"videomae": "modeling_pretrain.py", "adamae": "models/pretrain/vit.py",
          "motionformer": "slowfast/models/vit_helper.py"}   # with a file that each must hold
PASSED_ON = ("pairs", "warmup", "model", "batch_size", "mask_ratio", "decoder_depth", "device", "threads", "clips",
             "video_backend")   # flags that replace those of the measurements below
NOT_HERE = "–"


class Run(NamedTuple):
    """One measurement: its name among those of the benchmark, its flags, the clones it compares with, and how many of
    the videos it reads (None: all)."""

    what: str
    flags: Mapping[str, Any]
    clones: tuple[str, ...] = ()
    videos: int | None = 0


class Line(NamedTuple):
    """A line of the table: a number of one contestant of a run, and what it may be at most, where that was set."""

    title: str
    run: str
    name: str
    column: str
    limit: float | None = None


_STEP = {"methods": ("tats", "tube", "adamae")}
RUNS = {
    "step": Run("step", {"methods": ("tats", "tats-merge-t2", "tats-merge-s2", "tube", "adamae"), "pairs": 5},
                ("videomae", "adamae")),
    "step_bf16": Run("step", _STEP | {"pairs": 3, "amp": "bf16"}, ("videomae", "adamae")),
    "memory": Run("memory", {"methods": ("tats", "tats-lean")}, ("adamae",)),
    "attention": Run("attention", {"pairs": 7, "batch_size": 1}, ("motionformer",)),
    "ortho": Run("attention", {"pairs": 7, "batch_size": 1, "landmarks": 128}, ("motionformer",)),
    "loader": Run("loader", {"pairs": 5}, ("videomae",), None),
    "views": Run("loader", {"pairs": 3, "views": True}, ("videomae",), 1),
    "finetune": Run("finetune", {"pairs": 3, "batch_size": 1}, ("videomae",)),
    "threads": Run("threads", {"pairs": 2, "clips": 64}),
    "growth": Run("growth", {"pairs": 2, "batch_size": 1, "model": "pretrain_videomae_small_patch16_224"}),
}
LINES = (
    Line("TATS step / AdaMAE's", "step", "tats", "over_adamae-original", .88),
    Line("TATS step / VideoMAE's tube step", "step", "tats", "over_videomae-original", 1.35),
    Line("the same, a policy over 2 x 1 x 1 tokens (`--tats_merge 2 1 1`)", "step", "tats-merge-t2",
         "over_videomae-original"),
    Line("the same, a policy over 1 x 2 x 2 tokens (`--tats_merge 1 2 2`)", "step", "tats-merge-s2",
         "over_videomae-original"),
    Line("our tube step / VideoMAE's", "step", "tube", "over_videomae-original", .75),
    Line("our AdaMAE step / AdaMAE's", "step", "adamae", "over_adamae-original", .75),
    Line("TATS step / AdaMAE's, bf16", "step_bf16", "tats", "over_adamae-original"),
    Line("TATS step / VideoMAE's tube step, bf16", "step_bf16", "tats", "over_videomae-original"),
    Line("our tube step / VideoMAE's, bf16", "step_bf16", "tube", "over_videomae-original"),
    Line("our AdaMAE step / AdaMAE's, bf16", "step_bf16", "adamae", "over_adamae-original"),
    Line("saved activations, TATS / AdaMAE's, fast mode", "memory", "tats", "over_adamae-original", .88),
    Line("the same, lean mode (`--reuse_forward false`)", "memory", "tats-lean", "over_adamae-original", .55),
    Line("trajectory attention, forward and backward / Motionformer's exact", "attention", "ours",
         "over_motionformer", .50),
    Line("Orthoformer, 128 landmarks / Motionformer's", "ortho", "ours", "over_motionformer", .50),
    Line("our pre-training loader / VideoMAE's, s per clip", "loader", "ours", "over_videomae", .70),
    Line("our 5 x 3 test views of a video / VideoMAE's", "views", "ours", "over_videomae", .25),
    Line("our fine-tuning step / VideoMAE's", "finetune", "ours", "over_videomae-original"),
    Line("an epoch of a small TATS run beside one busy program a core / alone", "threads", "chosen",
         "busy_over_alone", 2.0),
)


def measure_page(config: BenchmarkConfig, given: set[str]) -> list[dict]:
    """Make what is missing of all RUNS in the folder --out, a CSV each, and `summary.md`; the rows of all CSVs.

    Args:
        given: names of the flags that stand in the command: those of PASSED_ON replace a run's own.

    Raises:
        ValueError: a flag that is chosen here, no folder, no clone or no video of that name, or a CSV that was measured
            with other flags. OSError: it cannot be written.
    """
    chosen = given & {item.name for item in fields(BenchmarkConfig)} - {*PASSED_ON, *CLONES, "out", "videos"}
    if chosen:
        raise ValueError(f"all chooses --{', --'.join(sorted(chosen))} itself: leave it out, or measure one thing")
    if config.out is None:
        raise ValueError("all: --out is missing: give the folder for the CSVs and summary.md")
    for name, marker in CLONES.items():
        if getattr(config, name) is not None:
            Clone(getattr(config, name), marker)
    if gone := [video for video in config.videos if not Path(video).exists()]:
        raise ValueError(f"--videos: {gone[0]} is not there")
    folder = Path(config.out)
    commands = {name: command(name, config, given) for name in RUNS}
    missing = [name for name, asked in commands.items() if not _kept(folder, name, asked)]
    for number, name in enumerate(missing):
        own, reason = own_config(name, config, given), _impossible(RUNS[name], config)
        if reason is None:
            logger.info("%d of %d: %s", number + 1, len(missing), commands[name])
            measured(RUNS[name].what, own, commands[name])
        write_whole(folder / "summary.md", "\n".join(page(folder, config, commands)) + "\n")
    write_whole(folder / "summary.md", "\n".join(page(folder, config, commands)) + "\n")
    return [row for name in RUNS for row in rows_of(folder, name)]


def own_config(name: str, config: BenchmarkConfig, given: set[str]) -> BenchmarkConfig:
    """The flags of one run: its own, those of the command that replace them, and its clones and videos."""
    return replace(BenchmarkConfig(), **_values(name, config, given))


def _values(name: str, config: BenchmarkConfig, given: set[str]) -> dict[str, Any]:
    run = RUNS[name]
    values = dict(run.flags) | {flag: getattr(config, flag) for flag in PASSED_ON
                                if flag in given and not (flag == "device" and run.what in ON_THE_CPU)}
    values |= {clone: getattr(config, clone) for clone in run.clones if getattr(config, clone) is not None}
    if run.videos != 0:
        values["videos"] = config.videos[:run.videos]
    return values | {"out": str(file_of(Path(config.out), name))}


def command(name: str, config: BenchmarkConfig, given: set[str]) -> str:
    """What measures the same alone, behind `python -m tats.engines.benchmark`."""
    words = [RUNS[name].what]
    for flag, value in _values(name, config, given).items():
        words.append(f"--{flag}")
        if value is not True:
            words += map(str, value) if isinstance(value, tuple | list) else [str(value)]
    return shlex.join(words)


def file_of(folder: Path, name: str) -> Path:
    """The CSV of one run."""
    return folder / f"performance_{name}.csv"


def rows_of(folder: Path, name: str) -> list[dict[str, str]]:
    """Of one run's CSV, as text; none where there is no CSV."""
    path = file_of(folder, name)
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _kept(folder: Path, name: str, asked: str) -> bool:
    """Whether a run is there, with everybody in it. Raises ValueError: it was measured with other flags."""
    rows = rows_of(folder, name)
    if not rows:
        return False
    was = rows[0]["flags"]
    if _without_places(was) != _without_places(asked):
        raise ValueError(f"{file_of(folder, name)} was measured with `{was}`, and now it would be `{asked}`: give "
                         "another --out, or delete it")
    return not any(row.get("left_out") for row in rows)


def _without_places(asked: str) -> list[str]:
    """The words of a command without those that only say where clones and CSV lie."""
    words, places = shlex.split(asked), {f"--{name}" for name in (*CLONES, "out")}
    return [word for before, word in zip(["", *words], words, strict=False) if before not in places]


def _impossible(run: Run, config: BenchmarkConfig) -> str | None:
    return "no --videos" if run.videos != 0 and not config.videos else None


def page(folder: Path, config: BenchmarkConfig, commands: Mapping[str, str]) -> Iterator[str]:
    """The lines of summary.md."""
    yield ("# Speed and memory against the originals\n\nMade by `python -m tats.engines.benchmark all`. Ratios are "
           "medians of those of the same turn; the CSVs beside this page hold the rest. `X` stands for a clone.\n")
    yield _table([_cells(line, folder, config, commands[line.run]) for line in LINES])
    growing = [row for row in rows_of(folder, "growth") if row.get("exponent_saved_mib")]
    if growing:
        yield ("\n## How a step grows\n\nExponents of time and memory over the tokens (over the value for the axes of "
               "TATS).\n")
        yield _table([{"axis": row["axis"], "strategy": row["name"],
                       "processor time": f"{float(row['exponent_processor_seconds']):.2f}",
                       "saved activations": f"{float(row['exponent_saved_mib']):.2f}"} for row in growing])
        yield f"\n`{_shown(commands['growth'])}`, {_machine(growing[0])}, commit {growing[0]['commit']}"


def _cells(line: Line, folder: Path, config: BenchmarkConfig, asked: str) -> dict[str, str]:
    rows = {row["name"]: row for row in rows_of(folder, line.run)}
    row = rows.get(line.name, {})
    found, processor = row.get(line.column), row.get(f"processor_{line.column}")
    if not found:
        found = _why_not(line, rows, config)
    else:
        found = f"**{float(found):.2f}**"
    return {"what": line.title, "at most": f"{line.limit:.2f}" if line.limit else "none", "measured": found,
            "of processor time": f"{float(processor):.2f}" if processor else NOT_HERE,
            "command: `python -m tats.engines.benchmark ...`": f"`{_shown(asked)}`",
            "machine": _machine(row) if row else NOT_HERE, "commit": row.get("commit", NOT_HERE)}


def _why_not(line: Line, rows: Mapping[str, Mapping], config: BenchmarkConfig) -> str:
    """Why a number is not there."""
    left = [row["left_out"] for row in rows.values() if row.get("left_out") and line.column.endswith(row["name"])]
    if left:
        return f"left out: {left[0]}"
    if reason := _impossible(RUNS[line.run], config):
        return reason
    absent = [name for name in RUNS[line.run].clones if getattr(config, name) is None and name in line.column]
    return f"no --{absent[0]}" if absent else "not yet"


def _machine(row: Mapping[str, str]) -> str:
    return f"{row['device']}, {row['threads']} thread(s), torch {row['torch']}"


def _shown(asked: str) -> str:
    """A command without the names of this machine's folders; --out stands last in it."""
    words, after = [], ""
    for word in shlex.split(asked):
        if word.startswith("--"):
            after = word
            words.append(word)
        elif after == "--videos":
            words[words.index(after) + 1:] = ["FILE" if words[-1] == after else "FILES"]
        else:
            words.append("X" if after[2:] in CLONES else word)
    return " ".join(words[:words.index("--out")])


def _table(rows: Sequence[dict[str, str]]) -> str:
    cells = pd.DataFrame(rows).map(lambda cell: cell.replace("|", r"\|"))
    return cells.to_markdown(index=False, disable_numparse=True)
