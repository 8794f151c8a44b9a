"""What a fork of VideoMAE is told on its command line, and the masks that its loader makes of it."""

import argparse
import logging
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...masking import ALIASES, MASKINGS, TokenGrid, find_masking
from ..config.flags import add_flags
from ..config.pretraining import SamplerConfig

logger = logging.getLogger(__name__)

BESIDE = "tats_"   # prefix of a flag of ours whose name the fork has taken


def mask_types(own: Iterable[str] = ()) -> list[str]:
    """The choices of `--mask_type`: the names of the registry with their aliases, and the fork's `own`."""
    return sorted({*MASKINGS, *ALIASES, *own})


def add_sampling_flags(parser: argparse.ArgumentParser) -> None:
    """The sampler's flags and `--num_visible`, for a parser that has VideoMAE's `--mask_type` and `--mask_ratio`.

    The names of the registry join the choices of `--mask_type`. Choices of the fork that are no names of the registry
    stay the fork's own, an alias of ours (AdaMAE's `learnable`) among them: see `TokenSampling`. A flag whose name the
    fork has for something else is added as `--tats_NAME`, and a line in the log says so.
    """
    for action in parser._actions:   # argparse has no public way to an option that is there
        if action.dest == "mask_type" and action.choices is not None:
            for name in set(action.choices) & {name for name, row in MASKINGS.items() if row.sampler}:
                logger.warning("--mask_type %s is a name of this program, too: it is the registry's now", name)
            own = [name for name in action.choices if name not in MASKINGS]
            action.choices = mask_types(own)
            parser.set_defaults(own_mask_types=own)
    renamed = add_flags(parser, SamplerConfig, BESIDE)
    for name in renamed:
        logger.warning("--%s is a flag of this program: the sampler's is --%s%s", name, BESIDE, name)
    if "--num_visible" not in parser._option_string_actions:
        parser.add_argument("--num_visible", type=int, help="number of visible tokens instead of mask_ratio")


def loader_mask(args: argparse.Namespace) -> Callable[[], np.ndarray]:
    """What stands where VideoMAE's TubeMaskingGenerator stands: `() -> float64 (N,)`, 1 = masked, as it returns.

    Args:
        args: with `mask_type`, `mask_ratio` and `window_size`, the grid (frames, height, width) in tokens.

    Raises:
        ValueError: an unknown mask_type, or a ratio outside (0, 1).
    """
    return LoaderMask(find_masking(args.mask_type).per_clip(grid_of_args(args), args.mask_ratio,
                                                            getattr(args, "num_visible", None)))


class LoaderMask:
    """A loader's half of a row of the registry with VideoMAE's return type; a class, for loaders that pickle."""

    def __init__(self, per_clip: Callable[[], Tensor]):
        self.per_clip, self.num_visible = per_clip, per_clip.num_visible

    def __call__(self) -> np.ndarray:
        return self.per_clip().numpy().astype(np.float64)


def mask_of_fork(given: Any, clips: int, tokens: int) -> Tensor | None:
    """What a fork's own loader yields beside its videos, bool (B, N), where that is a mask of the grid: of B = `clips`
    rows, with N = `tokens` numbers that are 0 or 1 in each. Else None: a map of pixels, or a placeholder."""
    try:
        found = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError):   # None, names, lists of different lengths
        return None
    if found.ndim < 2 or len(found) != clips or found[0].numel() != tokens:
        return None
    found = found.flatten(1)
    return found.bool() if bool(((found == 0) | (found == 1)).all()) else None


def grid_of_args(args: argparse.Namespace) -> TokenGrid:
    """The grid of `args.window_size`. Raises ValueError: it is not there."""
    if not hasattr(args, "window_size"):
        raise ValueError("args.window_size is missing: set it to the grid of tokens, (frames // tubelet_size, "
                         "height // patch_size, width // patch_size), before the sampler and the data set are built")
    return TokenGrid(*args.window_size)


def policy_flags(args: argparse.Namespace) -> dict[str, Any]:
    """The flags of `SamplerConfig` that args has, ours before the fork's of the same name."""
    given = {}
    for item in fields(SamplerConfig):
        for name in (f"{BESIDE}{item.name}", item.name):
            if hasattr(args, name):
                given[item.name] = getattr(args, name)
                break
    return given
