"""Fill in the paper's Tables 1, 2, 3, 5, 6 and 9 from the runs below a folder.

    python -m tats.engines.tables OUTPUT_ROOT [--tables 1 3] [--recipe ours] [--format markdown] [--require]

Accuracies come from result.json of the fine-tuning runs, memory and reconstruction errors from log.txt of the
pre-training runs; of several seeds the mean counts. The paper's numbers, and the run that each belongs to, stand in
paper_tables.csv beside this file. Beside them stand VideoMAE and AdaMAE under their own scripts (BASELINES=published)
and random masks (METHOD=random), which the paper does not have. Runs of a row with other flags than the row's stand in
a table of their own.
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from ..datasets.program import run_program
from .core.paper_entry import PAPER, PLAIN_MEMORY, VARIANT, Entry, of_the_paper, started_from_others
from .core.results import Number, last_number, peak_memory, result_number

TITLES = {
    "1": "Table 1: fine-tuning on the data set of pre-training",
    "2": "Table 2: transfer",
    "3a": "Table 3a: attention of the sampler (UCF101, 0.95)",
    "3b": "Table 3b: decoder depth (UCF101, 0.95)",
    "3c": "Table 3c: memory of pre-training (UCF101, 0.95)",
    "3d": "Table 3d: reconstruction loss (UCF101, 0.95)",
    "3e": "Table 3e: trajectory attention blocks (UCF101, 0.95)",
    "5": "Table 5: m_o and k, reconstruction error (0.95)",
    "6": "Table 6: c1, c2, c3, reconstruction error (UCF101, 0.95)",
    "9": "Table 9: the whole of SSv2",
}
NOT_RUN = "not run"
CELL = "paper | ours | difference"
SEEDS = "ours: mean ± standard deviation (number of seeds)"
INCOMPLETE = "* not every video of the test list was evaluated, or the run has not ended"
MEMORY = ("memory: the most that PyTorch held on one GPU. Fused attention keeps no N x N weights, which the paper's "
          "memory holds: the two cannot be compared. Plain attention: likewise, of a run with --plain_attention true, "
          "whose blocks keep these weights")
ERRORS = ("reconstruction error: train_fixed_error of the last epoch, on the same clips under the same random masks "
          "for all cases. The paper does not say on which masks it is; the training loss is under each run's own")
STALE = "stale: the pre-training behind it has been made anew since"
CHANGED = "changed: --change has altered a flag within the run or its pre-training; settings.json says which"
WEIGHTS = "other weights: the run did not start from the row's own pre-training (CHECKPOINT)"
SMOKE = "SMOKE: a tiny model or made-up videos (SMOKE=1): the number means nothing, and the row is still to be run"
# What may stand beside --plain_attention in the name of a run whose memory is the row's.
SAME_MEMORY = re.compile(r"(__(plain_attention=true|(epochs|warmup_epochs|mae_only_epochs|seed)=\d+))+")
LISTS = "other lists: the run, or its pre-training, had lists of another length than the paper's (ANY_SIZE=1)"
OTHERS = "Runs with other flags than their row's"


def read_entries(output_root: Path, tables: Sequence[str] = ("1", "2", "3", "5", "6", "9"),
                 recipe: str = "paper") -> list[Entry]:
    """Every number of `tables` ("3" is 3a to 3e), with ours where its run has ended.

    With recipe "ours" the column of TATS comes from the runs of TATS_RECIPE=ours.

    Raises:
        ValueError: a result.json or log.txt that is not what the programs write.
    """
    with files(__package__).joinpath("paper_tables.csv").open(encoding="utf-8") as file:
        frame = pd.read_csv(file, dtype=str)
    frame = frame[frame["table"].str.startswith(tuple(tables))]
    rows = list(of_the_paper(frame.to_dict("records")))
    if recipe != "paper":
        rows = [row | {"run": re.sub("^tats/", f"tats_{recipe}/", row["run"])} for row in rows]
    return [_fill(output_root, row) for row in rows] + [
        _fill(output_root, row | {"run": variant, "paper": None, "kind": VARIANT})
        for row in rows if row["metric"] != PLAIN_MEMORY for variant in _variants(output_root, row["run"])]


def _number(folder: Path, metric: str) -> Number | None:
    if metric in ("memory_gb", PLAIN_MEMORY):
        return peak_memory(folder)
    return last_number(folder, metric) if metric.startswith("train_") else result_number(folder, metric)


def _fill(output_root: Path, row: dict) -> Entry:
    """The row's number from its folder and those of its other seeds."""
    folders = (_plain if row["metric"] == PLAIN_MEMORY else _seeds)(output_root / row["run"])
    found = [number for folder in folders
             if (number := _number(folder, row["metric"])) is not None]
    if not found:
        return Entry(**row)
    numbers = pd.Series([number.value for number in found])
    return Entry(**row, ours=float(numbers.mean()), complete=all(number.complete for number in found),
                 seeds=len(found), deviation=float(numbers.std()) if len(found) > 1 else None,
                 stale=any(number.stale for number in found), changed=any(number.changed for number in found),
                 smoke=any(number.smoke for number in found), other_lists=any(number.other_lists for number in found),
                 other_weights=row["kind"] != VARIANT and any(started_from_others(row["run"], number.source)
                                                              for number in found))


def _seeds(run: Path) -> list[Path]:
    """The run's folder and those of the same run with another seed, as the row scripts name them."""
    others = (path for path in run.parent.glob(f"{run.name}__seed=*") if re.search(r"__seed=\d+$", path.name))
    return [run, *sorted(path for path in others if path.name.rpartition("__seed=")[0] == run.name)]


def _plain(run: Path) -> list[Path]:
    """Folders of the same run with --plain_attention true, however short: a few steps show its memory."""
    found = (path for path in run.parent.glob(f"{run.name}__*") if "__plain_attention=true" in path.name)
    return sorted(path for path in found if SAME_MEMORY.fullmatch(path.name[len(run.name):]))


def _variants(output_root: Path, run: str) -> list[str]:
    """Folders of the run with other flags, without the seed."""
    column, _, name = run.rpartition("/")
    found = (re.sub(r"__seed=\d+$", "", path.name) for path in (output_root / column).glob(f"{name}__*"))
    return sorted({f"{column}/{one}" for one in found if one != name})


def _cell(entry: Entry) -> str:
    paper = [] if entry.paper is None else [entry.shown(entry.paper)]
    if entry.ours is None:
        return " | ".join([*paper, NOT_RUN])
    several = "" if entry.deviation is None else f" ± {entry.shown(entry.deviation)} ({entry.seeds})"
    ours = f"{entry.shown(entry.ours)}{several}{entry.doubts}"
    return " | ".join([*paper, ours, *([] if entry.difference is None else [entry.shown(entry.difference, "+")])])


def _grids(entries: Sequence[Entry]) -> list[tuple[str, pd.DataFrame]]:
    """(title, cells) for each table, rows and columns in the paper's order; last the runs with other flags."""
    frame = pd.DataFrame({**asdict(entry), "cell": _cell(entry)} for entry in entries)
    printed, others = frame[frame["kind"] != VARIANT], frame[(frame["kind"] == VARIANT) & frame["ours"].notna()]
    grids = [(f"{TITLES[table]} ({CELL})", _grid(own, "row", "column"))
             for table, own in printed.groupby("table", sort=False)]
    others = others.drop_duplicates(["run", "metric"])
    return grids + ([(OTHERS, _grid(others, "run", "metric"))] if len(others) else [])


def _grid(frame: pd.DataFrame, rows: str, columns: str) -> pd.DataFrame:
    return (frame.pivot(index=rows, columns=columns, values="cell")
            .reindex(index=frame[rows].unique(), columns=frame[columns].unique()).fillna("").rename_axis(None))


def to_text(entries: Sequence[Entry]) -> str:
    """Aligned columns."""
    parts = []
    for title, grid in _grids(entries):
        lines = tabulate(grid, headers="keys", tablefmt="plain", disable_numparse=True).splitlines()
        parts.append("\n".join([title, *map(str.rstrip, lines)]))
    return "\n\n".join(parts + _note(entries)) + "\n"


def to_markdown(entries: Sequence[Entry]) -> str:
    """Tables as GitHub draws them."""
    parts = [f"**{title.replace(f' ({CELL})', '')}**{f' ({CELL})' if CELL in title else ''}\n\n" +
             grid.map(lambda cell: cell.replace("|", r"\|")).to_markdown(disable_numparse=True)
             for title, grid in _grids(entries)]
    return "\n\n".join(parts + _note(entries)) + "\n"


def to_csv(entries: Sequence[Entry]) -> str:
    """A line for each number: table, row, column, run, metric, kind, paper, ours, difference, complete, seeds,
    deviation, stale, changed, other_weights, smoke, other_lists; without paper and difference where the paper has
    no such number."""
    shown = ("paper", "ours", "difference", "deviation")
    frame = pd.DataFrame(
        {**asdict(entry), **{name: None if (value := getattr(entry, name)) is None else
                             entry.shown(value, "+" if name == "difference" else "") for name in shown}}
        for entry in entries)
    marks = ["stale", "changed", "other_weights", "smoke", "other_lists"]
    for name in ("complete", "seeds", *marks):
        frame[name] = frame[name].astype(object).where(frame["ours"].notna(), None)
    order = ["table", "row", "column", "run", "metric", "kind", "paper", "ours", "difference", "complete", "seeds",
             "deviation", *marks]
    return frame[frame["ours"].notna() | (frame["kind"] != VARIANT)][order].to_csv(index=False, lineterminator="\n")


def _note(entries: Sequence[Entry]) -> list[str]:
    said = [(SEEDS, any(entry.deviation is not None for entry in entries)),
            (SMOKE, any(entry.smoke for entry in entries)),
            (LISTS, any(entry.other_lists for entry in entries)),
            (INCOMPLETE, not all(entry.complete for entry in entries)), (STALE, any(entry.stale for entry in entries)),
            (CHANGED, any(entry.changed for entry in entries)),
            (WEIGHTS, any(entry.other_weights for entry in entries)),
            (MEMORY, any(entry.metric in ("memory_gb", PLAIN_MEMORY) and entry.ours is not None for entry in entries)),
            (ERRORS, any(entry.metric.startswith("train_") for entry in entries))]
    return ["\n".join(note for note, holds in said if holds)] if any(holds for _, holds in said) else []


FORMATS: dict[str, Callable[[Sequence[Entry]], str]] = {"text": to_text, "markdown": to_markdown, "csv": to_csv}


def get_parser() -> argparse.ArgumentParser:
    """The program's command line."""
    parser = argparse.ArgumentParser("tables", description=__doc__.splitlines()[0])
    parser.add_argument("output_root", type=Path, help="OUTPUT_ROOT of the row scripts")
    parser.add_argument("--tables", nargs="+", default=["1", "2", "3", "5", "6", "9"],
                        choices=["3", *TITLES], metavar="TABLE", help="1, 2, 3 (or 3a to 3e), 5, 6, 9")
    parser.add_argument("--recipe", choices=["paper", "ours"], default="paper", help="TATS_RECIPE of the runs")
    parser.add_argument("--format", choices=sorted(FORMATS), default="text")
    parser.add_argument("--require", action="store_true", help="exit with 1 when a number is missing or of SMOKE=1")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; 1 when --require finds a number missing, else 0.

    Raises:
        FileNotFoundError, ValueError: no such folder, or a damaged result.
    """
    args = get_parser().parse_args(argv)
    if not args.output_root.is_dir():
        raise FileNotFoundError(f"no folder of runs: {args.output_root}")
    entries = read_entries(args.output_root, args.tables, args.recipe)
    sys.stdout.write(FORMATS[args.format](entries))
    if all(entry.ours is None for entry in entries):
        sys.stderr.write(f"{args.output_root} holds no run of these tables under its name: they are looked for as "
                         f"METHOD/NAME, such as {args.output_root}/{entries[0].run}\n")
    printed = [entry for entry in entries if entry.kind == PAPER]
    missing = [entry for entry in printed if entry.ours is None or entry.smoke]
    if args.require and missing:
        runs = ", ".join(dict.fromkeys(entry.run for entry in missing))
        sys.stderr.write(f"error: {len(missing)} of {len(printed)} numbers are missing, of the runs {runs}\n")
        return 1
    return 0


if __name__ == "__main__":
    run_program(lambda: sys.exit(main()))
