"""What a comparison on real clips is made of: its parts, what is measured of a cell, and where the answers are.

A part is one comparison of `compare_masks` with its own warm-ups and cells: one part that pre-trains on all clips, or
with --strict one for each fold, which leaves that fold's clips out.
"""

from pathlib import Path
from typing import NamedTuple

from ..compare_masks import plan as shared
from ..compare_masks.plan import Cell

SCRATCH = "scratch"   # not pre-trained: the readings of an untrained network, and one that is fine-tuned alone
METHODS = ("random", "tube", "frame", "adamae", "tats", "tats-paper", "tats-half-random", "tats-to-random")
READINGS = {"linear": "linear", "knn": "k-NN", "finetuned": "fine-tuned"}
RATIOS = (.9, .95)


class ClipsPlan(NamedTuple):
    """What the cells of a part share; the first five fields as in `compare_masks.plan.Plan`.

    Fields:
        data: folder with the part's train.csv, in the prepared clips' folder.
        out: folder for the part's cells.
        pretrain, finetune: arguments of the two programs.
        warm_epochs: with random masks, once a seed.
        folds: in which the part's models are tested.
        readings: of READINGS, which are wanted.
    """

    data: Path
    out: Path
    pretrain: list[str]
    finetune: list[str]
    warm_epochs: int
    folds: tuple[int, ...]
    readings: tuple[str, ...] = tuple(READINGS)

    @property
    def clips(self) -> Path:
        """The folder of the prepared clips."""
        return self.data.parent

    @property
    def features(self) -> list[str]:
        """Names of the features' numbers that are wanted."""
        return list(self.readings)

    def wanted(self, cell: Cell) -> set[str]:
        """Names of the numbers that make the cell a finished one."""
        return set(self.features) | (set() if cell.method == SCRATCH else {"fixed_error"})


def answers_file(plan: ClipsPlan, cell: Cell, reading: str) -> Path:
    """The answers of a reading of the cell's features to all clips that the part tests."""
    return plan.out / cell.name / f"{reading}.csv"


def maps_file(plan: ClipsPlan, cell: Cell) -> Path:
    """What the cell's token maps have to do with motion, clip by clip."""
    return plan.out / cell.name / "maps.csv"


def is_finished(plan: ClipsPlan, cell: Cell) -> bool:
    """Whether there are all that the plan asks for, the answers and maps behind the numbers, too: the tables are made
    of them."""
    files = [maps_file(plan, cell), *(answers_file(plan, cell, reading) for reading in plan.readings)]
    return shared.is_finished(plan, cell) and all(file.is_file() for file in files)
