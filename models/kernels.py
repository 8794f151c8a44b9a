"""Which form of a computation a device wants, and what it can."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def wants_large(tensor: Tensor) -> bool:
    """Whether the device of `tensor` is fastest with few large operations, as a GPU is. A CPU is faster with pieces
    whose tensors stay in its cache. Both forms of a computation give the same numbers, to rounding."""
    return tensor.device.type != "cpu"


def sums_in_float32(tensor: Tensor) -> bool:
    """Whether its device multiplies matrices in bfloat16 and gives the sums as float32 (CUDA, from torch 2.8)."""
    return (tensor.dtype == torch.bfloat16 and tensor.device.type == "cuda"
            and "dtype" in torch.ops.aten.mm.overloads())


def float32_mm(half: Tensor, other: Tensor) -> Tensor:
    """half (R, K) of any float dtype @ other (K, L) float32 -> float32 (R, L).

    The same numbers as `half.float() @ other`, to the order of the sums. Where the device can, `half` is not copied:
    `other` is written as three matrices in bfloat16, whose sum is exact, and all products of two such numbers are.
    """
    if not sums_in_float32(half):
        return half.float() @ other
    parts, rest = [], other
    for _ in range(3):
        parts.append(rest.to(torch.bfloat16))
        rest = rest - parts[-1].float()
    found = torch.mm(half, torch.cat(parts, dim=1), out_dtype=torch.float32)
    return found.unflatten(1, (3, -1)).sum(dim=1)


def outer_product(gradient: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """gradient (..., L) @ weight (L, K), both float32 -> `dtype` (..., K)."""
    if len(weight) > 1 or not wants_large(gradient) or torch.compiler.is_compiling():
        return (gradient @ weight).to(dtype)
    # One product a number: rounded where it is written, without a float32 copy of the whole.
    return torch.mul(gradient, weight, out=gradient.new_empty(*gradient.shape[:-1], weight.shape[1], dtype=dtype))


def linear_after_norm(tokens: Tensor, norm: nn.LayerNorm, linear: nn.Linear) -> Tensor:
    """linear(norm(tokens)) with the norm's scale and shift moved into the weights."""
    bias = linear.weight @ norm.bias
    return F.linear(_normed(tokens, norm), linear.weight * norm.weight,
                    bias if linear.bias is None else bias + linear.bias)


def _normed(tokens: Tensor, norm: nn.LayerNorm) -> Tensor:
    if not wants_large(tokens):
        return F.layer_norm(tokens, norm.normalized_shape, eps=norm.eps)
    # Autocast would make a float32 copy before and another one behind; the kernel computes in float32 all the same.
    with torch.autocast(tokens.device.type, enabled=False):
        return F.layer_norm(tokens, norm.normalized_shape, eps=norm.eps)
