"""Everything that a hook can be told, by keyword: its own options, and the flags of the policy under their names."""

from dataclasses import dataclass, fields
from typing import Any

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from ..config.common import RunConfig
from ..config.flags import check_ranges
from ..config.pretraining import SamplerConfig, resolve_recipe


@dataclass(frozen=True)
class HookOptions:
    """The policy's training in a loop of one's own.

    num_visible: visible tokens a clip, instead of mask_ratio.
    device: of the policy; None: that of the model's parameters.
    amp: compute dtype of the policy and its tokens: auto, fp32, bf16 or fp16.
    opt, opt_eps, opt_betas, momentum, weight_decay, clip_grad: the policy's optimiser, any of timm's.
    follow: the autoencoder's optimiser, whose learning rate AdaMAE's sampler takes; None: it takes sampler_lr.
    update_freq: micro-batches that the loop accumulates into a step.
    epochs, steps_per_epoch: of the run, which sampler_lr_final and random_share_final need.
    layout: order of the videos' dimensions, "bcthw", "btchw" or "bthwc" (images "bchw", "bhwc"); None: (B, C, T, H, W)
        and (B, C, H, W), and what transformers' VideoMAE takes.
    mean, std: a number a channel, which the videos were normalised with; ImageNet's unless others are given.
    max_bad_steps: steps of the policy in a row whose numbers are not finite and that end the run.
    """

    num_visible: int | None = None
    device: torch.device | str | None = None
    amp: str = "auto"
    opt: str = "adamw"
    opt_eps: float = 1e-8
    opt_betas: tuple[float, ...] = (0.9, 0.95)
    momentum: float = 0.9
    weight_decay: float = 0.05
    clip_grad: float | None = None
    follow: torch.optim.Optimizer | None = None
    update_freq: int = 1
    epochs: int | None = None
    steps_per_epoch: int | None = None
    layout: str | None = None
    mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, ...] = IMAGENET_DEFAULT_STD
    max_bad_steps: int = RunConfig().max_bad_steps


def options_of(settings: dict[str, Any]) -> tuple[HookOptions, SamplerConfig]:
    """Keyword arguments -> (the hook's own, the policy's flags with their recipe resolved).

    Raises:
        ValueError: a name that is neither's, a value outside of its flag's interval, or settings that need what a loop
            of one's own does not say.
    """
    own, flags = ({item.name for item in fields(kind)} for kind in (HookOptions, SamplerConfig))
    unknown = sorted(settings.keys() - own - flags)
    if unknown:
        raise ValueError(f"unknown settings {', '.join(unknown)}: there are {', '.join(sorted(own))}, and the flags of "
                         f"the learned sampler, {', '.join(sorted(flags))}")
    options = HookOptions(**{name: value for name, value in settings.items() if name in own})
    config = SamplerConfig(**{name: value for name, value in settings.items() if name in flags})
    check_ranges(config)
    if options.layout is not None and sorted(options.layout) not in (sorted("bcthw"), sorted("bchw")):
        raise ValueError(f"layout must hold the letters b c t h w, or b c h w for images, once each, got "
                         f"{options.layout!r}")
    config = resolve_recipe(config)
    if config.mae_only_explained:
        raise ValueError("--mae_only_explained is for tats.engines.run_mae_pretraining; here set --mae_only_epochs")
    for name in ("random_share_final", "sampler_lr_final"):
        if getattr(config, name) is not None and None in (options.epochs, options.steps_per_epoch):
            raise ValueError(f"--{name} needs to know the run's length, which a fork's engine is not told: give the "
                             f"hook epochs= and steps_per_epoch=, or use --{name.removesuffix('_final')} alone")
    return options, config
