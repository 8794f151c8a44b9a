"""The second layer of an MLP, for which only the values before the activation are kept."""

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def keep_no_activation(mlp: Mlp) -> None:
    """Let `mlp` make its GELU's values again in the backward pass: a quarter less of a block's memory, the same bits.

    Names and parameters stay. For an MLP without dropout or norm behind its activation.
    """
    mlp.act, mlp.fc2 = nn.Identity(), GeluLinear(mlp.fc2)


class GeluLinear(nn.Linear):
    """linear(gelu(hidden)) with the parameters of a linear layer.

    Args:
        linear: whose weight and bias it takes over.
    """

    def __init__(self, linear: nn.Linear):
        nn.Module.__init__(self)   # nothing is drawn: random numbers behind this stay what they are
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., K) -> (..., L)."""
        # A compiler decides by itself what it makes again; without gradients nothing is kept.
        if not torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return super().forward(F.gelu(hidden))
        weight, bias, kind = self.weight, self.bias, hidden.device.type
        if torch.is_autocast_enabled(kind):   # which does not reach into the backward pass of a function of our own
            weight, bias = (one.to(torch.get_autocast_dtype(kind)) for one in (weight, bias))
            hidden = hidden.to(weight.dtype)
        return _GeluLinear.apply(hidden, weight, bias)


class _GeluLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        return F.linear(F.gelu(hidden), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        hidden, weight = ctx.saved_tensors
        of_hidden, of_weight, of_bias = ctx.needs_input_grad
        rows = gradient.flatten(0, -2)
        d_weight = rows.t() @ F.gelu(hidden).flatten(0, -2) if of_weight else None
        d_bias = rows.sum(dim=0) if of_bias else None
        d_hidden = torch.ops.aten.gelu_backward(gradient @ weight, hidden) if of_hidden else None
        return d_hidden, d_weight, d_bias
