"""One cell of the comparison of masking strategies on moving shapes: pre-train, look at the masks, evaluate features.

Everything goes through the programs that users run, in one process, so that a cell costs one start of Python.
"""

import contextlib
import io
import json
import logging
import os
import resource
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..datasets.decode import keep_videos
from ..datasets.lists import read_list
from . import extract_features, measure_masks, run_class_finetuning, run_mae_pretraining
from .evaluation import RowTable, accuracies
from .frozen import knn_scores
from .interrupts import Stopped

# The printed form at our learning rate: at the paper's 1.5e-6 no weight of the policy could move far in so few steps.
_PRINTED = ["--ppo_ratio", "resampled", "--ppo_weighting", "uniform", "--adv_norm", "none", "--entropy_coef", "1e-4"]
METHODS: dict[str, list[str]] = {
    "random": ["--mask_type", "random"],
    "tube": ["--mask_type", "tube"],
    "frame": ["--mask_type", "frame"],   # whole frames: its number of visible tokens is its own, and in the table
    "adamae": ["--mask_type", "adamae"],
    "tats": ["--mask_type", "tats"],
    "tats-printed": ["--mask_type", "tats", *_PRINTED],
    "tats-plain-mean": ["--mask_type", "tats", "--ppo_weighting", "uniform"],
    "tats-mha": ["--mask_type", "tats", "--tats_attention", "mha"],
    "tats-half-random": ["--mask_type", "tats", "--random_share", ".5"],
    "tats-to-random": ["--mask_type", "tats", "--random_share", "0", "--random_share_final", "1"],
}
# Single switches of the policy, for --masks_only.
SWITCHES: dict[str, list[str]] = {f"tats-{name}": ["--mask_type", "tats", *words.split()] for name, words in {
    "c3-0.3": "--entropy_coef 3e-5", "c3-1": "--entropy_coef 1e-4", "entropy-.94": "--target_entropy .94",
    "undivided": "--ppo_weighting undivided", "lr-3e-4": "--sampler_lr 3e-4", "lr-3e-3": "--sampler_lr 3e-3",
    "k4-3-passes": "--update_every 4 --ppo_epochs 3", "orthoformer-32": "--tats_approx orthoformer --num_landmarks 32",
}.items()}
# What is told apart: its lists, and arguments of its fine-tuning. Textures are learned in few epochs, as a control.
TARGETS = {"motion": ("{}.csv", ["--data_set", "moving-shapes"]),
           "appearance": ("{}_appearance.csv", ["--data_set", "moving-shapes-appearance", "--epochs", "2"])}
WARM_RATIO = .75
SPLITS = ("train", "val", "test")
LOGGED = ("entropy_share", "clip_fraction", "approx_kl", "value_explained", "visible_tokens", "motion_correlation")
_KEPT_MIB = 512   # decoding small videos is as much work as training on them: once a process, not once an epoch
_PENALTIES = (1e-3, 1e-2, 1e-1, 1.)   # of the linear probe, chosen on the validation split


class Cell(NamedTuple):
    """One run. `method` is a key of METHODS or SWITCHES."""

    method: str
    mask_ratio: float
    seed: int

    @property
    def name(self) -> str:
        """Its folder."""
        return f"{self.method}-r{round(self.mask_ratio * 1000):03d}-seed{self.seed}"


class Plan(NamedTuple):
    """What all cells share.

    Fields:
        data: folder written by tats.datasets.moving_shapes.
        out: folder for the cells.
        pretrain, finetune: arguments of the two programs, the same for all cells.
        masks_only: measure what the masks look at, not what the features are worth.
        warm_epochs: with random masks at WARM_RATIO, once a seed; all its cells go on from there. A tiny autoencoder
            that starts at a ratio of .95 does not leave its plateau within such a budget, whatever the masks.
    """

    data: Path
    out: Path
    pretrain: list[str]
    finetune: list[str]
    warm_epochs: int
    masks_only: bool = False


def result_file(plan: Plan, cell: Cell) -> Path:
    """Where a finished cell's numbers are."""
    return plan.out / cell.name / "cell.json"


def warm_file(plan: Plan, seed: int) -> Path:
    """The checkpoint that a seed's cells start from."""
    return plan.out / f"warm-seed{seed}" / f"checkpoint-{plan.warm_epochs - 1}.pth"


def warm_up(task: tuple[Plan, int]) -> str | None:
    """Write the checkpoint that a seed's cells start from; the one-line cause if that failed."""
    plan, seed = task
    _quiet(f"warm-up of seed {seed}")
    try:
        _pretrain(plan, warm_file(plan, seed).parent, [*METHODS["random"], "--mask_ratio", str(WARM_RATIO), "--seed",
                                                       str(seed), "--epochs", str(plan.warm_epochs)])
    except Stopped as stopped:
        return f"warm-up of seed {seed}: {stopped.message}"
    except (ValueError, OSError) as error:
        return f"warm-up of seed {seed}: {error}"
    return None


def run_cell(task: tuple[Plan, Cell]) -> dict | str:
    """The numbers of a cell, also written to its result file; the one-line cause if it failed."""
    plan, cell = task
    _quiet(cell.name)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            numbers = _run(plan, cell)
    except Stopped as stopped:
        return f"{cell.name}: {stopped.message}"
    except (ValueError, OSError) as error:
        return f"{cell.name}: {error}"
    _write_whole(result_file(plan, cell), json.dumps(numbers, indent=1) + "\n")
    return numbers


def _write_whole(path: Path, text: str) -> None:
    """Or not at all: cells that run at the same time, and runs after a kill, take what is there for whole."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.writing")
    temporary.write_text(text)
    temporary.replace(path)


def _quiet(name: str) -> None:
    """Of the programs' messages only warnings, told apart; one thread, since every core has a cell."""
    logging.basicConfig(level=logging.WARNING, format=f"%(asctime)s {name}: %(message)s", force=True)
    torch.set_num_threads(1)
    keep_videos(_KEPT_MIB)


def _pretrain(plan: Plan, out: Path, arguments: list[str]) -> None:
    run_mae_pretraining.main([*plan.pretrain, "--data_path", str(plan.data / "train.csv"), *arguments,
                              "--output_dir", str(out)])


def _run(plan: Plan, cell: Cell) -> dict:
    folder, start = plan.out / cell.name, time.process_time()
    run = folder / "pretrain"
    _pretrain(plan, run, [*(METHODS | SWITCHES)[cell.method],
                          "--mask_ratio", str(cell.mask_ratio), "--seed", str(cell.seed),
                          "--init_from", str(warm_file(plan, cell.seed)), "--mae_only_epochs", "0"])
    numbers = cell._asdict() | {"pretraining_cpu_seconds": round(time.process_time() - start, 1)}
    last = [json.loads(line) for line in (run / "log.txt").read_text().splitlines()][-1]
    numbers |= {name: last.get(f"train_{name}") for name in LOGGED}
    checkpoint = str(run / f"checkpoint-{last['epoch']}.pth")
    measure_masks.main(["--checkpoint", checkpoint, "--data", str(plan.data), "--out", str(folder / "masks.json")])
    masks = json.loads((folder / "masks.json").read_text())[-1]
    numbers |= {name: value for name, value in masks.items() if name not in ("name", "top1")}
    if not plan.masks_only:
        numbers |= _features(plan, cell, checkpoint)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return numbers | {"cpu_seconds": round(time.process_time() - start, 1), "peak_rss_mib": round(peak)}


def _features(plan: Plan, cell: Cell, checkpoint: str) -> dict[str, float]:
    folder = plan.out / cell.name
    numbers = _frozen(plan, checkpoint, folder)
    for target, (lists, arguments) in TARGETS.items():
        result = run_class_finetuning.main([
            *plan.finetune, *arguments, "--data_path", str(_lists(plan, target, lists)), "--finetune", checkpoint,
            "--seed", str(cell.seed), "--output_dir", str(folder / f"finetune_{target}")])
        numbers[f"finetune_{target}"] = result["top1"]
    return numbers


def _lists(plan: Plan, target: str, lists: str) -> Path:
    """A folder with train.csv, val.csv and test.csv of a target."""
    folder = plan.out / "lists" / target
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        text, path = (plan.data / lists.format(split)).read_text(), folder / f"{split}.csv"
        if not path.is_file() or path.read_text() != text:
            _write_whole(path, text)
    return folder


def _frozen(plan: Plan, checkpoint: str, folder: Path) -> dict[str, float]:
    """Top-1 of a linear probe and of k-NN on frozen features, in percent, for every target."""
    features, numbers = {}, {}
    for split in SPLITS:
        out = folder / f"{split}.npz"
        extract_features.main(["--checkpoint", checkpoint, "--list", str(plan.data / f"{split}.csv"), "--out", str(out),
                               "--sampling_rate", "1", "--num_workers", "0", "--device", "cpu"])
        with np.load(out) as stored:
            features[split] = stored["features"]
        out.unlink()
    for target, (lists, _) in TARGETS.items():
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
