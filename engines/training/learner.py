"""A network with everything that trains it."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ...models.convert.checkpoints import load_exactly
from ..core.runtime import Precision, Runtime
from .health import Health
from .optimizer_state import load_state, state_of

Schedule = Callable[[int], float]


def apply_schedules(optimizer: torch.optim.Optimizer, step: int, lr: Schedule, weight_decay: Schedule | None) -> None:
    """Set the groups' `lr`, times their `lr_scale`, and their `weight_decay` where it is not 0."""
    rate = lr(step)
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)
        if weight_decay is not None and group["weight_decay"] > 0:
            group["weight_decay"] = weight_decay(step)


class Learner:
    """One network, its optimiser, schedules, gradient scaler and clipping; f_phi is one and g_theta is another.

    Two learners and not one, so that freezing is by construction: no step of one can move the other's weights. A step
    whose loss, gradient or other `check`ed value is not finite, on any process, moves nothing; `health` counts it.

    Args:
        net: the network, on its device.
        optimizer: its param groups may carry `lr_scale` (layer decay) and are scheduled from `lr`, and
            `weight_decay` where that is not 0. None for a network that has nothing to learn.
        lr: learning rate at an optimiser step. weight_decay: likewise, or None to leave it.
        clip_grad: largest gradient norm, None for no clipping.
    """

    def __init__(self, net: nn.Module, optimizer: torch.optim.Optimizer | None = None,
                 lr: Schedule | None = None, *, weight_decay: Schedule | None = None,
                 clip_grad: float | None = None, runtime: Runtime | None = None, precision: Precision | None = None):
        self.module, self.optimizer, self.lr, self.weight_decay = net, optimizer, lr, weight_decay
        self.clip_grad = clip_grad
        self.precision = precision or Precision("cpu")
        self.steps = 0  # optimiser steps, those that were skipped included
        self.health = Health(next((one.device for one in net.parameters()), torch.device("cpu")), runtime)
        self.net = net
        if optimizer is not None and runtime is not None and runtime.world_size > 1:
            devices = [runtime.device.index] if runtime.device.type == "cuda" else None
            self.net = DistributedDataParallel(net, device_ids=devices, broadcast_buffers=False)
        self.scaler = torch.amp.GradScaler(self.precision.device_type,
                                           enabled=self.precision.dtype == torch.float16)
        self._apply_schedules()

    def __call__(self, *inputs: Tensor, **options) -> Tensor:
        """The network's forward under autocast (and DDP)."""
        with self.precision.autocast():
            return self.net(*inputs, **options)

    def accumulating(self, more: bool) -> contextlib.AbstractContextManager:
        """Context around forward and backward of a micro-batch; `more`: others follow before the optimiser steps."""
        if more and isinstance(self.net, DistributedDataParallel):
            return self.net.no_sync()
        return contextlib.nullcontext()

    def check(self, **values: Tensor) -> None:
        """Skip this step if one of these values, named as in `health.CHECKED`, is not finite."""
        self.health.check(**values)

    def largest(self, value: Tensor) -> Tensor:
        """The largest `value` of the processes that train this network, for what they must decide alike."""
        return value if self.health.runtime is None else self.health.runtime.largest(value)

    def backward(self, loss: Tensor) -> None:
        """Add the loss's gradient; divide the loss by the number of micro-batches yourself."""
        self.check(loss=loss)
        self.scaler.scale(loss).backward()

    def step(self) -> Tensor | None:
        """Clip, step, clear the gradients, advance the schedules. Returns the gradient norm before clipping.

        Under float16 it returns None: the scaler finds its scale by steps that overflow, whose norm is infinite.
        """
        self.scaler.unscale_(self.optimizer)
        norm = self._gradient_norm()
        self.check(gradient=norm)
        self._step_unless(self.health.close())
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        self._apply_schedules()
        return None if self.scaler.is_enabled() else norm

    def _gradient_norm(self) -> Tensor:
        """Before clipping. Where nothing is clipped no gradient is written: torch would multiply all of them by 1."""
        if self.clip_grad is not None:
            return nn.utils.clip_grad_norm_(self.module.parameters(), self.clip_grad)
        gradients = [one.grad for one in self.module.parameters() if one.grad is not None]
        if not gradients:
            return torch.tensor(0.0)
        return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))

    def _step_unless(self, bad: Tensor) -> None:
        """The optimiser's step, unless `bad`, bool (). A fused optimiser decides on the device, as torch's scaler asks
        it to; any other needs the answer on the host, which waits for the device once a step."""
        if getattr(self.optimizer, "_step_supports_amp_scaling", False) and not self.scaler.is_enabled():
            self.optimizer.grad_scale, self.optimizer.found_inf = None, bad.float()
            self.optimizer.step()
            del self.optimizer.grad_scale, self.optimizer.found_inf
        elif not bad:
            self.scaler.step(self.optimizer)

    def optimize(self, loss: Tensor) -> Tensor | None:
        """backward and step in one."""
        self.backward(loss)
        return self.step()

    def start(self, step: int) -> None:
        """Count on from optimiser step `step` of the run."""
        self.steps = step
        self._apply_schedules()

    def _apply_schedules(self) -> None:
        if self.optimizer is not None:
            apply_schedules(self.optimizer, self.steps, self.lr, self.weight_decay)

    def release(self) -> None:
        """Let go of DDP; nothing can be trained from now on."""
        self.net = self.module

    def state_dict(self) -> dict:
        """Optimiser, scaler and step count (the network's own weights are saved apart, under VideoMAE's keys)."""
        if self.optimizer is None:
            return {}
        return {"optimizer": state_of(self.optimizer, self.module), "scaler": self.scaler.state_dict(),
                "steps": self.steps, "health": self.health.state()}

    def weights(self) -> dict[str, Tensor]:
        """The network's weights under their plain names; every process must call (the weights may be shared out)."""
        return self.module.state_dict()

    def save(self, folder: Path) -> dict:
        """What a checkpoint keeps beside the weights; every process must call. Nothing is written to `folder` here."""
        del folder
        return self.state_dict()

    def load(self, weights: dict[str, Tensor], state: dict, folder: Path) -> None:
        """Continue from what `weights` and `save` gave.

        Raises:
            ValueError: it was written with DeepSpeed, or for another network.
        """
        if "deepspeed" in state:
            raise ValueError(f"checkpoint {folder.name} was trained with DeepSpeed: resume with the same "
                             "--enable_deepspeed and --zero_stage, or start from its weights with --finetune")
        load_exactly(self.module, weights, f"checkpoint {folder.name}")
        self.load_state_dict(state)

    def load_state_dict(self, state: dict) -> None:
        """Put back what `state_dict` returned."""
        if self.optimizer is None:
            return
        load_state(self.optimizer, self.module, state["optimizer"])
        if state["scaler"]:   # empty where it was written without float16
            self.scaler.load_state_dict(state["scaler"])
        self.health.load(state.get("health", {"in_a_row": 0, "total": 0}))
        self.start(state["steps"])
