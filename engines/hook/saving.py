"""The state of a `SamplingHook`, for a checkpoint of the loop that it stands in."""

from typing import Any

import torch

from ...models.convert.checkpoints import load_exactly
from .numbers import YOUNG


def state_of(hook: Any) -> dict[str, Any]:
    """Plain numbers and tensors, readable with weights_only=True; empty without a sampler."""
    if hook.sampler is None:
        return {}
    return {"mask_type": hook.mask_type, "sampler": hook.sampler.module.state_dict(),
            "optimizer": hook.sampler.state_dict(), "entropy_coef": float(hook.training.entropy.value),
            "buffer": [list(episode[:-1]) for episode in hook.buffer],   # not copied: forks ask often
            "epoch": hook.epoch, "next_epoch": hook.next_epoch, "acted": hook.acted, "micro": hook.micro}


def restore(hook: Any, state: dict[str, Any]) -> None:
    """Put back what `state_of` returned.

    Raises:
        ValueError: this run has a sampler and the state none, or the other way round, or another one.
    """
    again = "resume with its own --mask_type, or start with another --output_dir"
    if not state:
        if hook.sampler is not None:
            raise ValueError(f"the checkpoint was written without a sampler: {again}")
        return
    written = state.get("mask_type", hook.mask_type)
    if hook.sampler is None or written != hook.mask_type:
        raise ValueError(f"the checkpoint holds the sampler of --mask_type {written or 'NAME'}: {again}")
    load_exactly(hook.sampler.module, state["sampler"], "the checkpoint's sampler")
    hook.sampler.load_state_dict(state["optimizer"])
    hook.training.entropy.value = torch.tensor(state["entropy_coef"])
    hook.buffer.load(state.get("buffer", []), hook.device)
    hook.epoch, hook.acted, hook.micro, hook.next_epoch = (state.get(name, empty) for name, empty in (
        ("epoch", None), ("acted", YOUNG + 1), ("micro", 0), ("next_epoch", 0)))
    hook.open = False
    hook.bad_steps.reset()
