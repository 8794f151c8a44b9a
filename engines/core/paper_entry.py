"""A number of the paper's tables with ours beside it, and the entries that stand beside the paper's own."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PAPER, PUBLISHED, BESIDE, VARIANT = "paper", "published", "beside", "variant"   # kinds of entries
METHODS = {"videomae": "VideoMAE", "adamae": "AdaMAE", "tats": "TATS"}
RANDOM = "random (not in the paper)"
PLAIN_MEMORY = "plain_memory_gb"   # of runs with --plain_attention true


@dataclass(frozen=True)
class Entry:
    """One number of the paper and ours.

    Attributes:
        table, row, column: its place.
        run: folder below OUTPUT_ROOT that it comes from.
        metric: "top1" or "top5" in percent, "memory_gb", PLAIN_MEMORY, or a number of log.txt.
        kind: PAPER, a number of the paper under Tables 4 and 7; PUBLISHED, the same number under the baseline's own
            scripts; BESIDE, a number that the paper does not have; VARIANT, of a run with other flags than its row's.
        paper, ours: the numbers; ours is None where nothing was run, paper where it has none.
        complete: all videos that were expected were evaluated; of a number of log.txt, that the run has ended.
        seeds: runs that `ours` is the mean of. deviation: of their numbers, None for less than two.
        stale: the pre-training of one of them has been made anew since. changed: --change has altered a flag within one
            of them, or within its pre-training. other_weights: one started from other weights than the row's own
            pre-training. smoke: one is of SMOKE=1, or like it. other_lists: one is of ANY_SIZE=1 and other lists.
    """

    table: str
    row: str
    column: str
    run: str
    metric: str
    kind: str
    paper: float | None
    ours: float | None = None
    complete: bool = True
    seeds: int = 0
    deviation: float | None = None
    stale: bool = False
    changed: bool = False
    other_weights: bool = False
    smoke: bool = False
    other_lists: bool = False

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's; None where the two are not of the same thing: memory, a smoke run."""
        unlike = self.smoke or self.metric == "memory_gb"
        return None if unlike or None in (self.ours, self.paper) else self.ours - self.paper

    @property
    def doubts(self) -> str:
        """What stands behind the number where it is not the row's own without reserve."""
        words = {"SMOKE": self.smoke, "other lists": self.other_lists, "stale": self.stale, "changed": self.changed,
                 "other weights": self.other_weights}
        return ("" if self.complete else "*") + "".join(f" {word}" for word, holds in words.items() if holds)

    def shown(self, value: float, sign: str = "") -> str:
        """The value with as many digits as the paper prints."""
        return f"{value:{sign}.{4 if self.metric.startswith('train_') else 2}f}"


def started_from_others(run: str, source: str | None) -> bool:
    """Whether a fine-tuning run of a row started from other weights than the row's pre-training.

    Args:
        run: the row's folder, COLUMN/NAME without the seed. source: the file that it started from; "": none, None:
            nobody knows.
    """
    if source is None:
        return False
    column, _, name = run.partition("/")
    own = re.sub(r"^transfer_(\w+?)_to_\w+_(r\d+)$", r"pretrain_\1_\2", name)
    own = own.replace("finetune_", "pretrain_", 1) if name.startswith("finetune_") else own
    folder = Path(source).parent
    return (folder.parent.name, re.sub(r"__seed=\d+$", "", folder.name)) != (column, own)


def of_the_paper(rows: Iterable[dict]) -> Iterator[dict]:
    """The rows of paper_tables.csv as keyword arguments of `Entry`; then what stands beside them: the baselines under
    their own scripts, random masks, the training loss, memory with plain attention."""
    beside = []
    for row in rows:
        row = row | {"kind": PAPER, "paper": float(row["paper"])}
        yield row
        method, _, run = row["run"].partition("/")
        if row["metric"] == "train_fixed_error":
            beside.append(row | {"column": f"{row['column']} training loss", "metric": "train_loss", "kind": BESIDE,
                                 "paper": None})
            continue
        if row["metric"] == "memory_gb":
            beside.append(row | {"column": f"{row['column']}, plain attention", "metric": PLAIN_MEMORY, "kind": BESIDE,
                                 "paper": None})
        if row["table"] not in ("1", "2", "3c", "9"):
            continue
        elif method == "tats":
            beside.append(_renamed(row, METHODS[method], RANDOM) | {"run": f"random/{run}", "kind": BESIDE,
                                                                    "paper": None})
        else:
            beside.append(_renamed(row, METHODS[method], f"{METHODS[method]} (own scripts)") |
                          {"run": f"{method}_published/{run}", "kind": PUBLISHED})
    yield from sorted(beside, key=lambda row: row["kind"] == BESIDE)


def _renamed(row: dict, name: str, other: str) -> dict:
    """The method's name stands in front of the row's or of the column's."""
    return row | {place: other + row[place][len(name):] for place in ("row", "column") if row[place].startswith(name)}
