"""What a cell's features are worth: frozen, and fine-tuned on motion and, as a control, on appearance."""

from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ...datasets.files import write_whole
from ...datasets.lists.list_file import read_list
from .. import run_class_finetuning
from ..finetune.evaluation import RowTable, accuracies
from ..finetune.frozen import knn_scores
from .frozen import extracted
from .plan import FEW, FROZEN, TARGETS, TOKENS, Cell, Plan, checkpoint_file
from .tokens import measure_tokens

# Lists and arguments of each fine-tuning. Textures are learned in few epochs, as a control; a quarter of the labels is
# seen four times as often.
FINETUNED = {"motion": ("{}.csv", ["--data_set", "moving-shapes"]),
             "appearance": ("{}_appearance.csv", ["--data_set", "moving-shapes-appearance", "--epochs", "2"]),
             "few": ("{}.csv", ["--data_set", "moving-shapes", "--epochs", "20"])}
SPLITS = ("train", "val", "test")
_PENALTIES = (1e-3, 1e-2, 1e-1, 1.)   # of the linear probe, chosen on the validation split


def measure_features(plan: Plan, cell: Cell, names: list[str]) -> dict[str, float]:
    """The numbers `names` of a cell's features on the test split: top-1 in percent, and what `measure_tokens` gives."""
    folder, checkpoint = plan.out / cell.name, checkpoint_file(plan, cell)
    numbers = _frozen(plan, checkpoint, folder) if set(names) & set(FROZEN) else {}
    if set(names) & set(TOKENS):
        numbers |= measure_tokens(plan, cell)
    runs = {f"finetune_{target}": (target, 0) for target in FINETUNED}
    runs |= {name: ("motion", more) for name, more in plan.more_finetunings.items()}
    for name, (target, more) in runs.items():
        if name in names:
            lists, arguments = FINETUNED[target]
            result = run_class_finetuning.main([
                *plan.finetune, *arguments, "--data_path", str(_lists(plan, target, lists)), "--finetune", checkpoint,
                "--seed", str(cell.seed + more), "--output_dir", str(folder / name)])
            numbers[name] = result["top1"]
    return numbers


def _lists(plan: Plan, target: str, lists: str) -> Path:
    """A folder with train.csv, val.csv and test.csv of a target; of "few" the first lines of train.csv."""
    folder = plan.out / "lists" / target
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        text, path = (plan.data / lists.format(split)).read_text(), folder / f"{split}.csv"
        if target == "few" and split == "train":
            text = "".join(text.splitlines(keepends=True)[:FEW])   # the classes take turns
        if not path.is_file() or path.read_text() != text:
            write_whole(path, text)
    return folder


def _frozen(plan: Plan, checkpoint: str, folder: Path) -> dict[str, float]:
    """Top-1 of a linear probe and of k-NN on frozen features, in percent, for every target."""
    features, numbers = {}, {}
    for split in SPLITS:
        features[split], _ = extracted(checkpoint, plan.data / f"{split}.csv", folder / f"{split}.npz", "--device",
                                       "cpu")
    for target in TARGETS:
        lists, _ = FINETUNED[target]
        labels = {split: read_list(plan.data / lists.format(split)).labels for split in SPLITS}
        numbers[f"linear_{target}"] = linear_probe(features, labels)
        train, test = (RowTable(torch.from_numpy(features[split]).double(), torch.from_numpy(labels[split]), {})
                       for split in ("train", "test"))
        numbers[f"knn_{target}"] = accuracies(knn_scores(train, test, int(labels["train"].max()) + 1, 20, .07))["top1"]
    return numbers


def linear_probe(features: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> float:
    """Top-1 on `test`, in percent, of a logistic regression on standardised features (N, D) of `train`.

    Its penalty is the one that is best on `val`.
    """
    probes = [make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500)).fit(
        features["train"], labels["train"]) for strength in _PENALTIES]
    best = max(probes, key=lambda probe: probe.score(features["val"], labels["val"]))
    return 100 * float(best.score(features["test"], labels["test"]))
