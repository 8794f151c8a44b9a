"""Every flag of both programs with another value on a second start of a run that trains: refused, applied or harmless.

What it must be, the flag's declaration says; what it is, the weights, the optimiser and the result say.
"""

import hashlib
import json
import os
import shutil
from dataclasses import fields
from pathlib import Path

import pytest
from tats.engines.config import finetuning, pretraining
from tats.engines.config.flags import BATCH, CONTENT, FIXED, FREE, KEPT, LONGER, SETUP, SOURCE
from tats.engines.run_class_finetuning import main as finetune
from tats.engines.run_mae_pretraining import main as pretrain
from test_identity import another
from tiny_runs import differing, final_state

COMMON = {"num_workers": "0", "sampling_rate": "1", "warmup_epochs": "0", "device": "cpu", "save_ckpt_freq": "1",
          "num_frames": "4", "batch_size": "4", "drop_path": "0.1"}
BASE = {
    "pre-training": COMMON | {
        "model": "pretrain_tats_tiny", "input_size": "16", "mask_type": "tats", "mask_ratio": "0.75", "lr": "0.05",
        "mae_only_epochs": "1", "pretrain_aug": "rrc", "update_every": "2", "ppo_epochs": "2", "sampler_lr": "0.003",
        "entropy_coef": "6e-5", "adv_norm": "batch", "data_path": "{}/train.csv"},
    "fine-tuning": COMMON | {
        "model": "vit_tats_tiny", "nb_classes": "8", "lr": "0.03", "num_sample": "1", "model_ema": "true",
        "test_num_segment": "2", "test_num_crop": "1", "reprob": "1", "mixup_switch_prob": "1", "data_path": "{}"},
}
PROGRAMS = {"pre-training": (pretrain, pretraining.PRETRAINING), "fine-tuning": (finetune, finetuning.FINETUNING)}
FLAGS = {program: {item.name: item for config in configs for item in fields(config)}
         for program, (_, configs) in PROGRAMS.items()}
# Values that the first that differs would not do for.
VALUES = {"opt": "sgd", "clip_grad": "1e-3", "target_kl": "1e-9", "clip_epsilon": "1e-4", "short_side_size": "80",
          "mask_ratio": "0.5", "warmup_steps": "2", "data_set": "moving-shapes", "aa": "none", "reward": "clip",
          "model_key": "module", "vis_freq": "1", "vis_clips": "2", "cache_dir": "{out}/cache", "num_workers": "1",
          "index_cache": "none",
          "vis_path": "{data}/test.csv", "log_dir": "{out}/log", "video_backend": "pyav", "layer_decay": "0.5",
          "tats_approx": "orthoformer", "batch_size": "2", "train_interpolation": "bilinear", "mixup_mode": "elem",
          "cutmix_minmax": "0.2 0.4", "crop_scale": "0.3 0.6", "num_visible": "5", "model": "{program}",
          "frame_pattern": "{{:06d}}.png", "ppo_ratio": "resampled", "ppo_weighting": "uniform", "adv_norm": "none",
          "amp": "bf16", "sampling": "segments", "mixup_prob": "0", "mixup_switch_prob": "0", "mixup": "0"}
MODELS = {"pre-training": "pretrain_videomae_small_patch16_224", "fine-tuning": "vit_small_patch16_224"}
# Harmless by what they are for, not by what they change; and a minute's work.
NOT_TOGETHER = {"output_dir", "resume", "auto_resume", "change", "eval", "device", "dist_url", "local_rank", "compile",
                "save_ckpt", "trajectory_kernel"}   # the last: of GPUs
# Changes that this run takes no notice of, and why.
WITHOUT_EFFECT = {"momentum": "of SGD alone", "frame_pattern": "of folders of pictures",
                  "mae_only_explained": "looked at before the policy's first epoch", "knn_k": "of --eval_mode knn",
                  "random_share_final": "of the policy's last epoch; here the first is the only one",
                  "knn_temperature": "of --eval_mode knn", "data_set": "its stride and flips are given"}


pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda number: None)


@pytest.fixture(scope="module", params=PROGRAMS)
def run(request, shapes, tmp_path_factory):
    """A run of one epoch of three steps, and the means to start it again in a copy."""
    data = tmp_path_factory.mktemp("data")
    for split, count in (("train", 12), ("val", 2), ("test", 2)):
        rows = (shapes / f"{split}.csv").read_text().splitlines(keepends=True)[:count]
        (data / f"{split}.csv").write_text("".join(rows))
    return Run(request.param, data, tmp_path_factory.mktemp("second"))


class Run:
    def __init__(self, program, data, folder):
        self.program, self.data, self.folder, self.count = program, data, folder, 0
        self.main, self.flags = PROGRAMS[program][0], FLAGS[program]
        self.start(folder / "first", epochs=1)

    def start(self, out, *more, epochs=2):
        words = [word for name, value in BASE[self.program].items() for word in (f"--{name}", value.format(self.data))]
        return self.main([*words, "--epochs", str(epochs), "--output_dir", str(out), *more])

    def again(self, *more, epochs=2):
        """(folder, what the program returns) of a second start."""
        self.count += 1
        out = self.folder / str(self.count)
        shutil.copytree(self.folder / "first", out)
        return out, self.start(out, *more, epochs=epochs)

    def value(self, name):
        """Another value of a flag, as words."""
        item, given = self.flags[name], BASE[self.program].get(name)
        if given is not None and isinstance(item.default, bool):
            given = given == "true"
        elif given is not None and "str" not in str(item.type):
            given = float(given)
        text = VALUES.get(name) or " ".join(another(item, item.default if given is None else given))
        return text.format(out=self.folder / str(self.count + 1), data=self.data, program=MODELS[self.program]).split()


def digest(folder):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def outcome(folder, result):
    """All that a run is for: weights, averages, optimisers, and the test; and not what describes it."""
    state = final_state(folder)
    for name in ("identity", "changes", "rng", "progress", "config", "fixed_policy"):
        state.pop(name, None)
    kept = {name: value for name, value in (result or {}).items() if name not in ("identity", "changed",
                                                                                   "checkpoint_sha256")}
    return state, kept


def test_another_value_is_refused_and_nothing_is_written(run):
    out = run.folder / "refused"
    shutil.copytree(run.folder / "first", out)
    before = digest(out)
    for name, item in run.flags.items():
        if item.metadata["identity"] not in (KEPT, FIXED, BATCH):
            continue
        words = run.value(name)
        with pytest.raises((ValueError, OSError)):
            run.start(out, f"--{name}", *words)
            pytest.fail(f"--{name} {' '.join(words)} goes on")
        assert digest(out) == before, name


def test_what_only_says_how_it_is_run_changes_no_bit(run):
    """All such flags at once; where they do, each by itself tells which."""
    names = [name for name, item in run.flags.items() if item.metadata["identity"] is FREE and name not in NOT_TOGETHER]
    plain = outcome(*run.again())

    def changes(names):
        words = [word for name in names for word in (f"--{name}", *run.value(name))]
        return differing(plain, outcome(*run.again(*words)))

    if changes(names):
        assert {name: found for name in names if (found := changes([name]))} == {}, "and none of them alone"


def test_a_change_is_recorded_and_has_an_effect(run):
    plain, silent = outcome(*run.again()), []
    for name, item in run.flags.items():
        if item.metadata["identity"] not in (KEPT, BATCH) or name == "tats_recipe":   # makes another network
            continue
        out, result = run.again("--change", name, " ".join(run.value(name)))
        (changed,) = [json.loads((out / "settings.json").read_text())["history"][-1]["changed"]]
        assert name in changed, name
        if not differing(plain, outcome(out, result)):
            silent.append(name)
        shutil.rmtree(out)
    assert sorted(set(silent) - set(WITHOUT_EFFECT)) == []


def test_what_cannot_be_changed_is_refused_with_change_too(run):
    out = run.folder / "fixed"
    shutil.copytree(run.folder / "first", out)
    for name, item in run.flags.items():
        if item.metadata["identity"] == FIXED:
            with pytest.raises((ValueError, OSError)):
                run.start(out, "--change", name, " ".join(run.value(name)))
                pytest.fail(f"--change {name} goes on")


def test_every_kind_of_flag_has_its_test():
    """Lists, files of weights, more epochs and DeepSpeed are tried in tests of their own."""
    kinds = {item.metadata["identity"] for flags in FLAGS.values() for item in flags.values()}
    assert kinds == {FREE, KEPT, FIXED, CONTENT, SOURCE, LONGER, BATCH, SETUP}
    assert NOT_TOGETHER | set(WITHOUT_EFFECT) <= {name for flags in FLAGS.values() for name in flags}
    assert Path(__file__).with_name("test_changes_of_runs.py").is_file()
