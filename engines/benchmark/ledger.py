"""What a step asks of a device, counted on tensors without numbers: kernels, FLOPs, bytes moved, memory alive."""

import contextlib
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from ...models import fused, kernels, mae, trajectory_attention
from ..runs import pretraining_build

GRANULE = 512           # bytes: CUDA's allocator rounds up to these
TENSORS_A_KERNEL = 64   # of a foreach operation, about
_PICKS = {"index", "gather", "index_select"}             # read of their first tensor what they return, and no more
_PUTS = {"index_put_", "index_put", "scatter_"}          # write of it what they are given
_FREE = {"empty", "empty_like", "new_empty", "empty_strided", "detach", "lift_fresh", "_assert_async",
         "_local_scalar_dense"}


@dataclass(frozen=True)
class Kernel:
    """One operation: its name, FLOPs, bytes read and written, launches, whether it computes in 16 bits, and the FLOPs
    that its matrix units do not take."""

    name: str
    flops: int
    moved: int
    launches: int
    half: bool
    vector_flops: int = 0


class Ledger(TorchDispatchMode):
    """Context that counts every operation inside; `track` what is there before.

    Attributes:
        kernels: list of `Kernel`. live, peak: bytes of the storages that are alive, and their largest sum.
    """

    def __init__(self):
        super().__init__()
        self.kernels: list[Kernel] = []
        self.live = self.peak = 0
        self._known: dict[int, int] = {}

    def track(self, tensor: Tensor) -> bool:
        """Count a tensor's storage until it ends; False where it is known."""
        storage = tensor.untyped_storage()
        place = storage._cdata
        if place in self._known:
            return False
        size = -(-storage.nbytes() // GRANULE) * GRANULE
        self._known[place] = size
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._end, place)
        return True

    def _end(self, place: int) -> None:
        self.live -= self._known.pop(place, 0)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        inputs, outputs = ([one for one in tree_leaves(part) if isinstance(one, Tensor)] for part in
                           ((args, kwargs), out))
        new = sum(self.track(one) for one in outputs)
        name = func._overloadpacket.__name__
        if name in _FREE or not (new or func._schema.is_mutable):   # a view, or no work
            return out
        count = flop_registry.get(func._overloadpacket)
        floats = [one for one in inputs if one.is_floating_point()]
        half = bool(floats) and floats[0].dtype in (torch.bfloat16, torch.float16)
        if func.namespace == "tats":
            cost = fused.cost_of(name, inputs, outputs)
            self.peak = max(self.peak, self.live + cost.scratch)
            self.kernels.append(Kernel(name, cost.flops, cost.moved, cost.launches, half, cost.vector_flops))
            return out
        if name in _PICKS:
            moved = sum(map(_bytes, [*inputs[1:], *outputs, *outputs]))
        elif name in _PUTS:
            moved = sum(2 * _bytes(one) for one in inputs[1:])
        else:
            moved = sum(map(_bytes, [*inputs, *outputs]))
        self.kernels.append(Kernel(
            name, count(*args, **kwargs, out_val=out) if count else 0, moved,
            1 + len(inputs) // TENSORS_A_KERNEL if "foreach" in name or "fused" in name else 1,
            half))
        return out


class _NothingToRead(TorchDispatchMode):
    """A read of a number that is not there gives 0."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return 0 if func is torch.ops.aten._local_scalar_dense.default else func(*args, **(kwargs or {}))


def _bytes(tensor: Tensor) -> int:
    """That are really there: of a dimension that is expanded, one."""
    size = tensor.element_size()
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        size *= 1 if stride == 0 else length
    return size


@contextlib.contextmanager
def pretended_gpu() -> Iterator[None]:
    """Tensors of the CPU without numbers, and the operations that a GPU would choose for them.

    Torch runs no backward pass of fake CUDA tensors, so the device is called "cpu", and what our code and torch do
    otherwise on a GPU is put in: flash attention, norms in float32, the policy's whole batch, foreach operations.
    """
    plain_norm = F.layer_norm

    def attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None):
        if torch.is_autocast_enabled("cpu"):
            query, key, value = (one.to(torch.get_autocast_dtype("cpu")) for one in (query, key, value))
        return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, False,
                                                                  scale=scale)[0]

    def layer_norm(inputs, *arguments, **options):
        return plain_norm(inputs.float() if torch.is_autocast_enabled("cpu") else inputs, *arguments, **options)

    with contextlib.ExitStack() as stack:
        for target, name, own in ((F, "scaled_dot_product_attention", attention), (F, "layer_norm", layer_norm),
                                  (kernels, "wants_large", lambda _: True),
                                  (kernels, "sums_in_float32", lambda one: one.dtype == torch.bfloat16),
                                  (trajectory_attention.fused, "kernel_fault", lambda *_: None),
                                  (mae, "_same", lambda counts, wanted: wanted),
                                  (pretraining_build, "check_sampler", lambda *_: None),
                                  (torch.nn.Module, "to", lambda self, *_, **__: self),   # all is on one device
                                  (torch.nn.utils.clip_grad, "_has_foreach_support", lambda *_: True)):
            stack.enter_context(mock.patch.object(target, name, own))
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(_NothingToRead())
        yield


def count_step(step, beside: Sequence[Tensor]) -> Ledger:
    """The second call of `step`; the first makes the optimiser's states.

    Args:
        beside: tensors that are alive all the time.
    """
    ledger = Ledger()
    with ledger:
        for tensor in beside:
            ledger.track(tensor)
        step()
        ledger.kernels.clear()
        ledger.peak = ledger.live
        step()
    return ledger


def totals(kernels: Sequence[Kernel]) -> Mapping[str, int]:
    """Sums over the kernels."""
    return {"kernels": sum(one.launches for one in kernels),
            "flops": sum(one.flops + one.vector_flops for one in kernels), "moved": sum(one.moved for one in kernels)}
