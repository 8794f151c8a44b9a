"""Whole training steps of our own programs, through the same builders and the same engines."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...models import create_model
from ..config.pretraining import Settings
from ..core.meters import Meters
from ..core.runtime import Runtime, choose_precision
from ..engine_for_pretraining import PretrainSetup
from ..engine_for_pretraining_ppo import EpisodeBuffer, PPOTraining
from ..pretrain.diagnostics import Diagnostics
from ..pretrain.interface import grid_of, patch_size_of
from ..pretrain.ppo import EntropyCoefficient
from ..pretrain.reconstruction import Reconstruction
from ..run_mae_pretraining import get_parser
from ..runs.dispatch import train_one_epoch
from ..runs.pretraining_build import (
    build_learners,
    build_masking,
    build_sampler,
    model_config,
    sampler_config,
)
from ..training.batches import Normalizer

# Contestants: flags beside the common ones. "tats-lean" runs g_theta again in phase 2 instead of keeping its graph;
# "tats-merge-t2" and "-s2" have a policy over cells of two frames, of two by two places;
# "-compiled" is torch.compile, whose first step takes minutes on a CPU.
_TATS = ("--mask_type", "tats", "--mae_only_epochs", "0")
METHODS = {
    "random": ("--mask_type", "random"),
    "tube": ("--mask_type", "tube"),
    "adamae": ("--mask_type", "adamae"),
    "tats": _TATS,
    "tats-lean": (*_TATS, "--reuse_forward", "false"),
    "tats-merge-t2": (*_TATS, "--tats_merge", "2", "1", "1"),
    "tats-merge-s2": (*_TATS, "--tats_merge", "1", "2", "2"),
    "tats-triton": (*_TATS, "--trajectory_kernel", "triton"),
}
METHODS |= {f"{name}-compiled": (*METHODS[name], "--compile") for name in ("tube", "adamae", "tats")}


@dataclass(frozen=True)
class StepSize:
    """What every contestant is given. frames, size: of the clips. amp: as --amp. device: "cpu" or "cuda"."""

    model: str
    batch_size: int
    frames: int
    size: int
    mask_ratio: float
    decoder_depth: int
    amp: str
    device: str

    def flags(self) -> list[str]:
        """For run_mae_pretraining."""
        return ["--data_path", "none", "--model", self.model, "--batch_size", str(self.batch_size), "--num_frames",
                str(self.frames), "--input_size", str(self.size), "--mask_ratio", str(self.mask_ratio),
                "--decoder_depth", str(self.decoder_depth), "--amp", self.amp, "--device", self.device]

    def videos(self) -> Tensor:
        """uint8 (B, 3, T, S, S), the same for all."""
        generator = torch.Generator().manual_seed(0)
        shape = (self.batch_size, 3, self.frames, self.size, self.size)
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).to(self.device)


class OurStep:
    """One whole optimiser step of one of METHODS, from a uint8 batch on the device to the moved weights.

    Args:
        extra: further flags of run_mae_pretraining.
    """

    def __init__(self, method: str, size: StepSize, extra: tuple[str, ...] = ()):
        settings = Settings.from_args(get_parser().parse_args([*size.flags(), *METHODS[method], *extra]))
        device = torch.device(size.device)
        config = model_config(settings.model)
        self.model = create_model(config["name"], **config["kwargs"])
        row, per_clip = build_masking(settings.mask, grid_of(self.model))
        sampler = build_sampler(row, self.model, sampler_config(settings.mask, settings.sampler))
        self.model.num_masked = grid_of(self.model).num_tokens - per_clip.num_visible
        self.model.to(device)
        if sampler is not None:
            sampler.to(device)
        precision = choose_precision(settings.optim.amp, device)
        # The paper's rate for the sampler: here nothing is to be learnt.
        self.learners = build_learners(self.model, sampler, settings, 1000, Runtime(device), precision)
        setup = PretrainSetup(device, Normalizer(device), Reconstruction(), patch_size_of(self.model),
                              diagnostics=Diagnostics(grid_of(self.model), device),
                              decoder_mask_ratio=settings.loss.decoder_mask_ratio)
        masks = torch.stack([per_clip() for _ in range(size.batch_size)])
        self.batch = (size.videos(), masks.to(device), torch.arange(size.batch_size, device=device))
        self.learner_kind, self.meters = row.learner, Meters(device)
        entropy = EntropyCoefficient(settings.sampler.entropy_coef, device=device)
        self.training = PPOTraining(setup, settings.sampler, entropy)

    def __call__(self) -> None:
        train_one_epoch(self.learner_kind, 0, [self.batch], self.learners, EpisodeBuffer(), self.training, self.meters)

    def parameters(self) -> list[Tensor]:
        """Of all its networks."""
        return [one for learner in self.learners if learner is not None for one in learner.module.parameters()]
