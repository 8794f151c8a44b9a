"""Eq. 1 of the TATS paper as one operation of torch: a softmax over the places of each frame, for every token.

The weights exist tile by tile on the chip alone. Kept for the backward pass: q, k, v, y~ and a number for each token,
head and frame. Queries are not repeated for the frames, and their gradient is summed over them inside the kernel.

B: clips, N = F * P: tokens of F frames with P places each, h: heads, d: channels of a head, D = h d.
"""

import math

import torch
from torch import Tensor

from .availability import check_tensor, interpreted
from .tiles import WARPS_EQ_1, power_of_two, side

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def fused_trajectories(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Eq. 1, differentiable.

    Args:
        queries: (B, h, N, d), keys, values: (B, h, F, P, d); float32, float16 or bfloat16, any strides.

    Returns:
        y~ (B, N, F, D).

    Raises:
        ValueError: another dtype, or several.
    """
    if len({one.dtype for one in (queries, keys, values)}) > 1 or queries.dtype not in DTYPES:
        raise ValueError("the trajectory kernel takes queries, keys and values of one dtype, float32, float16 or "
                         f"bfloat16, and got {queries.dtype}, {keys.dtype} and {values.dtype}")
    return _trajectories(queries, keys, values)[0].flatten(3)


@torch.library.custom_op("tats::trajectories", mutates_args=())
def _trajectories(queries: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """y~ (B, N, F, h, d), and log2 of the softmax's sums, float32 (B, h, F, N)."""
    # Triton is asked for where a kernel runs, and nowhere else.
    from . import trajectory_kernels as kernels

    check_tensor(queries, queries.shape[-1])
    found, sums = _empty(queries, keys, values)
    batch, heads, tokens, width = queries.shape
    tiles = _tiles(queries)
    kernels.forward[(-(-tokens // tiles["QUERIES"]), batch * heads)](
        queries, keys, values, found, sums, *_geometry(queries, keys, values), _scale(width) / math.log(2),
        **tiles)
    return found, sums


@_trajectories.register_fake
def _empty(queries: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    batch, heads, tokens, width = queries.shape
    return (queries.new_empty(batch, tokens, keys.shape[2], heads, width),
            queries.new_empty(batch, heads, keys.shape[2], tokens, dtype=torch.float32))


@torch.library.custom_op("tats::trajectories_backward", mutates_args=())
def _backward(gradient: Tensor, queries: Tensor, keys: Tensor, values: Tensor, found: Tensor,
              sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q (B, h, N, d) and k, v (B, h, F, P, d)."""
    from . import trajectory_kernels as kernels

    of_queries, of_keys, of_values = _empty_gradients(gradient, queries, keys, values, found, sums)
    batch, heads, tokens, width = queries.shape
    frames, places = keys.shape[2:4]
    delta, gradient = torch.empty_like(sums), gradient.contiguous()
    last, tiles = (*_geometry(queries, keys, values), _scale(width) / math.log(2), _scale(width)), _tiles(queries)
    kernels.backward_queries[(-(-tokens // tiles["QUERIES"]), batch * heads)](
        queries, keys, values, found, gradient, sums, delta, of_queries, *last, **tiles)
    kernels.backward_keys[(-(-places // tiles["KEYS"]), frames, batch * heads)](
        queries, keys, values, gradient, sums, delta, of_keys, of_values, *last, **tiles)
    return of_queries, of_keys, of_values


@_backward.register_fake
def _empty_gradients(gradient, queries, keys, values, found, sums):
    return tuple(one.new_empty(one.shape) for one in (queries, keys, values))


def _keep(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs, *output)
    ctx.mark_non_differentiable(output[1])


def _gradients(ctx, gradient, _) -> tuple[Tensor, ...]:
    return _backward(gradient, *ctx.saved_tensors)


_trajectories.register_autograd(_gradients, setup_context=_keep)


def _geometry(queries: Tensor, keys: Tensor, values: Tensor) -> tuple[int, ...]:
    """Strides and sizes in the order of the kernels' arguments."""
    _, heads, tokens, width = queries.shape
    return (*queries.stride(), *keys.stride(), *values.stride(), heads, tokens, *keys.shape[2:4], width)


def _scale(width: int) -> float:
    return width ** -0.5


def _tiles(queries: Tensor) -> dict[str, int]:
    width = queries.shape[-1]
    square = side(width, queries.element_size())
    return {"QUERIES": square, "KEYS": square, "WIDTH": power_of_two(width, 16), "WIDEN": interpreted(),
            "num_warps": WARPS_EQ_1}
