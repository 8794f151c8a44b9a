"""Fill in the paper's Tables 1, 2, 3 and 9 from the runs below a folder.

    python -m tats.engines.tables OUTPUT_ROOT [--tables 1 3] [--recipe ours] [--format markdown] [--require]

Accuracies come from result.json of the fine-tuning runs, memory from log.txt of the pre-training runs. The paper's
numbers, and the run that each belongs to, stand in paper_tables.csv beside this file.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from ..datasets.program import run_program

TITLES = {
    "1": "Table 1: fine-tuning on the data set of pre-training",
    "2": "Table 2: transfer",
    "3a": "Table 3a: attention of the sampler (UCF101, 0.95)",
    "3b": "Table 3b: decoder depth (UCF101, 0.95)",
    "3c": "Table 3c: memory of pre-training (UCF101, 0.95)",
    "3d": "Table 3d: reconstruction loss (UCF101, 0.95)",
    "3e": "Table 3e: trajectory attention blocks (UCF101, 0.95)",
    "9": "Table 9: the whole of SSv2",
}
NOT_RUN = "not run"
CELL = "paper | ours | difference"
INCOMPLETE = "* not every video of the test list was evaluated"


@dataclass(frozen=True)
class Entry:
    """One number of the paper and ours.

    Attributes:
        table, row, column: its place.
        run: folder below OUTPUT_ROOT that it comes from.
        metric: "top1" or "top5" in percent, or "memory_gb".
        paper, ours: the numbers; ours is None where nothing was run.
        complete: all videos that were expected were evaluated.
    """

    table: str
    row: str
    column: str
    run: str
    metric: str
    paper: float
    ours: float | None = None
    complete: bool = True

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's."""
        return None if self.ours is None else self.ours - self.paper


def read_entries(output_root: Path, tables: Sequence[str] = ("1", "2", "3", "9"), recipe: str = "paper") -> list[Entry]:
    """Every number of `tables` ("3" is 3a to 3e), with ours where its run has ended.

    With recipe "ours" the column of TATS comes from the runs of TATS_RECIPE=ours.

    Raises:
        ValueError: a result.json or log.txt that is not what the programs write.
    """
    with files(__package__).joinpath("paper_tables.csv").open(encoding="utf-8") as file:
        rows = pd.read_csv(file, dtype=str)
    rows = rows[rows["table"].str.startswith(tuple(tables))]
    if recipe != "paper":
        rows = rows.assign(run=rows["run"].str.replace("^tats/", f"tats_{recipe}/", regex=True))
    return [_fill(output_root, row) for row in rows.to_dict("records")]


def _fill(output_root: Path, row: dict[str, str]) -> Entry:
    run = output_root / row["run"]
    row = {**row, "paper": float(row["paper"])}
    if row["metric"] == "memory_gb":
        return Entry(**row, ours=_peak_memory(run / "log.txt"))
    path = run / "result.json"
    if not path.is_file():
        return Entry(**row)
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        return Entry(**row, ours=float(result[row["metric"]]),
                     complete=result["num_evaluated"] == result["num_expected"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a result of run_class_finetuning ({type(error).__name__}: {error})") from None


def _peak_memory(path: Path) -> float | None:
    """The largest `peak_memory_gb` of a log, one JSON line an epoch; None where the log or the number is missing."""
    if not path.is_file():
        return None
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return max((float(line["peak_memory_gb"]) for line in lines if line.get("peak_memory_gb")), default=None)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a log of run_mae_pretraining: {error}") from None


def _cell(entry: Entry) -> str:
    if entry.ours is None:
        return f"{entry.paper:.2f} | {NOT_RUN}"
    return f"{entry.paper:.2f} | {entry.ours:.2f}{'' if entry.complete else '*'} | {entry.difference:+.2f}"


def _grids(entries: Sequence[Entry]) -> list[tuple[str, pd.DataFrame]]:
    """(title, cells) for each table, rows and columns in the paper's order."""
    frame = pd.DataFrame({**asdict(entry), "cell": _cell(entry)} for entry in entries)
    return [(TITLES[table], own.pivot(index="row", columns="column", values="cell")
             .reindex(index=own["row"].unique(), columns=own["column"].unique()).fillna("").rename_axis(None))
            for table, own in frame.groupby("table", sort=False)]


def to_text(entries: Sequence[Entry]) -> str:
    """Aligned columns."""
    parts = []
    for title, grid in _grids(entries):
        lines = tabulate(grid, headers="keys", tablefmt="plain", disable_numparse=True).splitlines()
        parts.append("\n".join([f"{title} ({CELL})", *map(str.rstrip, lines)]))
    return "\n\n".join(parts + _note(entries)) + "\n"


def to_markdown(entries: Sequence[Entry]) -> str:
    """Tables as GitHub draws them."""
    parts = [f"**{title}** ({CELL})\n\n" +
             grid.map(lambda cell: cell.replace("|", r"\|")).to_markdown(disable_numparse=True)
             for title, grid in _grids(entries)]
    return "\n\n".join(parts + _note(entries)) + "\n"


def to_csv(entries: Sequence[Entry]) -> str:
    """A line for each number: table, row, column, run, metric, paper, ours, difference, complete."""
    frame = pd.DataFrame({**asdict(entry), "difference": entry.difference} for entry in entries)
    done = frame["ours"].notna()
    for name, shown in (("paper", "{:.2f}"), ("ours", "{:.2f}"), ("difference", "{:+.2f}")):
        frame[name] = frame[name].map(shown.format, na_action="ignore")
    frame["complete"] = frame["complete"].where(done, None)
    order = ["table", "row", "column", "run", "metric", "paper", "ours", "difference", "complete"]
    return frame[order].to_csv(index=False, lineterminator="\n")


def _note(entries: Sequence[Entry]) -> list[str]:
    return [] if all(entry.complete for entry in entries) else [INCOMPLETE]


FORMATS: dict[str, Callable[[Sequence[Entry]], str]] = {"text": to_text, "markdown": to_markdown, "csv": to_csv}


def get_parser() -> argparse.ArgumentParser:
    """The program's command line."""
    parser = argparse.ArgumentParser("tables", description=__doc__.splitlines()[0])
    parser.add_argument("output_root", type=Path, help="OUTPUT_ROOT of the row scripts")
    parser.add_argument("--tables", nargs="+", default=["1", "2", "3", "9"], choices=["1", "2", "3", "9", *TITLES],
                        metavar="TABLE", help="1, 2, 3 (or 3a to 3e), 9")
    parser.add_argument("--recipe", choices=["paper", "ours"], default="paper", help="TATS_RECIPE of the runs")
    parser.add_argument("--format", choices=sorted(FORMATS), default="text")
    parser.add_argument("--require", action="store_true", help="exit with 1 when a number is missing")
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
    missing = [entry for entry in entries if entry.ours is None]
    if args.require and missing:
        runs = ", ".join(dict.fromkeys(entry.run for entry in missing))
        sys.stderr.write(f"error: {len(missing)} of {len(entries)} numbers are missing, of the runs {runs}\n")
        return 1
    return 0


if __name__ == "__main__":
    run_program(lambda: sys.exit(main()))
