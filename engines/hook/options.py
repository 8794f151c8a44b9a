"""Everything that a hook can be told, by keyword: its own options, and the flags of the policy under their names."""

from dataclasses import dataclass, fields
from typing import Any

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from ..config.common import RunConfig
from ..config.flags import check_values, flag
from ..config.pretraining import SamplerConfig, resolve_recipe


@dataclass(frozen=True)
class HookOptions:
    """The policy's training in a loop of one's own."""

    num_visible: int | None = flag(None, "visible tokens a clip, instead of mask_ratio", within="[1, inf)")
    device: torch.device | str | int | None = flag(None, "of the policy; None: that of the model's parameters")
    amp: str = flag("auto", "compute dtype of the policy and its tokens", choices=("auto", "fp32", "bf16", "fp16"))
    opt: str = flag("adamw", "the policy's optimiser, any of timm's")
    opt_eps: float = flag(1e-8, "its epsilon", within="[0, inf)")
    opt_betas: tuple[float, ...] = flag((0.9, 0.95), "its betas", within="[0, 1)")
    momentum: float = flag(0.9, "its momentum, for SGD", within="[0, 1)")
    weight_decay: float = flag(0.05, "its weight decay", within="[0, inf)")
    clip_grad: float | None = flag(None, "largest gradient norm of the policy", within="(0, inf)")
    follow: torch.optim.Optimizer | None = flag(None, "the autoencoder's optimiser, whose learning rate AdaMAE's "
                                                "sampler takes; None: it takes sampler_lr")
    update_freq: int = flag(1, "micro-batches that the loop accumulates into a step, counted from 0 in every epoch",
                            within="[1, inf)")
    epochs: int | None = flag(None, "of the run, which sampler_lr_final and random_share_final need",
                              within="[1, inf)")
    steps_per_epoch: int | None = flag(None, "of the run, for the same", within="[1, inf)")
    layout: str | None = flag(None, 'order of the videos\' dimensions, "bcthw", "btchw" or "bthwc" (images "bchw", '
                              '"bhwc"); None: (B, C, T, H, W), (B, C, H, W), and what transformers\' VideoMAE takes')
    mean: tuple[float, ...] = flag(IMAGENET_DEFAULT_MEAN, "a number a channel that the videos were normalised with")
    std: tuple[float, ...] = flag(IMAGENET_DEFAULT_STD, "the same", within="(0, inf)")
    max_bad_steps: int = flag(RunConfig().max_bad_steps, "steps of the policy in a row whose numbers are not finite "
                              "and that end the run", within="[1, inf)")


def options_of(settings: dict[str, Any]) -> tuple[HookOptions, SamplerConfig]:
    """Keyword arguments -> (the hook's own, the policy's flags with their recipe resolved).

    Raises:
        ValueError: a name that is neither's, a value that its declaration does not allow, or settings that need what a
            loop of one's own does not say.
    """
    own, flags = ({item.name for item in fields(kind)} for kind in (HookOptions, SamplerConfig))
    unknown = sorted(settings.keys() - own - flags)
    if unknown:
        raise ValueError(f"unknown settings {', '.join(unknown)}: there are {', '.join(sorted(own))}, and the flags of "
                         f"the learned sampler, {', '.join(sorted(flags))}")
    options = HookOptions(**{name: value for name, value in settings.items() if name in own})
    config = SamplerConfig(**{name: value for name, value in settings.items() if name in flags})
    check_values(options)
    check_values(config)
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
