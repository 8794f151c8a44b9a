"""Eq. 2 of the TATS paper: along its trajectory, which frames matter to a token. One frame's tokens at a time.

The products with a token's F trajectory tokens are small and wait for memory. Taken for P tokens at once, the
(P, h, D) tensors between them stay in the processor's cache, and none is kept: the backward pass makes them again.

B: clips, N = F * P: tokens of F frames with P places each, D: width, h: heads, d = D / h.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def pool_over_time(trajectories: Tensor, proj_q: torch.nn.Linear, kv_weight: Tensor, num_heads: int) -> Tensor:
    """sum_t' a W_v y~_stt' with a = softmax_t'(q~ . W_k y~_stt' / sqrt d), q~ from y~_stt of the token's own frame.

    Both projections stand outside the sum over frames: (W_k^T q~) . y~ and W_v (sum a y~).

    Args:
        trajectories: y~ (B, F, N, D), the frame looked at before the token that looks.
        proj_q: D -> D. kv_weight: (2 D, D), W_k over W_v.

    Returns:
        (B, N, D), without the bias of W_v.
    """
    dtype = trajectories.dtype
    bias = None if proj_q.bias is None else proj_q.bias.to(dtype)
    return _PoolOverTime.apply(trajectories, proj_q.weight.to(dtype), bias, kv_weight.to(dtype), num_heads)


def plain_pool_over_time(trajectories: Tensor, proj_q: torch.nn.Linear, proj_kv: torch.nn.Linear,
                         num_heads: int) -> Tensor:
    """Eq. 2 as it stands, for reading and as the test's reference: every key and value is made.

    Args:
        trajectories: y~ (B, F, N, D).

    Returns:
        (B, N, D), with the bias of W_v.
    """
    frames, tokens = trajectories.shape[1:3]
    along = trajectories.transpose(1, 2)                                              # y~_st., (B, N, F, D)
    own = along[:, torch.arange(tokens), torch.arange(tokens) // (tokens // frames)]  # y~_stt
    queries = proj_q(own).unflatten(-1, (num_heads, 1, -1))                           # (B, N, h, 1, d)
    keys, values = (one.unflatten(-1, (num_heads, -1)).transpose(2, 3) for one in proj_kv(along).chunk(2, dim=-1))
    return F.scaled_dot_product_attention(queries, keys, values).flatten(2)


class _PoolOverTime(torch.autograd.Function):
    """Heads come first in what multiplies weights, (h, B P, ...), tokens first in what multiplies trajectories.

    The largest tensors are made once and written again for every frame: fresh memory costs more than the product.
    """

    @staticmethod
    def forward(ctx, trajectories: Tensor, q_weight: Tensor, q_bias: Tensor | None, kv_weight: Tensor,
                heads: int) -> Tensor:
        batch, num_frames, num_tokens, dim = trajectories.shape
        key_weight, value_weight = kv_weight.view(2, heads, dim // heads, dim)
        rows = batch * num_tokens // num_frames
        queries = trajectories.new_empty(num_frames, heads, rows, dim // heads)
        absorbed, mixed = trajectories.new_empty(heads, rows, dim), trajectories.new_empty(rows, heads, dim)
        weights, pooled = [], []
        for frame, (own, along) in enumerate(_frames(trajectories)):
            queries[frame] = _per_head(F.linear(own, q_weight, q_bias), heads)
            torch.bmm(queries[frame], key_weight, out=absorbed)                       # W_k^T q~
            scores = torch.bmm(absorbed.transpose(0, 1), along.transpose(1, 2)) * (dim // heads) ** -0.5
            weights.append(_at_least_float32(scores).softmax(dim=-1))                 # a, (B P, h, F)
            torch.bmm(weights[-1].to(along.dtype), along, out=mixed)                  # sum a y~
            of_heads = torch.bmm(mixed.transpose(0, 1), value_weight.transpose(1, 2))
            pooled.append(_heads_last(of_heads).view(batch, -1, dim))
        ctx.save_for_backward(trajectories, q_weight, kv_weight, queries, torch.stack(weights))
        ctx.has_bias = q_bias is not None
        return torch.cat(pooled, dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        trajectories, q_weight, kv_weight, queries, all_weights = ctx.saved_tensors
        heads, dim = queries.shape[1], trajectories.shape[3]
        scale = (dim // heads) ** -0.5
        key_weight, value_weight = kv_weight.view(2, heads, dim // heads, dim)
        d_trajectories, d_kv, d_q = (torch.empty_like(trajectories), torch.zeros_like(kv_weight),
                                     torch.zeros_like(q_weight))
        d_key, d_value = d_kv.view(2, heads, dim // heads, dim)
        d_bias = q_weight.new_zeros(dim) if ctx.has_bias else None
        gradients = gradient.unflatten(1, (trajectories.shape[1], -1)).unbind(1)
        rows = trajectories.shape[0] * gradients[0].shape[1]
        both = trajectories.new_empty(2, heads, rows, dim)   # W_k^T q~, and the gradient of sum a y~
        absorbed, d_mixed = both
        mixed, d_absorbed = trajectories.new_empty(2, rows, heads, dim)
        d_along = trajectories.new_empty(rows, len(all_weights), dim)
        for frame, (own, along) in enumerate(_frames(trajectories)):
            weights, frame_queries = all_weights[frame], queries[frame]
            d_pooled = _per_head(gradients[frame].reshape(rows, dim), heads)
            torch.bmm(d_pooled, value_weight, out=d_mixed)
            torch.bmm(weights.to(along.dtype), along, out=mixed)
            d_value.baddbmm_(d_pooled.transpose(1, 2), mixed.transpose(0, 1))
            torch.bmm(frame_queries, key_weight, out=absorbed)
            d_weights = _at_least_float32(torch.bmm(d_mixed.transpose(0, 1), along.transpose(1, 2)))
            d_scores = weights * (d_weights - (weights * d_weights).sum(dim=-1, keepdim=True)) * scale
            coefficients = torch.cat([d_scores, weights], dim=1).to(along.dtype)      # (B P, 2 h, F)
            torch.bmm(coefficients.transpose(1, 2), both.flatten(0, 1).transpose(0, 1), out=d_along)
            torch.bmm(coefficients[:, :heads], along, out=d_absorbed)
            d_key.baddbmm_(frame_queries.transpose(1, 2), d_absorbed.transpose(0, 1))
            d_queries = _heads_last(torch.bmm(d_absorbed.transpose(0, 1), key_weight.transpose(1, 2)))
            d_q.addmm_(d_queries.t(), own)
            if d_bias is not None:
                d_bias += d_queries.sum(dim=0)
            target = d_trajectories.unflatten(2, (len(all_weights), -1))[:, :, frame]
            target.copy_(d_along.unflatten(0, (len(target), -1)).transpose(1, 2))
            target[:, frame] += (d_queries @ q_weight).view_as(target[:, frame])
        return d_trajectories, d_q, d_bias, d_kv, None


def _frames(trajectories: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """For the tokens of each frame: their trajectory token in that frame, (B P, D), and in all of them, (B P, F, D)."""
    by_frame = trajectories.unflatten(2, (trajectories.shape[1], -1))
    for frame in range(trajectories.shape[1]):
        along = by_frame[:, :, frame]
        yield along[:, frame].flatten(0, 1), along.transpose(1, 2).flatten(0, 1)


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _per_head(tokens: Tensor, heads: int) -> Tensor:
    """(B P, D) -> (h, B P, d)."""
    return tokens.unflatten(-1, (heads, -1)).transpose(0, 1)


def _heads_last(tokens: Tensor) -> Tensor:
    """(h, B P, d) -> (B P, D)."""
    return tokens.transpose(0, 1).flatten(1)
