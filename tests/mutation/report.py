"""The results of mutation testing: a CSV file that grows row by row, and a Markdown page."""

import csv
from collections import Counter
from pathlib import Path

from mutants import Mutant
from trial import Outcome

FIELDS = (*Mutant._fields, *Outcome._fields)
EQUIVALENT = Path(__file__).with_name("equivalent.csv")


def read_rows(path: Path) -> dict[Mutant, Outcome]:
    """What has been tried, the last time that it was."""
    if not path.exists():
        return {}
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    found = {}
    for row in rows:
        values = row | {"line": int(row["line"]), "column": int(row["column"]), "occurrence": int(row["occurrence"]),
                        "seconds": float(row["seconds"])}
        found[Mutant(*(values[name] for name in Mutant._fields))] = Outcome(*(values[name] for name in
                                                                              Outcome._fields))
    return found


def add_row(path: Path, mutant: Mutant, outcome: Outcome) -> None:
    """Append a row; a kill of this program loses at most the row that it writes."""
    new = not path.exists()
    with open(path, "a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(FIELDS)
        writer.writerow((*mutant, *outcome))


def equivalents() -> dict[tuple[str, str, str], str]:
    """(file, line before, line after) -> why no test can tell the two apart."""
    with open(EQUIVALENT, newline="") as file:
        return {(row["file"], row["before"], row["after"]): row["reason"] for row in csv.DictReader(file)}


def summary(results: dict[Mutant, Outcome], seed: int) -> str:
    """The page: the score of each file, the survivors, and those that are known to be no change."""
    same = equivalents()
    known = {mutant for mutant in results if mutant[0:1] + mutant[5:7] in same}
    lines = [f"# Mutation testing: {len(results)} mutants, seed {seed}", "",
             "Score: the share of mutants that a test noticed (killed, or stopped at the time limit), without those "
             "that change nothing (equivalent).", "",
             "| file | mutants | killed | time limit | survived | equivalent | score |",
             "|---|---|---|---|---|---|---|"]
    files = sorted({mutant.file for mutant in results})
    for name, chosen in [*((file, [one for one in results if one.file == file]) for file in files),
                         ("all", list(results))]:
        counts = Counter("equivalent" if one in known and results[one].verdict == "survived" else results[one].verdict
                         for one in chosen)
        tried = len(chosen) - counts["equivalent"]
        share = f"{(counts['killed'] + counts['timeout']) / tried:.0%}" if tried else "–"
        lines.append(f"| {name} | {len(chosen)} | {counts['killed']} | {counts['timeout']} | {counts['survived']} | "
                     f"{counts['equivalent']} | {share} |")
    survivors = [one for one, outcome in results.items() if outcome.verdict == "survived"]
    for title, chosen in (("Survivors", [one for one in survivors if one not in known]),
                          ("Equivalent", [one for one in survivors if one in known])):
        lines += ["", f"## {title}", ""]
        for one in sorted(chosen):
            lines.append(f"- {one.file}:{one.line} ({one.operator.split('/')[1]}) `{one.before}` → `{one.after}`")
            if title == "Equivalent":
                lines[-1] += f": {same[one.file, one.before, one.after]}"
    return "\n".join(lines) + "\n"
