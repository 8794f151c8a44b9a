"""Eq. 2 of the TATS paper in few large operations, for GPUs; `temporal_pooling` explains the algebra.

The tokens that look come first, (B, N, F, D): a token's trajectory is then one small matrix, and all products are
batches of them. What is made between them is (B N, h, D), more than the trajectories themselves: it is made for so many
tokens at once that it stays below a number of bytes, and again in the backward pass.

R: rows, tokens of all clips, F: frames, D: width, h: heads, d = D / h.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .fused.own_frame import in_own_frame

MOST_BYTES = 512 << 20   # of the four tensors (R, h, D) of the backward pass


def pool_over_time_large(trajectories: Tensor, proj_q: torch.nn.Linear, kv_weight: Tensor, num_heads: int) -> Tensor:
    """As `pool_over_time`, of trajectories y~ (B, N, F, D)."""
    dtype = trajectories.dtype
    bias = None if proj_q.bias is None else proj_q.bias.to(dtype)
    trajectories = trajectories.contiguous()   # as attention's kernels write them; rows are views from here on
    return _PoolOverTime.apply(trajectories, proj_q.weight.to(dtype), bias, kv_weight.to(dtype), num_heads)


class _PoolOverTime(torch.autograd.Function):
    @staticmethod
    def forward(ctx, trajectories: Tensor, q_weight: Tensor, q_bias: Tensor | None, kv_weight: Tensor,
                heads: int) -> Tensor:
        dim = trajectories.shape[-1]
        key_weight, value_weight = kv_weight.view(2, heads, dim // heads, dim)
        queries = F.linear(in_own_frame(trajectories).flatten(0, 2), q_weight, q_bias)
        weights, pooled = [], torch.empty_like(queries)
        for rows in _pieces(trajectories, heads):
            along = trajectories.flatten(0, 1)[rows]                                  # (R, F, D)
            absorbed = torch.bmm(_per_head(queries[rows], heads), key_weight)         # W_k^T q~, (h, R, D)
            scores = torch.bmm(absorbed.transpose(0, 1), along.transpose(1, 2)) * (dim // heads) ** -0.5
            weights.append(scores.float().softmax(dim=-1) if scores.dtype != torch.float64 else scores.softmax(dim=-1))
            mixed = torch.bmm(weights[-1].to(along.dtype), along)                     # sum a y~, (R, h, D)
            torch.bmm(mixed.transpose(0, 1), value_weight.transpose(1, 2), out=_per_head(pooled[rows], heads))
        ctx.save_for_backward(trajectories, q_weight, kv_weight, queries, torch.cat(weights))
        ctx.has_bias = q_bias is not None
        return pooled.unflatten(0, trajectories.shape[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        trajectories, q_weight, kv_weight, queries, all_weights = ctx.saved_tensors
        heads, dim = all_weights.shape[1], trajectories.shape[-1]
        key_weight, value_weight = kv_weight.view(2, heads, dim // heads, dim)
        d_trajectories, d_queries = torch.empty_like(trajectories), torch.empty_like(queries)
        d_kv = torch.zeros_like(kv_weight)
        d_key, d_value = d_kv.view(2, heads, dim // heads, dim)
        gradient = gradient.flatten(0, 1)
        for rows in _pieces(trajectories, heads):
            along, weights = trajectories.flatten(0, 1)[rows], all_weights[rows]
            of_queries, d_pooled = _per_head(queries[rows], heads), _per_head(gradient[rows], heads)
            both = along.new_empty(2, heads, len(along), dim)
            absorbed, d_mixed = both                                                  # W_k^T q~; of sum a y~
            torch.bmm(of_queries, key_weight, out=absorbed)
            torch.bmm(d_pooled, value_weight, out=d_mixed)
            d_weights = torch.bmm(d_mixed.transpose(0, 1), along.transpose(1, 2)).to(weights.dtype)
            d_scores = weights * (d_weights - (weights * d_weights).sum(dim=-1, keepdim=True)) * (dim // heads) ** -0.5
            coefficients = torch.cat([d_scores, weights], dim=1).to(along.dtype)      # (R, 2 h, F)
            torch.bmm(coefficients.transpose(1, 2), both.flatten(0, 1).transpose(0, 1),
                      out=d_trajectories.flatten(0, 1)[rows])
            d_absorbed, mixed = torch.bmm(coefficients, along).split(heads, dim=1)
            d_value.baddbmm_(d_pooled.transpose(1, 2), mixed.transpose(0, 1))
            d_key.baddbmm_(of_queries.transpose(1, 2), d_absorbed.transpose(0, 1))
            torch.bmm(d_absorbed.transpose(0, 1), key_weight.transpose(1, 2), out=_per_head(d_queries[rows], heads))
        own = in_own_frame(trajectories).flatten(0, 2)
        d_bias = d_queries.sum(dim=0) if ctx.has_bias else None
        target = in_own_frame(d_trajectories)
        target += (d_queries @ q_weight).unflatten(0, (len(target), trajectories.shape[2], -1))
        return d_trajectories, d_queries.t() @ own, d_bias, d_kv, None


def _pieces(trajectories: Tensor, heads: int) -> list[slice]:
    """Rows that are taken at once."""
    rows = trajectories.shape[0] * trajectories.shape[1]
    pieces = math.ceil(4 * rows * heads * trajectories.shape[3] * trajectories.element_size() / MOST_BYTES)
    most = math.ceil(rows / min(rows, pieces))
    return [slice(start, min(start + most, rows)) for start in range(0, rows, most)]


def _per_head(tokens: Tensor, heads: int) -> Tensor:
    """(R, D) -> (h, R, d)."""
    return tokens.unflatten(-1, (heads, -1)).transpose(0, 1)
