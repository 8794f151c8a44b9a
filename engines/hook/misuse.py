"""What a loop does with a hook that is probably not meant: refused where it cannot work, else said once an epoch."""

import logging
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

_VALIDATION = "for validation use tats.engines.hook.validation_mask, which leaves no trace"


class Remarks:
    """Warnings, each at most once an epoch."""

    def __init__(self):
        self._said: set[str] = set()

    def warn(self, message: str, epoch: int | None) -> None:
        if message not in self._said:
            logger.warning("epoch %s: %s", epoch, message)
            self._said.add(message)

    def forget(self) -> None:
        """A new epoch."""
        self._said.clear()


def check_call(hook: Any, model: nn.Module | Tensor | None, epoch: int) -> None:
    """Before a mask is chosen.

    Raises:
        ValueError: epoch is no whole number from 0 on, or nothing can be learned here.
    """
    if not isinstance(epoch, Integral) or isinstance(epoch, bool) or epoch < 0:
        raise ValueError(f"epoch must be a whole number from 0 on, got {epoch!r}")
    if hook.sampler is None:
        return
    if torch.is_inference_mode_enabled():
        raise ValueError(f"choose(...) within torch.inference_mode, where nothing can be learned: {_VALIDATION}")
    if hook.waiting:
        hook.remarks.warn("choose(...) again before learn(errors): nothing is learned from the mask before; "
                          + _VALIDATION, epoch)
    if isinstance(model, nn.Module) and not model.training:
        hook.remarks.warn(f"choose(...) with a model in eval mode: {_VALIDATION}", epoch)
    if hook.epoch is not None and epoch < hook.epoch:
        hook.remarks.warn(f"the epochs go back, from {hook.epoch}: {_VALIDATION}", epoch)


def check_epoch(hook: Any) -> None:
    """At an epoch's end: masks that nothing came of."""
    if hook.sampler is None:
        return
    if hook.waiting and not hook.micro:
        hook.remarks.warn("masks were chosen and nothing was learned from them: call learn(errors) after each forward",
                          hook.epoch)
    update_freq = hook.options.update_freq
    if hook.micro % update_freq and hook.acts(hook.epoch):
        hook.remarks.warn(f"{hook.micro} micro-batches, of which {hook.micro % update_freq} fill no step of "
                          f"update_freq={update_freq}: nothing is learned from these", hook.epoch)
