"""Float32 results of half-precision tensors, which the backward pass keeps as they are, not as float32 copies."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import kernels

MOST_BYTES = 64 << 20   # of a float32 tensor that is made of a piece of a batch


def float32_product(inputs: Tensor, weight: Tensor) -> Tensor:
    """inputs (B, N, K) of any float dtype @ weight (L, K) float32, transposed -> float32 (B, N, L).

    The same numbers as `inputs.float() @ weight.t()`, which keeps twice the bytes of bf16 inputs.
    """
    return _Float32Product.apply(inputs, weight)


def gelu_product(inputs: Tensor, weight: Tensor) -> Tensor:
    """gelu(inputs) @ weight, transposed, as `float32_product`; weight is one row (1, K). gelu's values are not kept."""
    return _GeluProduct.apply(inputs, weight)


def squared_errors(prediction: Tensor, target: Tensor) -> Tensor:
    """(prediction - target)^2, mean over the last dimension, float32 (B, M).

    Args:
        prediction: (B, M, C) of any float dtype. target: the same, float32.

    The same numbers as with `prediction.float()`; the differences are made for a few clips at once, and again in the
    backward pass.
    """
    return _SquaredErrors.apply(prediction, target)


class _Float32Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return kernels.float32_mm(inputs.flatten(0, -2), weight.t()).unflatten(0, inputs.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        inputs, weight = ctx.saved_tensors
        d_inputs = d_weight = None
        if ctx.needs_input_grad[0]:
            d_inputs = kernels.outer_product(gradient, weight, inputs.dtype)
        if ctx.needs_input_grad[1]:
            d_weight = kernels.float32_mm(inputs.flatten(0, -2).t(), gradient.flatten(0, -2)).t()
        return d_inputs, d_weight


class _GeluProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return kernels.float32_mm(F.gelu(inputs).flatten(0, -2), weight.t()).unflatten(0, inputs.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        inputs, weight = ctx.saved_tensors
        d_weight = kernels.float32_mm(F.gelu(inputs).flatten(0, -2).t(), gradient.flatten(0, -2)).t()
        slopes = torch.ops.aten.gelu_backward(weight.to(inputs.dtype).expand_as(inputs), inputs)
        return slopes.mul_(gradient), d_weight


class _SquaredErrors(torch.autograd.Function):
    @staticmethod
    def forward(ctx, prediction: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(prediction, target)
        return torch.cat([(prediction[clips] - target[clips]).square_().mean(dim=-1) for clips in pieces(target)])

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        prediction, target = ctx.saved_tensors
        found = torch.empty_like(prediction)
        for clips in pieces(target):
            difference = prediction[clips] - target[clips]
            found[clips] = difference.mul_(2).mul_(gradient[clips, :, None] / target.shape[-1])
        return found, None


def pieces(batch: Tensor) -> list[slice]:
    """Clips of a batch (B, ...) that are taken at once, so that their tensors stay below `MOST_BYTES`."""
    count = max(1, len(batch))   # an empty batch is one piece
    most = math.ceil(count / max(1, min(count, math.ceil(batch.numel() * batch.element_size() / MOST_BYTES))))
    return [slice(start, start + most) for start in range(0, count, most)]
