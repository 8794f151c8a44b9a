"""Trajectory attention, forward and backward: ours, and Motionformer's on the same tokens."""

from collections.abc import Callable

import torch
from torch import nn

from ...models import TrajectoryAttention
from .originals import Clone, motionformer_attention
from .timing import entered, saved_mib

CHANNELS = 64   # of a head


def contestants(dim: int, landmarks: int | None, motionformer: Clone | None, tokens: torch.Tensor,
                frames: int) -> dict[str, Callable[[], object]]:
    """Forward and backward of each attention on `tokens` (B, N, dim), which ask for their gradient as inside a network.

    Args:
        landmarks: of Orthoformer's approximation; None: exact. motionformer: clone to compare with.
    """
    tokens = tokens.requires_grad_()
    approx = {} if landmarks is None else {"approx": "orthoformer", "num_landmarks": landmarks}
    ours = TrajectoryAttention(dim, dim // CHANNELS, qkv_bias=True, **approx)
    found: dict[str, Callable[[], object]] = {"ours": ForwardAndBackward(ours, tokens, frames)}
    if motionformer is not None:
        # The same weights, so the same landmarks but for the first, which Motionformer draws at random.
        found["motionformer"] = entered(lambda: ForwardAndBackward(
            _WithClassToken(motionformer, ours, landmarks), tokens, frames))
    return found


class ForwardAndBackward:
    """One call is a forward and a backward pass of `module` on `tokens`."""

    def __init__(self, module: nn.Module, tokens: torch.Tensor, frames: int):
        self.module, self.tokens, self.frames = module.to(tokens.device), tokens, frames

    def __call__(self) -> None:
        self.module.zero_grad(set_to_none=True)
        self.tokens.grad = None
        self.module(self.tokens, self.frames).square().mean().backward()

    def saved_mib(self) -> float:
        """Of activations, kept for the backward pass."""
        return saved_mib(self, [self.tokens, *self.module.parameters()])


class _WithClassToken(nn.Module):
    """Motionformer's takes a class token first. It has the weights of `ours`."""

    def __init__(self, clone: Clone, ours: TrajectoryAttention, landmarks: int | None):
        super().__init__()
        self.clone, self.attention = clone, motionformer_attention(clone, ours.proj.in_features, ours.num_heads)
        self.attention.load_state_dict(ours.state_dict())
        self.options = {} if landmarks is None else {"approx": "orthoformer", "num_landmarks": landmarks}

    def forward(self, tokens: torch.Tensor, num_frames: int) -> torch.Tensor:
        with_class = torch.cat([tokens[:, :1], tokens], dim=1)
        with self.clone.code():
            out, _ = self.attention(with_class, tokens.shape[1] // num_frames, num_frames, **self.options)
        return out[:, 1:]

