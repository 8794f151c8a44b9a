"""Eq. 2 of the TATS paper in kernels that keep the (h, D) numbers of each token on the chip.

`temporal_pooling` explains the algebra; `temporal_pooling_large` does the same in large operations, whose tensors of
(tokens, heads, width) go through the GPU's memory.

B: clips, N: tokens, F: frames, D: width, h: heads, d = D / h, R = B N: rows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .availability import check_tensor, interpreted
from .own_frame import in_own_frame
from .tiles import CHANNELS, LEAST_ROWS, SPLITS, WARPS_EQ_2, heads_at_once, power_of_two, rows_at_once


def pool_over_time_fused(trajectories: Tensor, proj_q: torch.nn.Linear, kv_weight: Tensor, num_heads: int) -> Tensor:
    """As `pool_over_time_large`: y~ (B, N, F, D) -> (B, N, D), without the bias of W_v."""
    dtype = trajectories.dtype
    bias = None if proj_q.bias is None else proj_q.bias.to(dtype)
    return _PoolOverTime.apply(trajectories.contiguous(), proj_q.weight.to(dtype), bias,
                               kv_weight.to(dtype).contiguous(), num_heads)


class _PoolOverTime(torch.autograd.Function):
    """The kernels, between the products of q~ with its weight, which torch makes."""

    @staticmethod
    def forward(ctx, trajectories: Tensor, q_weight: Tensor, q_bias: Tensor | None, kv_weight: Tensor,
                heads: int) -> Tensor:
        queries = F.linear(in_own_frame(trajectories).flatten(0, 2), q_weight, q_bias)
        pooled, weights = _pool_rows(queries, trajectories.flatten(0, 1), kv_weight, heads)
        ctx.save_for_backward(trajectories, q_weight, kv_weight, queries, weights)
        ctx.has_bias = q_bias is not None
        return pooled.unflatten(0, trajectories.shape[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        trajectories, q_weight, kv_weight, queries, weights = ctx.saved_tensors
        d_queries, d_trajectories, d_kv = _pool_rows_backward(
            gradient.flatten(0, 1).contiguous(), queries, trajectories.flatten(0, 1), kv_weight, weights)
        d_trajectories = d_trajectories.view_as(trajectories)
        target = in_own_frame(d_trajectories)
        target += (d_queries @ q_weight).view(target.shape)
        return (d_trajectories, d_queries.t() @ in_own_frame(trajectories).flatten(0, 2),
                d_queries.sum(dim=0) if ctx.has_bias else None, d_kv, None)


@torch.library.custom_op("tats::pool_rows", mutates_args=())
def _pool_rows(queries: Tensor, trajectories: Tensor, kv_weight: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """q~ (R, D), y~ (R, F, D) -> Eq. 2 (R, D) and its weights a, float32 (R, h, F)."""
    # Triton is asked for where a kernel runs, and nowhere else.
    from . import pooling_kernels as kernels

    check_tensor(queries, queries.shape[-1] // heads)
    pooled, weights = _empty(queries, trajectories, kv_weight, heads)
    key_weight, value_weight = kv_weight.chunk(2)
    _launch_pool(kernels, (queries, trajectories, key_weight, value_weight, weights, weights, pooled), heads, False)
    return pooled, weights


@_pool_rows.register_fake
def _empty(queries: Tensor, trajectories: Tensor, kv_weight: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    return (torch.empty_like(queries),
            queries.new_empty(len(queries), heads, trajectories.shape[1], dtype=torch.float32))


@torch.library.custom_op("tats::pool_rows_backward", mutates_args=())
def _pool_rows_backward(gradient: Tensor, queries: Tensor, trajectories: Tensor, kv_weight: Tensor,
                        weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q~ (R, D), y~ (R, F, D) and W_k over W_v (2 D, D)."""
    from . import pooling_kernels as kernels

    d_queries, d_trajectories, _ = _empty_gradients(gradient, queries, trajectories, kv_weight, weights)
    rows, frames, dim = trajectories.shape
    heads, d_scores = weights.shape[1], torch.empty_like(weights)
    key_weight, value_weight = kv_weight.chunk(2)
    _launch_pool(kernels, (gradient, trajectories, value_weight, key_weight, weights, d_scores, d_queries), heads, True)
    tiles = _tiles(trajectories, heads)
    kernels.backward_trajectories[(-(-dim // CHANNELS), -(-rows // tiles["ROWS"]))](
        queries, gradient, key_weight, value_weight, weights, d_scores, d_trajectories, rows, frames, heads,
        dim // heads, FRAMES=power_of_two(frames), **tiles)
    tiles["ROWS"] = LEAST_ROWS
    each = -(-rows // (SPLITS * LEAST_ROWS)) * LEAST_ROWS
    splits, together = -(-rows // each), heads_at_once(heads, dim // heads, queries.element_size())
    partial = weights.new_empty(splits, 2 * dim, dim)
    kernels.backward_weights[(heads // together, -(-dim // CHANNELS), splits)](
        queries, gradient, trajectories, weights, d_scores, partial, rows, each, frames, heads, dim // heads,
        HEADS=together, **tiles)
    return d_queries, d_trajectories, partial.sum(dim=0).to(kv_weight.dtype)


@_pool_rows_backward.register_fake
def _empty_gradients(gradient, queries, trajectories, kv_weight, weights):
    return torch.empty_like(queries), torch.empty_like(trajectories), torch.empty_like(kv_weight)


def _launch_pool(kernels, tensors: tuple[Tensor, ...], heads: int, backward: bool) -> None:
    rows, frames, dim = tensors[1].shape
    width, tiles = dim // heads, _tiles(tensors[1], heads)
    together = heads_at_once(heads, width, tensors[1].element_size())
    kernels.pool[(heads // together, -(-rows // tiles["ROWS"]))](
        *tensors, rows, frames, heads, width, width ** -0.5, BACKWARD=backward, HEADS=together,
        FRAMES=power_of_two(frames), **tiles)


def _tiles(trajectories: Tensor, heads: int) -> dict[str, int]:
    _, frames, dim = trajectories.shape
    return {"ROWS": rows_at_once(frames, trajectories.element_size()), "WIDTH": power_of_two(dim // heads, 16),
            "CHANNELS": CHANNELS, "WIDEN": interpreted(), "num_warps": WARPS_EQ_2}
