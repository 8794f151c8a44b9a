"""Rewards and numbers of the log that a user registers: what they return is checked, what they raise is one line."""

import contextlib
import traceback
from collections.abc import Iterator
from numbers import Real
from pathlib import Path

import torch
from torch import Tensor

from ..core.metrics import Metric, measuring
from .outcome import Outcome


def is_ours(code: object) -> bool:
    """Whether a function, or an object, is of this package."""
    return getattr(code, "__module__", "").partition(".")[0] == __name__.partition(".")[0]


@contextlib.contextmanager
def blaming(what: str, code: object, passing: type[Exception] = torch.OutOfMemoryError) -> Iterator[None]:
    """What a user's `code` raises inside becomes a ValueError that begins with `what` and names the line. What ours
    raises stays what it is, and so do a lack of memory and `passing`."""
    try:
        yield
    except Exception as error:   # noqa: BLE001 - a user's code may raise anything
        if isinstance(error, (torch.OutOfMemoryError, passing)) or is_ours(code):
            raise
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
        place = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
        raise ValueError(f"{what} raises {type(error).__name__}: {error}{place}") from error


@contextlib.contextmanager
def unchanged(what: str, code: object, outcome: Outcome) -> Iterator[None]:
    """Inside the block a user's `code` reads the outcome.

    Raises:
        ValueError: it has changed in place what others read after it, the model among it. It begins with `what`.
    """
    read = {} if is_ours(code) else _tensors(outcome)
    before = {name: _versions(tensors) for name, tensors in read.items()}
    yield
    for name, tensors in read.items():
        if _versions(tensors) != before[name]:
            raise ValueError(f"{what} changes {name} in place, which others read after it: let it work on a copy "
                             "(.clone())")


def _tensors(outcome: Outcome) -> dict[str, list[Tensor]]:
    model = [] if outcome.again is None else list(outcome.again.mae.module.parameters())
    found = {f"outcome.{name}": [getattr(outcome, name)] for name in ("errors", "masked", "log_pi")}
    found |= {"outcome.batch": list(outcome.batch or ()), "the model's weights": model}
    return {name: [tensor for tensor in tensors if tensor is not None] for name, tensors in found.items()}


def _versions(tensors: list[Tensor]) -> int:
    """How often they have been changed in place, all together."""
    return sum(tensor._version for tensor in tensors)


def measured(outcome: Outcome) -> dict[str, Tensor | float | None]:
    """What the registered metrics say of an outcome, by name; for `Meters`.

    Raises:
        ValueError: one of them raises, or returns no number.
    """
    return {metric.name: _measure(metric, outcome) for metric in measuring()}


def _measure(metric: Metric, outcome: Outcome) -> Tensor | float | None:
    what = f"the metric {metric.name!r}"
    with unchanged(what, metric.measure, outcome), blaming(what, metric.measure):
        value = metric.measure(outcome)
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
        return value.detach().reshape(())
    if value is None or isinstance(value, Real):
        return value
    shown = f"a tensor of shape {tuple(value.shape)}, {value.dtype}" if isinstance(value, Tensor) else (
        f"{value!r:.60} ({type(value).__name__})")
    raise ValueError(f"the metric {metric.name!r} must return one number, a tensor of one number or None; it returns "
                     f"{shown}")


def checked_reward(name: str, reward: object, outcome: Outcome, per_token: bool) -> Tensor:
    """What a reward has returned for an outcome, without a graph.

    Raises:
        ValueError: it is not of the promised shape, type or device.
    """
    clips, masked = outcome.errors.shape
    wanted, device = (clips, masked if per_token else 1), outcome.errors.device
    if (isinstance(reward, Tensor) and reward.shape == wanted and reward.is_floating_point()
            and reward.device == device):
        return reward.detach()
    shown = f"{tuple(reward.shape)}, {reward.dtype}, on {reward.device}" if isinstance(reward, Tensor) else (
        f"{reward!r:.60} ({type(reward).__name__})")
    kind = "a number for each masked token" if per_token else "one number for each clip"
    raise ValueError(f"the reward {name!r} must return floats of shape {wanted}, {kind}, on {device} for errors of "
                     f"shape {(clips, masked)}; it returns {shown}")
