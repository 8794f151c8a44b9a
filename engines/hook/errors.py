"""Errors as a training loop has them -> the error of each masked token, as Algorithm 1 wants them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def numbers_of(given: Any, what: str) -> Tensor:
    """A tensor of what a loop gives. Raises ValueError: it is nothing that a tensor can be made of."""
    try:
        return torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{what} is a {type(given).__name__} that no tensor can be made of") from None


def masked_errors(errors: Tensor, masked: Tensor, num_tokens: int, known: Tensor | None = None) -> Tensor:
    """float32 (B, M), of the masked tokens in ascending order, without gradient.

    B: clips, N: tokens, M: masked tokens of a clip.

    Args:
        errors: one number a token, (B, N) of all tokens, (B, M) of the masked ones, or with `known` (B, K) of the K
            tokens that it marks; in ascending order of the tokens (t h w).
        masked: I_m, int64 (B, M), ascending.
        known: bool. Of the shape of `errors`: which of them mean something. (B, N) beside errors (B, K): which K tokens
            they are of. A masked token without one, such as one that is not decoded, gets the mean of its clip's known
            masked tokens; where a clip has none, the mean of the batch. Not a reward of 0, which would say that the
            token is easy.

    Raises:
        ValueError: shapes that fit none of these.
    """
    batch, count = masked.shape
    errors = numbers_of(errors, "errors").to(masked.device)
    if errors.ndim != 2 or len(errors) != batch:
        raise ValueError(f"errors of shape {tuple(errors.shape)}: one number a token is wanted, (B, N) = ({batch}, "
                         f"{num_tokens}) or (B, M) = ({batch}, {count}); take the mean over a token's values first")
    errors = errors.detach().float()
    if known is not None:
        known = numbers_of(known, "known")
        if known.ndim < 2 or len(known) != batch:
            raise ValueError(f"known of shape {tuple(known.shape)}: bool (B, N) = ({batch}, {num_tokens}) is wanted, "
                             f"or the shape of the errors, {tuple(errors.shape)}")
        known = known.to(errors.device).flatten(1).bool()
        if known.shape == (batch, num_tokens) and errors.shape[1] != num_tokens:
            errors = _scattered(errors, known)
        if known.shape != errors.shape:
            raise ValueError(f"known of shape {tuple(known.shape)} beside errors of shape {tuple(errors.shape)}: it "
                             f"must have their shape, or be (B, N) = ({batch}, {num_tokens})")
    if errors.shape[1] == num_tokens:
        errors = errors.gather(1, masked)
        known = None if known is None else known.gather(1, masked)
    if errors.shape[1] != count:
        raise ValueError(f"errors of {errors.shape[1]} tokens a clip: {num_tokens} (all) or {count} (the masked ones) "
                         "are wanted; where others were decoded, say which with known=, bool (B, N)")
    return errors if known is None else _filled(errors, known)


def _scattered(errors: Tensor, known: Tensor) -> Tensor:
    """(B, K) -> (B, N), at the K places of each row that are known."""
    places = known.to(torch.uint8).sort(dim=1, descending=True, stable=True).indices[:, :errors.shape[1]]
    if not bool((known.sum(dim=1) == errors.shape[1]).all()):
        raise ValueError(f"errors of {errors.shape[1]} tokens a clip, and known marks {int(known.sum(dim=1).min())} to "
                         f"{int(known.sum(dim=1).max())}")
    return torch.zeros(known.shape, device=errors.device).scatter_(1, places, errors)


def _filled(errors: Tensor, known: Tensor) -> Tensor:
    """The clip's mean, else the batch's, where nothing is known; (B, M) both."""
    kept = torch.where(known, errors, 0.0)
    number = known.sum(dim=1, keepdim=True)
    clip = torch.where(number > 0, kept.sum(dim=1, keepdim=True) / number.clamp(min=1),
                       kept.sum() / number.sum().clamp(min=1))
    return torch.where(known, errors, clip)


def errors_of_mean(loss_of: Callable[[Tensor], Tensor], mask: Tensor) -> Tensor:
    """The error of each token, float32 (B, N), from a loss that says only their mean over the mask, as MAE's and
    MAE-ST's do: `errors_of_mean(lambda mask: model.forward_loss(images, prediction.detach(), mask), mask)`.

    Such a loss is sum(errors * mask) / sum(mask). Its derivative at a mask of ones is (error - mean) / (B N) for each
    token, whatever the errors are made of.

    Args:
        loss_of: `loss_of(mask)` with a mask float (B, N), 1 = masked. mask: the mask of the step, any type.

    Raises:
        ValueError: the loss is no such mean.
    """
    with torch.autocast(mask.device.type, enabled=False), torch.enable_grad():
        ones = torch.ones(mask.shape, device=mask.device, requires_grad=True)
        mean = loss_of(ones)
        slope = torch.autograd.grad(mean, ones, allow_unused=True)[0]
    if slope is None or not slope.any():
        raise ValueError("the loss does not depend on the mask that it is given: take the error of each token from "
                         "where the loss is made")
    errors = (ones.numel() * slope + mean).detach().float()
    mask = mask.detach().float()
    with torch.no_grad():
        loss, again = loss_of(mask).float(), (errors * mask).sum() / mask.sum()
    if loss.isfinite() and not torch.isclose(loss, again, rtol=1e-2, atol=1e-6):
        raise ValueError(f"the loss is no mean of errors over the mask: it is {loss:g}, and the mean of the errors "
                         f"found is {again:g}. Take the error of each token from where the loss is made")
    return errors
