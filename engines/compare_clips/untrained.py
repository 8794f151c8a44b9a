"""The autoencoder before its first step: what it sees of a clip, and its weights as a checkpoint to read features from.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from ...datasets.files import written_whole
from ...models import create_model
from ..config import pretraining
from ..config.common import parser_of
from ..core.runtime import seed_everything
from ..runs.pretraining_build import model_config


def settings_of(arguments: Sequence[str]) -> pretraining.Settings:
    """The settings of these arguments of run_mae_pretraining.

    Raises:
        ValueError: it would see every other frame only.
    """
    parser = parser_of("run_mae_pretraining", "A run.", pretraining.PRETRAINING, pretraining.DEAD_FLAGS)
    settings = pretraining.Settings.from_args(parser.parse_args([*arguments, "--data_path", "given later"]))
    if settings.data.sampling_rate != 1:
        raise ValueError("--pretrain must say --sampling_rate 1: the clips are prepared at --fps frames a second")
    return settings


def untrained(arguments: Sequence[str], seed: int = 0) -> tuple[nn.Module, dict]:
    """The model with the weights that a run of this seed starts from, and what describes it."""
    config = model_config(settings_of(arguments).model)
    seed_everything(seed)
    return create_model(config["name"], **config["kwargs"]), config


def write_untrained(arguments: Sequence[str], seed: int, path: Path) -> Path:
    """Its checkpoint, for `extract_features`."""
    mae, config = untrained(arguments, seed)
    with written_whole(path, "wb") as file:
        torch.save({"model": mae.state_dict(), "config": config}, file)
    return path
