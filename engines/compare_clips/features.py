"""What a cell's features are worth on real clips: linear, nearest neighbours, fine-tuned, over the part's folds."""

import math
from pathlib import Path

import numpy as np
import pandas as pd

from ...datasets.lists.list_file import read_list
from ...datasets.video.decode import open_video
from .. import run_class_finetuning
from ..compare_masks.frozen import extracted
from ..compare_masks.plan import Cell, checkpoint_file
from ..core.results import result_number
from .answers import read_table, write_answers
from .plan import SCRATCH, ClipsPlan, answers_file
from .readings import answers_by_fold, difference_statistics, linear, nearest
from .untrained import write_untrained

_AT_ONCE = 512   # frames of a clip in memory
_ROUNDING = 1e-4   # of the percent in result.json
CLASSIFIERS = {"linear": linear, "knn": nearest}


def measure_features(plan: ClipsPlan, cell: Cell, names: list[str]) -> dict[str, float]:
    """The readings `names` of a cell's features: top-1 in percent of all clips that the part tests, pooled."""
    clips, numbers = evaluated_clips(plan.clips), {}
    frozen = [name for name in names if name in CLASSIFIERS]
    if frozen:
        features = _frozen(plan, cell)
        for name in frozen:
            predicted = answers_by_fold(features, clips["label"].to_numpy(), clips["fold"].to_numpy(), plan.folds,
                                        CLASSIFIERS[name])
            numbers[name] = write_answers(answers_file(plan, cell, name), clips, predicted)
    if "finetuned" in names:
        predicted = _finetuned(plan, cell, clips)
        numbers["finetuned"] = write_answers(answers_file(plan, cell, "finetuned"), clips, predicted)
    return numbers


def evaluated_clips(data: Path) -> pd.DataFrame:
    """The clips whose labels are learned, those that are only trained on too, in the manifest's order: video, path,
    group, fold, label."""
    return read_table(data / "clips.csv", ("row", "video", "path", "group", "fold", "label"),
                      dtype={"path": str, "group": str})


def _frozen(plan: ClipsPlan, cell: Cell) -> np.ndarray:
    """Features (n, D) of the evaluated clips, the middle view of each."""
    folder = plan.out / cell.name
    checkpoint = write_untrained(plan.pretrain, cell.seed, folder / "untrained.pth") if cell.method == SCRATCH else \
        checkpoint_file(plan, cell)
    return extracted(checkpoint, plan.clips / "evaluated.csv", folder / "features.npz")[0]


def _finetuned(plan: ClipsPlan, cell: Cell, clips: pd.DataFrame) -> np.ndarray:
    """The class that each clip is taken for by the network that was fine-tuned on the other folds; -1: not asked. What
    a fold's run has left is not made again."""
    start = [] if cell.method == SCRATCH else ["--finetune", checkpoint_file(plan, cell)]
    classes = clips["label"].max() + 1
    predicted = pd.Series(-1, [Path(video).name for video in clips["video"]])
    labels = clips["label"].set_axis(predicted.index)
    for fold in plan.folds:
        folder = plan.out / cell.name / f"finetune-fold{fold}"
        if not (folder / "result.json").is_file():
            run_class_finetuning.main([
                *plan.finetune, "--nb_classes", str(classes), "--data_path", str(plan.clips / f"fold{fold}"), *start,
                "--seed", str(cell.seed), "--output_dir", str(folder)])
        found = _predictions(folder, labels[(clips["fold"] == fold).to_numpy()])
        predicted[found.index] = found
    return predicted.to_numpy()


def _predictions(folder: Path, labels: pd.Series) -> pd.Series:
    """The class that each tested clip is taken for, by its file's name, since the folder may have been moved; a video
    that cannot be read is taken for a class that is none.

    Args:
        folder: with predictions.csv and result.json of a test. labels: of the clips that it tested, by file name.

    Raises:
        ValueError: the two do not go together, or are of other clips: they were cut, or changed by hand.
    """
    path, way_out = folder / "predictions.csv", f"delete {folder / 'result.json'}, and the test is made again"
    try:
        top1 = result_number(folder, "top1").value
        table = pd.read_csv(path, usecols=["path", "predicted"], dtype=str, keep_default_na=False)
        found = table["predicted"].replace("", str(1 << 16)).astype(int).set_axis(table["path"].map(
            lambda video: Path(video).name))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} or the result beside it is broken ({error}): {way_out}") from None
    if sorted(found.index) != sorted(labels.index):
        raise ValueError(f"{path} is not of the {len(labels)} clips of its fold, each once: {way_out}")
    if not math.isclose(100 * float((found == labels[found.index]).mean()), top1, abs_tol=_ROUNDING):
        raise ValueError(f"{path} has another accuracy than the {top1:g} % of result.json: {way_out}")
    return found


def measure_difference(data: Path, folds: tuple[int, ...], out: Path) -> float:
    """A linear reading of nine statistics of frame differences, without any model: top-1 in percent. Its answers go to
    `out`."""
    clips = evaluated_clips(data)
    features = np.stack([_statistics(path) for path in read_list(data / "evaluated.csv").paths])
    predicted = answers_by_fold(features, clips["label"].to_numpy(), clips["fold"].to_numpy(), folds, linear)
    return write_answers(out, clips, predicted)


def _statistics(path: str) -> np.ndarray:
    with open_video(path) as video:
        numbers = np.minimum(np.arange(max(2, video.num_frames)), video.num_frames - 1)
        return difference_statistics(video.read(numbers[start:start + _AT_ONCE])
                                     for start in range(0, len(numbers), _AT_ONCE))
