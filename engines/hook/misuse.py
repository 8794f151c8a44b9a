"""What a loop does with a hook that is probably not meant: refused where it cannot work, else said once an epoch."""

import logging
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

_VALIDATION = "for validation use tats.engines.hook.validation_mask, which leaves no trace"


class Remarks:
    """Warnings, each at most once an epoch.

    Attributes:
        errors_seen: whether the errors of a batch have been looked at.
        early: (epoch, micro-batch) of a loop's last step that is none of the policy's.
    """

    def __init__(self):
        self._said: set[str] = set()
        self.errors_seen = False
        self.early: tuple[int | None, int] | None = None

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


def check_errors(hook: Any, masked: Tensor, known: Tensor | None) -> None:
    """The first batch whose errors are known of some tokens only.

    Args:
        masked: I_m, int64 (B, M). known: as for `masked_errors`, whose shapes fit.

    Raises:
        ValueError: no masked token has an error, as where only visible tokens are predicted.
    """
    if hook.sampler is None or hook.remarks.errors_seen:
        return
    hook.remarks.errors_seen = True
    if known is None:
        return
    known = known.to(masked.device).flatten(1).bool()
    if not bool((known.gather(1, masked) if known.shape[1] == hook.grid.num_tokens else known).any()):
        raise ValueError("known marks no masked token of this batch: the policy learns from the errors of masked "
                         "tokens (True in the mask of choose), and there are none. If True means visible in your loop, "
                         "give ~known; a model that predicts visible tokens alone has nothing to teach it")


def check_step(hook: Any, steps: bool) -> None:
    """At a backward of the loop, before or after `learn`.

    Args:
        steps: whether the loop takes a step of its optimiser with it (VideoMAE's `update_grad`).

    Raises:
        ValueError: it does not, and the policy takes one after every batch.
    """
    batches, update_freq, remarks = hook.micro + hook.waiting, hook.options.update_freq, hook.remarks
    whole = batches % update_freq == 0
    if hook.sampler is None:
        return
    if whole and not steps and update_freq == 1:
        raise ValueError("the loop accumulates gradients (update_grad=False), and the policy would take a step after "
                         "every micro-batch: give TokenSampling(..., update_freq=N), the number of micro-batches in a "
                         "step, for example update_freq=args.update_freq")
    goes_on = remarks.early is not None and remarks.early[0] == hook.epoch and remarks.early[1] < batches
    if goes_on or whole and not steps:   # a step at the very end of an epoch may be early
        remarks.warn(f"the loop does not take its steps after every {update_freq} micro-batches, as the policy does: "
                     "give update_freq= the number of micro-batches in a step", hook.epoch)
    remarks.early = (hook.epoch, batches) if steps and not whole else None


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
