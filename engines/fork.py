"""TATS, and every other masking of the registry, inside a fork of VideoMAE, with its own model, data and checkpoints.

A fork changes ten lines, none of them in its model (the README shows them in place):

    from tats.engines.fork import TokenSampling, add_sampling_flags, loader_mask, mask_types, train_one_epoch

`train_one_epoch` takes what VideoMAE's own one takes. What the fork does not have a place for, the sampler with its
optimiser, travels in the loss scaler, which the fork already builds, hands to the epoch, saves and resumes.
"""

import argparse
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..masking import MASKINGS, TokenGrid, check_sampler, find_masking
from ..models.convert.checkpoints import load_exactly
from .config.common import RunConfig
from .config.flags import add_flags, from_args
from .config.pretraining import MaskConfig, SamplerConfig, resolve_recipe
from .core.logs import Progress, set_up_logging
from .core.meters import Meters
from .core.runtime import Precision, Runtime
from .engine_for_pretraining import PretrainSetup
from .engine_for_pretraining_ppo import EpisodeBuffer, PPOTraining
from .pretrain.alerts import alerts
from .pretrain.diagnostics import Diagnostics
from .pretrain.interface import patch_size_of, token_width
from .pretrain.ppo import EntropyCoefficient
from .pretrain.reconstruction import Reconstruction
from .pretrain.rewards import reward_of
from .runs.dispatch import train_one_epoch as run_engine
from .runs.pretraining_build import build_masking, sampler_config
from .training.bad_steps import BadSteps
from .training.batches import Normalizer
from .training.learner import Learner
from .training.optim import make_optimizer, parameter_groups

__all__ = ["TokenSampling", "add_sampling_flags", "loader_mask", "mask_types", "train_one_epoch"]

logger = logging.getLogger(__name__)


def mask_types() -> list[str]:
    """The choices of `--mask_type`: the names of the registry."""
    return sorted(MASKINGS)


def add_sampling_flags(parser: argparse.ArgumentParser) -> None:
    """The sampler's flags and `--num_visible`, for a parser that has VideoMAE's `--mask_type` and `--mask_ratio`."""
    add_flags(parser, SamplerConfig)
    parser.add_argument("--num_visible", type=int, help="number of visible tokens instead of mask_ratio")


def loader_mask(args: argparse.Namespace) -> Callable[[], Tensor]:
    """What stands where VideoMAE's TubeMaskingGenerator stands: `() -> bool (N,)`, True = masked.

    Args:
        args: with `mask_type`, `mask_ratio` and `window_size`, the grid (frames, height, width) in tokens.

    Raises:
        ValueError: an unknown mask_type, or a ratio outside (0, 1).
    """
    return build_masking(_mask_config(args), TokenGrid(*args.window_size))[1]


def _mask_config(args: argparse.Namespace) -> MaskConfig:
    return MaskConfig(args.mask_type, args.mask_ratio, args.num_visible)


class TokenSampling:
    """VideoMAE's loss scaler, with the sampler of `args.mask_type` and its optimiser beside it.

    Call it, save it and load it as the scaler that it wraps; `train_one_epoch` finds the sampler in it.

    Args:
        args: VideoMAE's arguments with those of `add_sampling_flags`, and `window_size`.
        model: the network on its device, without DistributedDataParallel.
        scaler: the fork's NativeScalerWithGradNormCount.
    """

    def __init__(self, args: argparse.Namespace, model: nn.Module, scaler: Any):
        self.scaler, self.config = scaler, resolve_recipe(from_args(SamplerConfig, args))
        if self.config.mae_only_explained:
            raise ValueError("--mae_only_explained is for tats.engines.run_mae_pretraining; here set --mae_only_epochs")
        for name in ("random_share", "sampler_lr"):
            if getattr(self.config, f"{name}_final") is not None:
                raise ValueError(f"--{name}_final needs to know the run's length, which a fork's engine is not told: "
                                 f"use --{name} alone")
        self.row, self.reward = find_masking(args.mask_type), reward_of(self.config)
        self.device = next(model.parameters()).device
        distributed = dist.is_available() and dist.is_initialized()
        self.runtime = Runtime(self.device, dist.get_rank(), dist.get_world_size()) if distributed \
            else Runtime(self.device)
        set_up_logging(self.runtime.is_main)
        # fp16 as VideoMAE has it on GPUs; its CPU has no autocast.
        cuda = self.device.type == "cuda"
        self.precision = Precision(self.device.type, torch.float16 if cuda else torch.float32)
        self.sampler = self._learner(args, model) if self.row.sampler else None
        self.entropy = EntropyCoefficient(self.config.entropy_coef, self.config.target_entropy,
                                          floor=0.1 * self.config.policy_coef, device=self.device)
        self.buffer, self.meters = EpisodeBuffer(), Meters(self.device)
        self.bad_steps = BadSteps({"sampler": self.sampler}, None, RunConfig().max_bad_steps, {})
        self.diagnostics = Diagnostics(TokenGrid(*args.window_size), self.device)

    def _learner(self, args: argparse.Namespace, model: nn.Module) -> Learner:
        net = self.row.sampler(TokenGrid(*args.window_size), token_width(model),
                               **sampler_config(_mask_config(args), self.config)).to(self.device)
        check_sampler(net, token_width(model))
        if self.row.learner is None:
            return Learner(net, precision=self.precision)
        optimizer = make_optimizer(parameter_groups(net, args.weight_decay), args.opt, eps=args.opt_eps,
                                   betas=args.opt_betas or (0.9, 0.95), momentum=args.momentum)
        rate = self.config.sampler_lr
        return Learner(net, optimizer, lambda step: rate, clip_grad=args.clip_grad, runtime=self.runtime,
                       precision=self.precision)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.scaler(*args, **kwargs)

    def state_dict(self) -> dict[str, Any]:
        """The scaler's, and under "sampling" the sampler's weights, optimiser and entropy coefficient."""
        if self.sampler is None:
            return self.scaler.state_dict()
        return {**self.scaler.state_dict(), "sampling": {
            "sampler": self.sampler.module.state_dict(), "optimizer": self.sampler.state_dict(),
            "entropy_coef": float(self.entropy.value)}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` returned.

        Raises:
            ValueError: this run has a sampler and the checkpoint none, or another one.
        """
        state = dict(state)
        sampling = state.pop("sampling", None)
        self.scaler.load_state_dict(state)
        if self.sampler is None:
            return
        if sampling is None:
            raise ValueError("the checkpoint was written without a sampler: resume with its own --mask_type, or start "
                             "with another --output_dir")
        load_exactly(self.sampler.module, sampling["sampler"], "the checkpoint's sampler")
        self.sampler.load_state_dict(sampling["optimizer"])
        self.entropy.value = torch.tensor(sampling["entropy_coef"])


class ForkLearner(Learner):
    """The fork's model as f_phi: its optimiser, its scaler, its tables of learning rate and weight decay."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, sampling: TokenSampling, *,
                 lr: Callable[[int], float], weight_decay: Callable[[int], float] | None, clip_grad: float | None):
        bare = model.module if isinstance(model, DistributedDataParallel) else model
        super().__init__(bare, optimizer, lr, weight_decay=weight_decay, clip_grad=clip_grad,
                         precision=sampling.precision)
        self.net, self.native, self.norm = model, sampling.scaler, None

    def backward(self, loss: Tensor) -> None:
        """VideoMAE's scaler scales, clips and steps in one call, so this is also the step.

        Raises:
            ValueError: the loss is not finite; VideoMAE ends there too.
        """
        if not loss.isfinite():
            raise ValueError(f"step {self.steps}: the loss is not finite; lower --lr or set --clip_grad 1")
        self.norm = self.native(loss, self.optimizer, clip_grad=self.clip_grad, parameters=self.module.parameters())

    def step(self) -> Tensor | None:
        """The rest of the step that `backward` took."""
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        self._apply_schedules()
        return self.norm


def train_one_epoch(model: nn.Module, data_loader: Iterable, optimizer: torch.optim.Optimizer,  # noqa: PLR0913 - VideoMAE's
                    device: torch.device, epoch: int, loss_scaler: TokenSampling, max_norm: float | None = None,
                    patch_size: int = 16, normlize_target: bool = True, log_writer: Any = None,
                    lr_scheduler: Any = None, start_steps: int | None = None,
                    lr_schedule_values: Sequence[float] | None = None,
                    wd_schedule_values: Sequence[float] | None = None) -> dict[str, float]:
    """One epoch of Algorithm 1, of AdaMAE, or with the loader's masks, in the place of VideoMAE's function.

    Args:
        model: has `encoder.patch_embed`, `encoder.pos_embed` and `forward(videos, bool_masked_pos)`.
        data_loader: yields (videos normalised, mask of `loader_mask`).
        loss_scaler: a `TokenSampling`.
        max_norm, start_steps, log_writer, lr_schedule_values, wd_schedule_values: as VideoMAE's; patch_size and
            lr_scheduler are there for the signature.

    Returns:
        Means of the epoch over all processes, for log.txt.

    Raises:
        ValueError: a loss that is not finite, or many steps of the sampler in a row.
    """
    del patch_size, lr_scheduler
    sampling, first = loss_scaler, start_steps or 0

    def table(values: Sequence[float] | None) -> Callable[[int], float] | None:
        return None if values is None else lambda step: float(values[min(step, len(values) - 1)])

    constant = optimizer.param_groups[0]["lr"]
    rate = table(lr_schedule_values) or (lambda step: constant)
    mae = ForkLearner(model, optimizer, sampling, lr=rate, weight_decay=table(wd_schedule_values), clip_grad=max_norm)
    mae.start(first)
    optimizer.zero_grad(set_to_none=True)
    model.train()
    if sampling.sampler is not None:
        sampling.sampler.module.train()
        if sampling.row.learner == "reinforce":
            sampling.sampler.lr = rate      # AdaMAE trains its sampler at the MAE's rate
    meters = sampling.meters
    meters.reset()
    sampling.diagnostics.reset()
    setup = PretrainSetup(device, Normalizer(device), Reconstruction(normalize=normlize_target),
                          patch_size_of(mae.module), reward=sampling.reward, diagnostics=sampling.diagnostics)
    loader = Progress(data_loader, f"epoch {epoch}", meters.means, 10, sampling.runtime.is_main)
    run_engine(sampling.row.learner, epoch, loader, (mae, sampling.sampler), sampling.buffer,
               PPOTraining(setup, sampling.config, sampling.entropy), meters)
    means = meters.means(sampling.runtime)
    sampling.bad_steps.check(lambda _: {"epoch": epoch, "last_step": mae.steps})
    means |= sampling.diagnostics.read(sampling.runtime)[0]
    means |= {"lr": max(group["lr"] for group in optimizer.param_groups), "data_share": round(loader.data_share, 4)}
    if sampling.runtime.is_main:
        for message in alerts(means, sampling.config):
            logger.warning("epoch %d: %s", epoch, message)
    if log_writer is not None:
        log_writer.update(head="loss", loss=means["loss"])
        log_writer.update(head="sampling", **{name: value for name, value in means.items() if name != "loss"})
    return means
