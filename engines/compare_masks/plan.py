"""What a comparison of masking strategies is made of: methods, cells, and what is wanted of each."""

import json
import os
import re
from pathlib import Path
from typing import NamedTuple

from ...datasets.files import read_json, write_whole
from ..config.flags import FlagParser
from ..config.plugin_sources import digests_of
from ..config.plugins import module_name

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
    "c3-0.3": "--entropy_coef 3e-5", "half-random-c3-0.3": "--random_share .5 --entropy_coef 3e-5",
    "half-context": "--context_share .5", "half-context-c3-0.3": "--context_share .5 --entropy_coef 3e-5",
    "c3-1": "--entropy_coef 1e-4", "entropy-.94": "--target_entropy .94",
    "undivided": "--ppo_weighting undivided", "lr-3e-4": "--sampler_lr 3e-4", "lr-3e-3": "--sampler_lr 3e-3",
    "lr-3e-3-to-0": "--sampler_lr 3e-3 --sampler_lr_final 0",
    "k4-3-passes": "--update_every 4 --ppo_epochs 3",
    "k4-3-passes-kl": "--update_every 4 --ppo_epochs 3 --target_kl 1e-4",
    "orthoformer-32": "--tats_approx orthoformer --num_landmarks 32",
    "paper": "--tats_recipe paper",   # but for the learning rate of the policy, which --pretrain gives
    "learnable": "--reward learnable", "progress": "--reward progress", "telling": "--reward telling",
    "lasting": "--reward lasting", "lasting-c3-0.3": "--reward lasting --entropy_coef 3e-5",
    "reach-1": "--reward_reach 1", "lasting-reach-1": "--reward lasting --reward_reach 1",
    "lasting-reach-1-lr-3e-3-to-0": "--reward lasting --reward_reach 1 --sampler_lr 3e-3 --sampler_lr_final 0",
    "learnable-c3-0.3": "--reward learnable --entropy_coef 3e-5",
    "merge-t2": "--tats_merge 2 1 1", "merge-s2": "--tats_merge 1 2 2", "merge-ts2": "--tats_merge 2 2 2",
    "frames": "--tats_block 1 6 6",   # of the demo's grid; ratios of whole frames, .875 of its eight
    "easy": "--reward easy", "easy-half-random": "--reward easy --random_share .5",
}.items()}
# What the features are asked for; frozen, a linear probe and k-NN.
TARGETS = ("motion", "appearance")
FROZEN = [f"{probe}_{target}" for target in TARGETS for probe in ("linear", "knn")]
TOKENS = ["token_things", "token_motion", "token_texture"]   # single frozen tokens, read linearly
FEW = 256   # labelled clips of the fine-tuning with few of them
RATIOS, ONE_RATIO = (.85, .9, .95), (.9,)


def default_ratios(method: str) -> tuple[float, ...]:
    """Mask ratios of a method where none are asked for: one for TATS's other forms, and for frame masking, which shows
    whole frames, the same number at all of these ratios."""
    return ONE_RATIO if method == "frame" or method.startswith("tats-") else RATIOS


class Cell(NamedTuple):
    """One run. `method` is a key of METHODS or SWITCHES."""

    method: str
    mask_ratio: float
    seed: int

    @property
    def name(self) -> str:
        """Its folder."""
        return f"{self.method}-r{self.mask_ratio:g}-seed{self.seed}"


class Plan(NamedTuple):
    """What all cells share. The functions below take any object that has out, data, pretrain, finetune, warm_epochs,
    features and wanted.

    Fields:
        data: folder written by tats.datasets.moving_shapes.
        out: folder for the cells.
        pretrain, finetune: arguments of the two programs, the same for all cells.
        masks_only: measure what the masks look at, not what the features are worth.
        few_labels: fine-tune on the first FEW labelled clips, too.
        tokens: read single frozen tokens, too, also with masks_only.
        finetunings: on motion, with other seeds; one is as chaotic as a pre-training.
        warm_epochs: with random masks at WARM_RATIO, once a seed; all its cells go on from there. A tiny autoencoder
            that starts at a ratio of .95 does not leave its plateau within such a budget, whatever the masks.
    """

    data: Path
    out: Path
    pretrain: list[str]
    finetune: list[str]
    warm_epochs: int
    masks_only: bool = False
    few_labels: bool = False
    finetunings: int = 1
    tokens: bool = False

    @property
    def features(self) -> list[str]:
        """Names of the features' numbers that are wanted."""
        tokens = TOKENS * self.tokens
        if self.masks_only:
            return tokens
        more = ["finetune_few"] if self.few_labels else []
        return [*tokens, *FROZEN, *(f"finetune_{target}" for target in TARGETS), *more, *self.more_finetunings]

    def wanted(self, cell: Cell) -> set[str]:
        """Names of the numbers that make the cell a finished one."""
        del cell
        return {"fixed_error", *self.features}

    @property
    def more_finetunings(self) -> dict[str, int]:
        """Names of the further fine-tunings on motion, and what each adds to the cell's seed."""
        return {f"finetune_motion_{run}": 1000 * (run - 1) for run in range(2, self.finetunings + 1)}


def keep_settings(plan: Plan) -> None:
    """Write what all cells share into the plan's folder; what is wanted of each may grow from call to call.

    Raises:
        ValueError: the folder holds cells of other settings.
    """
    path = plan.out / "plan.json"
    words = {"data": os.path.relpath(plan.data, plan.out), "warm_epochs": plan.warm_epochs,
             "pretrain": _words(plan.pretrain), "finetune": _words(plan.finetune)}
    if not path.is_file():
        write_whole(path, json.dumps(words, indent=1) + "\n")
        return
    before = read_json(path, "put it back as it was, or take another --out")
    other = [f"{name}: {_only(before.get(name), value)}, now {_only(value, before.get(name))}"
             for name, value in words.items() if before.get(name) != value]
    if other:
        raise ValueError(f"{plan.out} holds cells of other settings ({'; '.join(other)}): take another --out, or those")


def _only(words: object, other: object) -> str:
    """What stands in the one alone, flag by flag."""
    ours, theirs = ([*re.split(" (?=--)", str(text))] for text in (words, other))
    return " ".join(word for word in ours if word not in theirs) or "nothing"


def _words(arguments: list[str]) -> str:
    """Program arguments with those of their files in place; a plugin's source counts, not its file's place."""
    known, words = FlagParser().parse_known_args(arguments)
    code, named = digests_of(known.plugin or ()), dict.fromkeys(map(module_name, known.plugin or ()))
    return " ".join([*words, *(f"--plugin {name}, source {code[name]}" for name in named if name in code)])


def finished_cells(plan: Plan) -> list[dict]:
    """The numbers of all cells in the plan's folder, those of earlier calls too: methods in the order of METHODS."""
    return [stored(plan, cell) for cell in cells_in(plan, list(METHODS | SWITCHES))]


def cells_in(plan: Plan, order: list[str]) -> list[Cell]:
    """The cells in the plan's folder that have numbers and a method of `order`, which they are sorted by in a seed."""
    records = {path: read_json(path) for path in sorted(plan.out.glob("*/cell.json"))}
    for path, numbers in records.items():
        if not set(Cell._fields) <= set(numbers):
            raise ValueError(f"{path} does not say which cell it is of: delete it, and it is made again")
    found = [Cell(*(numbers[name] for name in Cell._fields)) for numbers in records.values()]
    found = [cell for cell in found if cell.method in order]
    return sorted(found, key=lambda cell: (cell.seed, order.index(cell.method), cell.mask_ratio))


def result_file(plan: Plan, cell: Cell) -> Path:
    """Where a finished cell's numbers are."""
    return plan.out / cell.name / "cell.json"


def keep(plan: Plan, cell: Cell, numbers: dict) -> None:
    """Write the numbers of a cell."""
    write_whole(result_file(plan, cell), json.dumps(numbers, indent=1) + "\n")


def stored(plan: Plan, cell: Cell) -> dict:
    """The numbers of a cell that there are; with several fine-tunings on motion their mean, too."""
    path = result_file(plan, cell)
    numbers = read_json(path) if path.is_file() else {}
    runs = [value for name, value in numbers.items() if re.fullmatch(r"finetune_motion(_\d+)?", name)]
    return numbers | {"finetune_motion_mean": sum(runs) / len(runs)} if len(runs) > 1 else numbers


def is_finished(plan: Plan, cell: Cell) -> bool:
    """Whether there are all that the plan asks for."""
    return plan.wanted(cell) <= set(stored(plan, cell))


def warm_file(plan: Plan, seed: int) -> Path:
    """The checkpoint that a seed's cells start from."""
    return plan.out / f"warm-seed{seed}" / f"checkpoint-{plan.warm_epochs - 1}.pth"


def last_line(plan: Plan, cell: Cell) -> dict:
    """Of the log of its pre-training."""
    return json.loads((plan.out / cell.name / "pretrain" / "log.txt").read_text().splitlines()[-1])


def checkpoint_file(plan: Plan, cell: Cell) -> str:
    """The checkpoint that its pre-training ended with."""
    return str(plan.out / cell.name / "pretrain" / f"checkpoint-{last_line(plan, cell)['epoch']}.pth")
