"""The state of a `SamplingHook`, for a checkpoint of the loop that it stands in."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from ...models.convert.checkpoints import load_exactly
from ..pretrain.alerts import YOUNG

logger = logging.getLogger(__name__)

MADE_OF = ("grid", "tokens", "num_visible")   # another value is another policy; others are named in the log


def state_of(hook: Any) -> dict[str, Any]:
    """Plain numbers and tensors, readable with weights_only=True; empty without a sampler. Not torch's random state."""
    if hook.sampler is None:
        return {}
    return {"mask_type": hook.mask_type, "sampler": hook.sampler.module.state_dict(),
            "optimizer": hook.sampler.state_dict(), "entropy_coef": float(hook.training.entropy.value),
            "buffer": [list(episode[:-1]) for episode in hook.buffer],   # not copied: forks ask often
            "gradients": _gradients(hook), "settings": _settings(hook),
            "epoch": hook.epoch, "next_epoch": hook.next_epoch, "acted": hook.acted, "micro": hook.micro}


def _gradients(hook: Any) -> list | None:
    """REINFORCE's, between two micro-batches of a step; under PPO the buffer holds what they will be made of."""
    if hook.row.learner != "reinforce" or hook.micro % hook.options.update_freq == 0:
        return None
    return [parameter.grad for parameter in hook.sampler.module.parameters()]


def _settings(hook: Any) -> dict[str, Any]:
    return asdict(hook.config) | {"grid": list(hook.grid), "tokens": type(hook.tokens).__name__,
                                  "num_visible": hook.sampler.module.num_visible,
                                  "update_freq": hook.options.update_freq}


def _compare(hook: Any, written: dict[str, Any]) -> None:
    """Raises ValueError: the policy was made for something else."""
    own = _settings(hook)
    other = {name: value for name, value in written.items() if name in own and own[name] != value}
    fixed = [f"{name} {value} and this run has {own[name]}" for name, value in other.items() if name in MADE_OF]
    if fixed:
        raise ValueError(f"the checkpoint's policy was made with {'; '.join(fixed)}")
    if other:
        logger.warning("the checkpoint was written with %s", ", ".join(
            f"{name}={value} (now {own[name]})" for name, value in other.items()))


def restore(hook: Any, state: dict[str, Any]) -> None:
    """Put back what `state_of` returned.

    Raises:
        ValueError: this run has a sampler and the state none, or the other way round, or another one.
    """
    if state and not isinstance(state, Mapping):
        raise ValueError(f"this is not what state_dict() of a hook returned: it is a {type(state).__name__}")
    if state and not {"sampler", "optimizer"} <= state.keys():
        raise ValueError("this is not what state_dict() of a hook returned: it holds "
                         f"{', '.join(map(str, list(state)[:4]))}, ...")
    again = "resume with its own --mask_type, or start with another --output_dir"
    if not state:
        if hook.sampler is not None:
            raise ValueError(f"the checkpoint was written without a sampler: {again}")
        return
    written = state.get("mask_type", hook.mask_type)
    if hook.sampler is None or written != hook.mask_type:
        raise ValueError(f"the checkpoint holds the sampler of --mask_type {written or 'NAME'}: {again}")
    _compare(hook, state.get("settings", {}))
    load_exactly(hook.sampler.module, state["sampler"], "the checkpoint's sampler")
    hook.sampler.load_state_dict(state["optimizer"])
    if hook.config.target_entropy is not None:   # c3 was adapted; a fixed one is that of the flags
        hook.training.entropy.value = torch.tensor(state["entropy_coef"])
    for parameter, gradient in zip(hook.sampler.module.parameters(), state.get("gradients") or (), strict=False):
        parameter.grad = None if gradient is None else gradient.to(parameter)
    hook.buffer.load(state.get("buffer", []), hook.device)
    hook.epoch, hook.acted, hook.micro, hook.next_epoch = (state.get(name, empty) for name, empty in (
        ("epoch", None), ("acted", YOUNG + 1), ("micro", 0), ("next_epoch", 0)))
    hook.open = False
    hook.bad_steps.reset()
