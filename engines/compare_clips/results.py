"""What the finished cells of a comparison on real clips say: points of each clip, lines of its maps, a row a cell."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from ...datasets.files import read_json
from ..compare_masks.plan import METHODS as MASKINGS
from ..compare_masks.plan import SWITCHES, Cell, cells_in, result_file
from .answers import read_answers, read_table
from .plan import READINGS, SCRATCH, ClipsPlan, answers_file, maps_file

ORDER = [SCRATCH, *MASKINGS, *SWITCHES]
COST = {"pretraining_cpu_seconds": "pre-training, CPU s", "cpu_seconds": "all, CPU s", "peak_rss_mib": "peak MiB"}
LEARNING = {"entropy_share": ("entropy share", 3), "value_explained": ("value explains", 2),
            "motion_correlation": ("corr. with frame difference", 2), "visible_tokens": ("visible", 0)}
TOKENS = "features"   # the map of what single tokens say of flow


def _maps_of(file: Path) -> pd.DataFrame:
    return read_table(file, ("map", "path", "group"), dtype={"path": str, "group": str}, na_values=[""])


class Results:
    """All that the parts of a comparison hold.

    Attributes:
        cells: those of all parts, in order.
        methods: each method with each of its mask ratios, in order.
        numbers: what was logged of each cell, the mean over its parts; of the time the sum. None where a part has no
            cell yet: fewer folds are another measurement.
        clips: how many clips are tested in all parts together.
    """

    def __init__(self, plans: Sequence[ClipsPlan], clips: int):
        self.plans, self.clips = plans, clips
        self._maps: dict[Cell, pd.DataFrame] = {}
        found = dict.fromkeys(cell for plan in plans for cell in cells_in(plan, ORDER))
        self.cells = sorted(found, key=lambda cell: (cell.mask_ratio, ORDER.index(cell.method), cell.seed))
        self.methods = list(dict.fromkeys((cell.method, cell.mask_ratio) for cell in self.cells))
        self.numbers = {cell: self._numbers(cell) for cell in self.cells}

    def _numbers(self, cell: Cell) -> dict[str, float]:
        files = [result_file(plan, cell) for plan in self.plans]
        if not all(file.is_file() for file in files):
            return {}
        frame = pd.DataFrame(map(read_json, files)).drop(columns=list(Cell._fields))
        frame = frame.apply(pd.to_numeric, errors="coerce")
        spent = frame.filter(regex="cpu_seconds$").sum(skipna=False)   # --strict costs one pre-training a fold
        return frame.mean().drop(spent.index).dropna().to_dict() | spent.dropna().to_dict()

    def points(self, cell: Cell, reading: str) -> pd.Series | None:
        """Of each clip, by path and group; None where a part has not asked yet.

        Args:
            reading: of READINGS: 100 where the class was found, else 0. Or a map of `measure_maps`: 100 times its rank
                correlation with flow.
        """
        if reading not in READINGS:
            return self._flow_in(cell, reading)
        files = [answers_file(plan, cell, reading) for plan in self.plans]
        if not all(file.is_file() for file in files):
            return None
        points = pd.concat([read_answers(file) for file in files])
        self._must_be_all(points.index, files)
        return points

    def _flow_in(self, cell: Cell, name: str) -> pd.Series | None:
        lines = self.maps(cell)
        lines = lines[lines["map"] == name]
        return 100 * lines.set_index(["path", "group"])["flow"] if len(lines) and lines["flow"].notna().any() else None

    def maps(self, cell: Cell) -> pd.DataFrame:
        """The lines of `measure_maps`, with path and group, read once. None where a part has none yet."""
        if cell not in self._maps:
            self._maps[cell] = self._read_maps(cell)
        return self._maps[cell]

    def _read_maps(self, cell: Cell) -> pd.DataFrame:
        files = [maps_file(plan, cell) for plan in self.plans]
        if not all(file.is_file() for file in files):
            return pd.DataFrame(columns=["map"])
        lines = pd.concat([_maps_of(file) for file in files])
        for _, own in lines.groupby("map"):
            self._must_be_all(own["path"], files)
        return lines

    def _must_be_all(self, found: Sequence, files: Sequence[Path]) -> None:
        """Raises ValueError: files that were cut, or are of other clips. Their mean would stand under a wrong name."""
        if len(found) != self.clips or pd.Index(found).has_duplicates:
            raise ValueError(f"{', '.join(map(str, files))}: answers for {len(found)} of {self.clips} clips, each "
                             f"wanted once: delete {'it, and it is' if len(files) == 1 else 'them, and they are'} made "
                             "again")

    def measured(self, method: str, ratio: float, reading: str) -> dict[int, pd.Series]:
        """`points` of each seed."""
        found = {cell.seed: self.points(cell, reading) for cell in self.cells
                 if (cell.method, cell.mask_ratio) == (method, ratio)}
        return {seed: points for seed, points in found.items() if points is not None}

    def rows(self) -> Iterator[dict]:
        """One a cell: accuracies, rank correlations and enrichment of its maps, what was logged."""
        for cell in self.cells:
            row = {**cell._asdict(), "clips": self.clips}
            for reading in READINGS:
                points = self.points(cell, reading)
                row[reading] = None if points is None else round(float(points.mean()), 3)
            for name, lines in self.maps(cell).groupby("map", sort=False):
                means = lines.drop(columns=["map", "row", "path", "group"], errors="ignore").mean().dropna()
                row |= {f"{name}_{kind}": round(float(value), 4) for kind, value in means.items()}
            yield row | {name: self.numbers[cell].get(name) for name in (*LEARNING, *COST)}
