"""Parameter groups and optimisers."""

from collections.abc import Callable, Iterable, Sequence

import torch
from timm.optim import create_optimizer_v2
from torch import nn

from ..config.common import OptimConfig


def parameter_groups(net: nn.Module, weight_decay: float, skip: Iterable[str] = (),
                     lr_scale: Callable[[str], float] | None = None) -> list[dict]:
    """VideoMAE's groups: no weight decay on biases, vectors and the names in `skip`; one group per learning-rate scale.

    Args:
        lr_scale: parameter name -> factor of the learning rate (layer decay), stored in the group as `lr_scale`.
    """
    groups: dict[tuple[float, float], dict] = {}
    for name, parameter in net.named_parameters():
        if not parameter.requires_grad:
            continue
        plain = parameter.ndim <= 1 or name.endswith(".bias") or name in skip
        decay, scale = 0.0 if plain else weight_decay, lr_scale(name) if lr_scale else 1.0
        group = groups.setdefault((decay, scale), {"params": [], "names": [], "weight_decay": decay, "lr_scale": scale})
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def make_optimizer(groups: Sequence[dict], name: str = "adamw", *, eps: float = 1e-8,
                   betas: Sequence[float] | None = None, momentum: float = 0.9,
                   fused: bool | None = None) -> torch.optim.Optimizer:
    """Any of timm's optimisers by name, learning rate to be set by a schedule.

    Args:
        fused: do AdamW's step in one kernel. Such a step can be skipped on the device, so that the host need not wait
            to know whether it is bad (see `Learner`). None: fused on GPUs and on the CPU, four times faster there.

    Raises:
        ValueError: timm knows no such optimiser.
    """
    groups = [{key: value for key, value in group.items() if key != "names"} for group in groups]
    if fused is None:
        fused = all(parameter.device.type in ("cuda", "cpu") for group in groups for parameter in group["params"])
    options = {"eps": eps} | ({"fused": True} if fused and name == "adamw" else {})
    if betas is not None:
        options["betas"] = tuple(betas)
    try:
        return _built(groups, name, momentum, options)
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"--opt {name} cannot be built: {error}") from error


def _built(groups: Sequence[dict], name: str, momentum: float, options: dict) -> torch.optim.Optimizer:
    """An older timm (1.0.9 does) hands on what an optimiser does not know, SGD the betas: it is left out, as newer ones
    leave it out themselves."""
    while True:
        try:
            return create_optimizer_v2(groups, opt=name, lr=0.0, weight_decay=0.0, momentum=momentum, **options)
        except TypeError as error:
            unknown = {key for key in ("betas", "eps") if key in options and f"argument '{key}'" in str(error)}
            if not unknown:
                raise
            options = {key: value for key, value in options.items() if key not in unknown}


def optimizer_of(groups: Sequence[dict], optim: OptimConfig, fused: bool | None = None) -> torch.optim.Optimizer:
    """`make_optimizer` with a run's flags. Raises ValueError: timm knows no such optimiser."""
    return make_optimizer(groups, optim.opt, eps=optim.opt_eps, betas=optim.betas, momentum=optim.momentum, fused=fused)
