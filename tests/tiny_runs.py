"""Runs of the two programs that take a second: their command lines, and what they leave behind."""

import json

import pytest
import torch
from tats.datasets.program import run_program
from tats.engines.core import checkpointing

PRETRAINING = ["--model", "pretrain_tats_tiny", "--batch_size", "4", "--num_workers", "0", "--mask_ratio", "0.75",
               "--device", "cpu", "--sampling_rate", "1", "--warmup_epochs", "0", "--lr", "0.05",
               "--mae_only_epochs", "1"]
SMALL = ["--num_frames", "4", "--input_size", "16"]
FINETUNING = ["--model", "vit_tats_tiny", "--data_set", "moving-shapes", "--batch_size", "8", "--num_sample", "1",
              "--num_workers", "0", "--warmup_epochs", "0", "--lr", "0.03", "--device", "cpu", "--epochs", "2"]


def pretraining_flags(shapes, out, *more):
    """Pre-training on the fixture `shapes`: 24 clips, six steps an epoch."""
    return [*PRETRAINING, "--data_path", str(shapes / "train.csv"), "--output_dir", str(out), *more]


def small_pretraining_flags(shapes, out, *more):
    """The same on clips of 4 frames of 16 pixels."""
    return pretraining_flags(shapes, out, *SMALL, *more)


def finetuning_flags(shapes, out, *more):
    """Fine-tuning on the fixture `shapes`: two epochs of three steps."""
    return [*FINETUNING, "--data_path", str(shapes), "--output_dir", str(out), *more]


def error_line(capsys, main, *arguments):
    """The one line on stderr of a program that must end with exit code 2."""
    with pytest.raises(SystemExit) as stopped:
        run_program(lambda: main([str(word) for word in arguments]))
    assert stopped.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1, lines
    return lines[0]


def names(folder):
    """Of all that lies in a folder."""
    return {path.name for path in folder.iterdir()}


def history(folder):
    """The starts of a run, as settings.json keeps them."""
    return json.loads((folder / "settings.json").read_text())["history"]


def log_lines(folder):
    """log.txt without the times."""
    lines = [json.loads(line) for line in (folder / "log.txt").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in ("seconds", "train_data_share")}
            for line in lines]


def final_state(folder):
    """The newest checkpoint without its settings."""
    state = torch.load(checkpointing.numbered_checkpoints(folder)[0][1], weights_only=True)
    state.pop("settings")
    return state


def differing(first, second, path="state"):
    """Where two states differ, bit by bit; None for nowhere."""
    if isinstance(first, torch.Tensor):
        same = isinstance(second, torch.Tensor) and first.dtype == second.dtype and torch.equal(first, second)
        return None if same else path
    if isinstance(first, dict | list | tuple):
        if type(first) is not type(second) or len(first) != len(second):
            return path
        if isinstance(first, dict) and first.keys() != second.keys():
            return path
        pairs = first if isinstance(first, dict) else range(len(first))
        return next((found for key in pairs if (found := differing(first[key], second[key], f"{path}.{key}"))), None)
    return None if first == second else path


def assert_equal_states(first, second):
    """Bit by bit, and nothing in one that is not in the other."""
    assert differing(first, second) is None
