"""What a hook is made of: where its tokens come from, the policy, and what trains it."""

import logging
from collections.abc import Callable
from functools import partial
from numbers import Real
from typing import Any

import torch
from torch import nn

from ...masking import Masking, TokenGrid, TokenSampler, check_sampler
from ...models import use_kernel
from ..config.pretraining import MaskConfig, SamplerConfig
from ..core.runtime import Precision, Runtime
from ..pretrain.rewards import REWARDS, Reward, reward_of
from ..pretrain.unused_flags import unused_flags
from ..runs.pretraining_build import sampler_config, sampler_schedule
from ..training.learner import Learner
from ..training.optim import make_optimizer, parameter_groups
from .options import HookOptions
from .tokens import CalledTokens, ModelTokens, PixelTokens

logger = logging.getLogger(__name__)

TokenSource = ModelTokens | CalledTokens | PixelTokens


def checked_grid(grid: Any) -> TokenGrid:
    """The grid. Raises ValueError: it is not three positive whole numbers."""
    sides = tuple(grid) if isinstance(grid, tuple | list) else (grid,)
    if len(sides) != 3 or not all(isinstance(side, Real) and side >= 1 and float(side).is_integer() for side in sides):
        raise ValueError(f"grid must be (T', H', W') in tokens, for images (1, H', W'), got {grid!r}")
    return TokenGrid(*map(int, sides))


def device_of(model: nn.Module | None, options: HookOptions) -> torch.device:
    """The policy's. Raises ValueError: the model is none, or there is no such device."""
    if model is not None and not isinstance(model, nn.Module):
        raise ValueError(f"the model is a {type(model).__name__} and no torch.nn.Module; give None where "
                         "the tokens come from elsewhere")
    parameter = None if model is None else next(model.parameters(), None)
    try:
        return torch.device(options.device or ("cpu" if parameter is None else parameter.device))
    except RuntimeError as error:
        raise ValueError(f"device={options.device!r} is none: {error}") from None


def token_source(model: nn.Module | None, grid: TokenGrid, tokens: Any, width: int | None) -> TokenSource:
    """The source that `SamplingHook(tokens=..., width=...)` names.

    Raises:
        ValueError: there is none of that name, or what it needs is missing.
    """
    if callable(tokens) or tokens == "given":
        if width is None:
            raise ValueError("tokens of your own need width=D, their last dimension")
        return CalledTokens(tokens if callable(tokens) else torch.Tensor.detach, width)
    if tokens == "pixels":
        return PixelTokens(grid, width or 192)
    if tokens != "model":
        raise ValueError(f'tokens must be "model", "pixels", "given" or a function, got {tokens!r}')
    if model is None:
        raise ValueError('without a model the tokens come from elsewhere: tokens="pixels", or "given" with width=D')
    return ModelTokens(model, grid)


def build_policy(row: Masking, grid: TokenGrid, width: int, masks: MaskConfig, config: SamplerConfig) -> TokenSampler:
    """The row's sampler for tokens of this width.

    Args:
        masks: its mask_type names the row, or is empty where the row has no name and so no flags of its own.

    Raises:
        ValueError: it does not keep to the contract of `TokenSampler`.
    """
    arguments = sampler_config(masks, config) if masks.mask_type else \
        {"mask_ratio": masks.mask_ratio, "visible": masks.num_visible}
    net = row.sampler(grid, width, **arguments)
    check_sampler(net, width)
    return net


def reward_of_a_loop(config: SamplerConfig, grid: TokenGrid) -> Reward:
    """The row that `reward` names, for a loop that gives errors and no model.

    Raises:
        ValueError: as `reward_of`, or it would run the model once more.
    """
    reward = reward_of(config, grid)
    if reward.looks_again:
        able = ", ".join(sorted(name for name, row in REWARDS.items() if not row.looks_again))
        raise ValueError(f"reward {config.reward!r} runs the autoencoder once more, which only run_mae_pretraining "
                         f"does; in a loop of your own use one of {able}")
    return reward


def policy_learner(row: Masking, net: nn.Module, options: HookOptions, config: SamplerConfig, runtime: Runtime,
                   precision: Precision) -> Learner:
    """g_theta with its optimiser and schedule; without an optimiser where it has nothing to learn."""
    if config.trajectory_kernel != "plain":
        use_kernel(net, config.trajectory_kernel, runtime.device)
    if row.learner is None:
        return Learner(net, precision=precision)
    optimizer = make_optimizer(parameter_groups(net, options.weight_decay), options.opt, eps=options.opt_eps,
                               betas=options.opt_betas, momentum=options.momentum)
    return Learner(net, optimizer, _rate(row, options, config), clip_grad=options.clip_grad, runtime=runtime,
                   precision=precision)


def _rate(row: Masking, options: HookOptions, config: SamplerConfig) -> Callable[[int], float]:
    """Named functions, so that a hook can be pickled with the object that holds it."""
    if row.learner == "reinforce" and options.follow is not None:
        return partial(_followed, options.follow)
    if config.sampler_lr_final is not None:
        return sampler_schedule(config, options.epochs, options.steps_per_epoch)
    return partial(_constant, config.sampler_lr)


def _followed(optimizer: torch.optim.Optimizer, step: int) -> float:
    return max(group["lr"] for group in optimizer.param_groups)


def _constant(rate: float, step: int) -> float:
    return rate


def say_unread(row: Masking, options: HookOptions, config: SamplerConfig) -> None:
    """Warn of settings of the policy that were given to a strategy that takes no notice of them."""
    own_rate = ("sampler_lr", "sampler_lr_final", "sampler_warmup_epochs")
    read = own_rate if row.learner == "reinforce" and options.follow is None else ()
    if ignored := unused_flags(row, config, read):
        logger.warning("this strategy takes no notice of %s", ", ".join(ignored))
