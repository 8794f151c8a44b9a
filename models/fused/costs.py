"""What the fused operations ask of a GPU, for the estimate of a step: FLOPs and bytes of their kernels.

Counted is what the kernels do: products that the backward pass makes again, and places that pad a frame to whole tiles.
Bytes are those of the GPU's memory. A tensor that several programs read at about the same time comes from the cache and
counts once; the trajectories count once for every pass over them. The cache's own traffic is not counted.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from .tiles import SPLITS, side


class Cost(NamedTuple):
    """flops: of matrix products. vector_flops: beside the matrix units, in float32. moved: bytes. launches: kernels.
    scratch: bytes that the operation allocates and gives back."""

    flops: int
    vector_flops: int
    moved: int
    launches: int
    scratch: int = 0


def cost_of(name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Cost | None:
    """Of one operation of this room; None for any other name."""
    count = _COSTS.get(name)
    return None if count is None else count(inputs, outputs)


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum(one.numel() * one.element_size() for one in tensors)


def _scores(queries: Tensor, keys: Tensor) -> int:
    """FLOPs of one product of all queries with all keys."""
    batch, heads, tokens, width = queries.shape
    tile = side(width, queries.element_size())
    return 2 * batch * heads * tokens * keys.shape[2] * -(-keys.shape[3] // tile) * tile * width


def _trajectories(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Cost:
    return Cost(2 * _scores(*inputs[:2]), 0, _bytes(inputs) + _bytes(outputs), 1)


def _trajectories_backward(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Cost:
    gradient, queries, keys, values, found, sums = inputs
    twice = _bytes((gradient, queries, keys, values, sums, sums))   # the second `sums` stands for delta
    return Cost(7 * _scores(queries, keys), 0, 2 * twice + _bytes((found, *outputs)), 2, _bytes((sums,)))


def _pool(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Cost:
    queries, trajectories, weights = inputs
    return Cost(2 * _projection(queries), 2 * _mix(queries, trajectories, outputs[1]),
                _bytes((queries, trajectories, trajectories, weights, *outputs)), 1)


def _pool_backward(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Cost:
    gradient, queries, trajectories, kv_weight, weights = inputs
    first = (gradient, trajectories, trajectories, kv_weight, weights, weights, outputs[0])   # weights: a, and dS
    second = (gradient, queries, kv_weight, weights, weights, outputs[1])
    third = (gradient, queries, trajectories, weights, weights, outputs[2])
    partial = 4 * SPLITS * kv_weight.numel()   # written by the third kernel, and summed by torch
    return Cost(6 * _projection(queries), 6 * _mix(queries, trajectories, weights),
                _bytes((*first, *second, *third)) + 2 * partial, 4, _bytes((weights,)) + partial)


def _projection(queries: Tensor) -> int:
    """FLOPs of (R, D) with a matrix (D, D)."""
    return 2 * queries.numel() * queries.shape[-1]


def _mix(queries: Tensor, trajectories: Tensor, weights: Tensor) -> int:
    """FLOPs of one product of each row's (h, F) with its (F, D)."""
    return 2 * weights.numel() * trajectories.shape[-1]


_COSTS: dict[str, Callable[[Sequence[Tensor], Sequence[Tensor]], Cost]] = {
    "trajectories": _trajectories, "trajectories_backward": _trajectories_backward,
    "pool_rows": _pool, "pool_rows_backward": _pool_backward,
}
