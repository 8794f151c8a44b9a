"""A GPU that is not there: our programs on tensors that have a shape, a dtype and a device `cuda`, and no numbers.

Torch's FakeTensorMode raises where an operation mixes devices, as a GPU does. What it cannot do is added here: the
backward pass (`backward`, which calls the graph's own functions), two processes (collectives of one, whose tensors must
be on the GPU), and a list of the places where the host would wait for the GPU.
"""

import collections
import contextlib
import copy
import traceback
from pathlib import Path
from unittest import mock

import torch
import torch.distributed as dist
from timm.utils import model_ema
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).resolve().parents[1]
DEVICE = torch.device("cuda", 0)
COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


def _place() -> str:
    """file:function of the innermost line of the package."""
    frames = [frame for frame in traceback.extract_stack() if Path(frame.filename).resolve().is_relative_to(ROOT)
              and not {"tests", "site-packages"} & set(Path(frame.filename).parts)]
    return f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "?"


class Batches:
    """The same batch again and again, on the CPU, as the loader of a training run gives it."""

    def __init__(self, *batch, count):
        self.batch, self.count = batch, count

    def __len__(self):
        return self.count

    def __iter__(self):
        return iter([self.batch] * self.count)

    def say_what_is_kept(self):
        pass


class HostReads(TorchDispatchMode):
    """Notes every read of a GPU's number by the host, and every copy between the two that blocks it.

    Attributes:
        log: Counter of (kind, file:function); kind is "read", "to host" or "to device".
    """

    def __init__(self):
        super().__init__()
        self.log = collections.Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default:
            place = _place()
            if args[0].device.type == "cuda":
                self.log["read", place] += 1
            if args[0].dtype == torch.bool:
                return place == "fork.py:backward"   # "is the loss finite?"; elsewhere: "is something wrong?"
            if not args[0].dtype.is_floating_point:
                return int(place == "incoming.py:batch")   # "how many tokens does the mask hide?"
            # 1, so that means have something to be divided by; but nothing is said to have gone wrong.
            return float(not place.startswith("bad_steps"))
        out = func(*args, **kwargs)
        if func in COPIES:
            source = args[1] if func is COPIES[1] else args[0]
            waits = not kwargs.get("non_blocking", args[2] if func is COPIES[1] and len(args) > 2 else False)
            if source.device.type != out.device.type and (waits or out.device.type == "cpu"):
                self.log["to device" if out.device.type == "cuda" else "to host", _place()] += 1
        return out


def _grads_as_recorded(node, index: int, gradient: torch.Tensor) -> torch.Tensor:
    """What autograd's engine does with a gradient before it hands it on: shape and dtype of the forward's tensor."""
    wanted = node._input_metadata[index]
    if tuple(gradient.shape) != tuple(wanted.shape):
        gradient = gradient.sum_to_size(wanted.shape)
    if gradient.device != wanted.device:
        raise RuntimeError(f"{node.name()} expects a gradient on {wanted.device}, got one on {gradient.device}")
    return gradient.to(wanted.dtype)


@torch.no_grad()
def backward(self: torch.Tensor, gradient: torch.Tensor | None = None, **_: object) -> None:
    """`Tensor.backward` without autograd's engine, which asks the driver for streams: each node of the graph is called
    by hand, with the same functions (`test_the_backward_by_hand_is_that_of_the_engine`)."""
    root = self.grad_fn
    awaited, stack, known = collections.Counter(), [root], {root}
    while stack:
        for node, _ in stack.pop().next_functions:
            if node is not None:
                awaited[node] += 1
                if node not in known:
                    known.add(node)
                    stack.append(node)
    arrived = collections.defaultdict(dict)
    arrived[root][0] = torch.ones_like(self) if gradient is None else gradient
    ready = [root]
    while ready:
        node = ready.pop()
        received = arrived.pop(node, {})
        results = _called(node, [received.get(index) for index in range(len(node._input_metadata))])
        for (target, index), result in zip(node.next_functions, results, strict=False):
            if target is None:
                continue
            if result is not None:
                result = _grads_as_recorded(target, index, result)
                own = arrived[target]
                own[index] = own[index] + result if index in own else result
            awaited[target] -= 1
            if not awaited[target]:
                ready.append(target)


def _called(node, gradients: list[torch.Tensor | None]) -> tuple:
    if all(one is None for one in gradients):
        return (None,) * len(node.next_functions)
    if hasattr(node, "variable"):
        leaf, gradient = node.variable, gradients[0]
        leaf.grad = gradient.detach() if leaf.grad is None else leaf.grad + gradient
        return ()
    results = node.apply(*gradients) if hasattr(node, "apply") else node(*gradients)
    return results if isinstance(results, tuple) else (results,)


def _to(self: nn.Module, device=None, *_: object, **__: object) -> nn.Module:
    """`Module.to`, which cannot exchange the storage of tensors that have none."""
    for module in self.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                moved = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
                module._parameters[name] = nn.Parameter(moved, requires_grad=parameter.requires_grad)
        for name, value in module._buffers.items():
            if value is not None:
                module._buffers[name] = torch.empty(value.shape, dtype=value.dtype, device=device)
    return self


_deepcopy = copy.deepcopy


def _copied(value, memo=None):
    """`copy.deepcopy`, which would copy the memory of tensors that have none."""
    if isinstance(value, nn.Module):
        memo = {} if memo is None else memo
        memo |= {id(one): nn.Parameter(torch.empty_like(one), one.requires_grad) for one in value.parameters()}
        memo |= {id(one): torch.empty_like(one) for one in value.buffers()}
    return _deepcopy(value, memo)


class _Alone(nn.Module):
    """DistributedDataParallel without the other processes."""

    def __init__(self, net: nn.Module, **_: object):
        super().__init__()
        self.module = net

    def forward(self, *inputs, **options):
        return self.module(*inputs, **options)

    def no_sync(self):
        return contextlib.nullcontext()


def _on_the_gpu(name: str, *tensors: torch.Tensor) -> None:
    for tensor in tensors:
        if tensor.device.type != "cuda":
            raise RuntimeError(f"{name} of a tensor on {tensor.device} in {_place()}: NCCL takes those of a GPU alone")


def _all_gather(parts: list[torch.Tensor], tensor: torch.Tensor) -> None:
    _on_the_gpu("all_gather", tensor, *parts)
    for part in parts:
        part.copy_(tensor)


def _all_gather_object(gathered: list, value: object) -> None:
    gathered[:] = [value] * len(gathered)


def install(monkeypatch) -> None:
    """Put the stand-ins in; `monkeypatch` takes them out."""
    import torch.cuda.amp.common as amp_common
    from tats.engines.core import runtime
    from tats.engines.hook import building
    from tats.engines.runs import pretraining_build
    from tats.engines.training import learner

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    monkeypatch.setattr(nn.Module, "to", _to)
    monkeypatch.setattr(learner, "DistributedDataParallel", _Alone)
    monkeypatch.setattr(dist, "all_reduce", lambda tensor, **_: _on_the_gpu("all_reduce", tensor))
    monkeypatch.setattr(dist, "broadcast", lambda tensor, *_, **__: _on_the_gpu("broadcast", tensor))
    monkeypatch.setattr(dist, "all_gather", _all_gather)
    monkeypatch.setattr(dist, "all_gather_object", _all_gather_object)
    monkeypatch.setattr(dist, "barrier", lambda *_, **__: None)
    monkeypatch.setattr(amp_common, "amp_definitely_not_available", lambda: False)   # GradScaler asks for a driver
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    for module in (copy, model_ema):
        monkeypatch.setattr(module, "deepcopy", _copied)
    generator = torch.Generator   # one of a GPU that is not there writes to memory that is not its own
    monkeypatch.setattr(torch, "Generator", lambda device="cpu": generator())
    monkeypatch.setattr(torch.cuda, "Stream", mock.MagicMock())
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", mock.MagicMock())
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda *_: 0)
    for module in (building, pretraining_build):   # it counts the tokens of a draw
        monkeypatch.setattr(module, "check_sampler", lambda *_: None)
    monkeypatch.setattr(runtime, "seed_everything", lambda seed: None)               # generators hold real numbers
    monkeypatch.setattr(runtime, "rng_state", dict)
    monkeypatch.setattr(runtime, "set_rng_state", lambda state: None)


@contextlib.contextmanager
def fake_gpu(monkeypatch):
    """Everything inside runs on the fake device; yields the `HostReads`."""
    with monkeypatch.context() as patch, FakeTensorMode(allow_non_fake_inputs=True), HostReads() as reads:
        install(patch)
        try:
            yield reads
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)   # a graph on the fake device must not outlive it
            raise


__all__ = ["DEVICE", "FakeTensor", "HostReads", "backward", "fake_gpu"]
