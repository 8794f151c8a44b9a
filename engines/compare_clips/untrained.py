"""The autoencoder before its first step: what it sees of a clip, and its weights as a checkpoint to read features from.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import nn

from ...datasets.files import written_whole
from ...models import create_model
from ..compare_masks.plan import METHODS, SWITCHES, Cell
from ..config import pretraining
from ..config.common import parser_of
from ..core.runtime import seed_everything
from ..pretrain.interface import grid_of
from ..pretrain.rewards import reward_of
from ..runs.pretraining_build import build_masking, build_sampler, check_decoded, model_config, sampler_config
from .plan import SCRATCH


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


def check_cells(arguments: Sequence[str], cells: Iterable[Cell], mae: nn.Module) -> None:
    """Build what each cell's masks need, before hours of a warm-up that they all share.

    Raises:
        ValueError: the method or its ratio does not fit the model's tokens.
    """
    for cell in (cell for cell in cells if cell.method != SCRATCH):
        try:
            settings = settings_of([*arguments, *(METHODS | SWITCHES)[cell.method], "--mask_ratio",
                                    str(cell.mask_ratio)])
            row, _ = build_masking(settings.mask, grid_of(mae))
            build_sampler(row, mae, sampler_config(settings.mask, settings.sampler))
            check_decoded(settings, row, reward_of(settings.sampler, grid_of(mae)))
        except ValueError as error:
            raise ValueError(f"{cell.method} at a ratio of {cell.mask_ratio:g}: {error}") from None


def write_untrained(arguments: Sequence[str], seed: int, path: Path) -> Path:
    """Its checkpoint, for `extract_features`."""
    mae, config = untrained(arguments, seed)
    with written_whole(path, "wb") as file:
        torch.save({"model": mae.state_dict(), "config": config}, file)
    return path
