"""Trajectory attention, forward and backward: ours, and Motionformer's on the same tokens."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from ...models import TrajectoryAttention
from .originals import Clone, motionformer_attention


def attentions(dim: int, heads: int, landmarks: int | None, motionformer: Clone | None) -> dict[str, nn.Module]:
    """The modules, by name. landmarks: of Orthoformer's approximation; None: exact."""
    approx = {} if landmarks is None else {"approx": "orthoformer", "num_landmarks": landmarks}
    found: dict[str, nn.Module] = {"ours": TrajectoryAttention(dim, heads, qkv_bias=True, **approx)}
    if motionformer is not None:
        found["motionformer"] = _WithClassToken(motionformer_attention(motionformer, dim, heads), landmarks)
        # The same weights, so the same landmarks but for the first, which Motionformer draws at random.
        found["motionformer"].attention.load_state_dict(found["ours"].state_dict())
    return found


class _WithClassToken(nn.Module):
    """Motionformer's takes a class token first."""

    def __init__(self, attention: nn.Module, landmarks: int | None):
        super().__init__()
        self.attention = attention
        self.options = {} if landmarks is None else {"approx": "orthoformer", "num_landmarks": landmarks}

    def forward(self, tokens: torch.Tensor, num_frames: int) -> torch.Tensor:
        with_class = torch.cat([tokens[:, :1], tokens], dim=1)
        out, _ = self.attention(with_class, tokens.shape[1] // num_frames, num_frames, **self.options)
        return out[:, 1:]


def contestants(modules: dict[str, nn.Module], tokens: torch.Tensor,
                frames: int) -> dict[str, Callable[[], object]]:
    """Forward and backward of each module on `tokens` (B, N, D), which ask for their gradient as inside a network."""
    tokens = tokens.requires_grad_()
    return {name: partial(_forward_and_backward, module, tokens, frames) for name, module in modules.items()}


def _forward_and_backward(module: nn.Module, tokens: torch.Tensor, frames: int) -> None:
    module.zero_grad(set_to_none=True)
    tokens.grad = None
    module(tokens, frames).square().mean().backward()
