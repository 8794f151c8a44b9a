"""TATS, the trajectory-aware adaptive token sampler g_theta (Sec. 3.2 of arXiv 2505.08561).

B: clips, N: tokens, D: embedding dimension, N_v: visible tokens.
"""

import math
from collections.abc import Callable, Sequence

import torch
from timm.layers import Mlp
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

from ..models import TrajectoryAttention, kernels
from ..models.mixed_precision import float32_product, gelu_product
from .grid import TokenGrid, checked_visible
from .gumbel import Draw, gumbel_top_k
from .merging import cells_of
from .sampler import TokenSampler


class SamplerBlock(nn.Module):
    """Pre-norm attention and MLP, both residual: AdaMAE's sampler block with its attention exchanged.

    The paper writes Z = TA(X) (Eq. 3) and draws a "block of TA"; without norm, residuals and MLP a prototype ranked
    moving tokens clearly worse (AUROC .84 instead of .92).

    Args:
        attention: (B, N, D) -> (B, N, D).
    """

    def __init__(self, dim: int, attention: nn.Module):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = attention
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = self.attend(tokens)
        return tokens + self.mlp(self.norm2(tokens))

    def attend(self, tokens: Tensor) -> Tensor:
        """The block's first half."""
        return tokens + self.attn(self.norm1(tokens))

    def read(self, tokens: Tensor, head: nn.Linear) -> Tensor:
        """head(self(tokens)), float32 (B, N, 1), where the block's output serves nothing else.

        The head is linear, and so is the MLP's second layer: their product, one row, replaces both. The product and
        the sum are computed in float32: bf16 would make log-probabilities wrong by about 3 %, and the ratio
        pi / pi_old with them.
        """
        tokens = self.attend(tokens)
        large = kernels.wants_large(tokens)
        hidden = kernels.linear_after_norm(tokens, self.norm2, self.mlp.fc1) if large else \
            self.mlp.act(self.mlp.fc1(self.norm2(tokens)))
        with torch.autocast(tokens.device.type, enabled=False):
            weight = head.weight @ self.mlp.fc2.weight                                # (1, 4 D)
            if large:   # no float32 copy of the tokens, and the activation is made again in the backward pass
                return float32_product(tokens, head.weight) + head(self.mlp.fc2.bias) + gelu_product(hidden, weight)
            return head(tokens.float() + self.mlp.fc2.bias) + float32_product(hidden, weight)


class TrajectoryBlock(SamplerBlock):
    """SamplerBlock over the tokens of `num_frames` frames."""

    def __init__(self, dim: int, num_heads: int, num_frames: int, **attention):
        super().__init__(dim, TrajectoryAttention(dim, num_heads, qkv_bias=True, **attention))
        self.num_frames = num_frames

    def attend(self, tokens: Tensor) -> Tensor:
        return tokens + self.attn(tokens, self.num_frames, self.norm1)


class TATS(TokenSampler):
    """g_theta(X) = (pi_theta(X), psi_theta(X_mu)), Eq. 5: a policy over the N tokens and a value of the clip.

    No dropout anywhere: the policy that is evaluated must be the policy that drew.

    Args:
        grid: (T', H', W').
        embed_dim: D, the width of the tokens.
        mask_ratio: rho; `visible` gives N_v directly instead.
        num_heads: heads of the attention (None: 64 channels each, as ViT-B).
        depth: number of blocks (Table 3e).
        attention: "trajectory" (Eqs. 1-2) or "mha", joint space-time attention (Table 3a).
        approx, num_landmarks: "orthoformer" replaces exact trajectory attention by its approximation.
        project_values: False takes y~ itself for v~ in Eq. 2, see `TrajectoryAttention`.
        head_init: "zeros" starts from the uniform policy; "xavier" from a peaky random one that the paper's learning
            rate of 1.5e-6 hardly moves.
        softmax_temp: divides the logits (Table 4: 1).
        merge: tokens of a cell along time, height and width; None: one. Cells of several are averaged before the
            blocks, which then cost as much less; a token's logit is its cell's, and the head's number of what the
            token differs from its cell by. Not in the paper.
        block: tokens along time, height and width that are shown or hidden as one, (1, H', W') for whole frames; None:
            one. Their logits are averaged, so that log pi is the same in a block. Not in the paper.

    Raises:
        ValueError: unknown attention or head_init, a width that the heads do not divide, such cells or blocks, or a
            number of visible tokens that is no whole number of blocks.
    """

    def __init__(self, grid: TokenGrid, embed_dim: int, num_heads: int | None = None, depth: int = 1,  # noqa: PLR0913 - one keyword a row of Tables 3-4
                 attention: str = "trajectory", *, mask_ratio: float = 0.95, visible: int | None = None,
                 approx: str = "none", num_landmarks: int = 128, project_values: bool = True,
                 head_init: str = "zeros", softmax_temp: float = 1.0,
                 merge: Sequence[int] | None = None, block: Sequence[int] | None = None):
        super().__init__(grid, mask_ratio=mask_ratio, visible=visible)
        self.softmax_temp = softmax_temp
        self.cells = cells_of(self.grid, merge or (1, 1, 1))
        self.block = cells_of(self.grid, block or (1, 1, 1), "--tats_block")
        checked_visible(self.grid, self.num_visible, unit=self.block.tokens)
        num_heads = num_heads or max(1, embed_dim // 64)
        if embed_dim % num_heads:
            raise ValueError(f"the sampler's {num_heads} heads do not divide its width {embed_dim}")
        make_block = self._block_maker(attention, embed_dim, num_heads, approx=approx, num_landmarks=num_landmarks,
                                      project_values=project_values)
        self.blocks = nn.Sequential(*(make_block() for _ in range(depth)))
        self.policy_head = nn.Linear(embed_dim, 1)
        # The value network's width is N; the paper's Linear(1568) -> 784 -> 1 is N of 16 x 224 x 224.
        num_tokens = self.grid.num_tokens
        self.value_net = nn.Sequential(nn.Linear(num_tokens, num_tokens // 2), nn.ReLU(),
                                       nn.Linear(num_tokens // 2, 1))
        self._init_weights(head_init)

    def _block_maker(self, attention: str, dim: int, heads: int, **options) -> Callable[[], nn.Module]:
        if attention == "trajectory":
            return lambda: TrajectoryBlock(dim, heads, self.cells.coarse.frames, **options)
        if attention == "mha":
            return lambda: SamplerBlock(dim, Attention(dim, heads, qkv_bias=True))
        raise ValueError(f"the sampler's attention must be 'trajectory' or 'mha', got {attention!r}")

    def _init_weights(self, head_init: str) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if head_init == "zeros":
            nn.init.zeros_(self.policy_head.weight)
        elif head_init != "xavier":
            raise ValueError(f"head_init must be 'zeros' or 'xavier', got {head_init!r}")

    def policy(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The logits of pi_theta(X), (B, N), and psi_theta(X_mu), float32 (B,): Eqs. 3-5."""
        with torch.autocast(tokens.device.type, enabled=False):
            mean = tokens.mean(dim=-1, dtype=torch.float32)                           # X_mu, over the channels
            value = self.value_net(mean).squeeze(-1)                                  # psi(X_mu)
        logits = self._logits(tokens)
        if not self.block.is_fine:
            logits = self.block.spread(self.block.mean(logits[..., None]).squeeze(-1))
        return logits, value

    def _logits(self, tokens: Tensor) -> Tensor:
        """Z = TA(X) (Eq. 3), no norm after it, as in AdaMAE's sampler, and the head's number of each token (B, N)."""
        if len(tokens) > 1 and not kernels.wants_large(tokens):   # one clip's tensors are more than the cache holds
            return torch.cat([self._logits(clip) for clip in tokens.split(1)])
        if self.cells.is_fine:
            return self._read(tokens) / self.softmax_temp
        with torch.autocast(tokens.device.type, enabled=False):
            own = float32_product(tokens, self.policy_head.weight)                    # head(X) without its bias
        own = own - self.cells.spread(self.cells.mean(own).squeeze(-1))[..., None]
        return (self.cells.spread(self._read(self.cells.mean(tokens))) + own.squeeze(-1)) / self.softmax_temp

    def _read(self, tokens: Tensor) -> Tensor:
        return self.blocks[-1].read(self.blocks[:-1](tokens), self.policy_head).squeeze(-1)

    @property
    def least_entropy(self) -> float:
        """As `TokenSampler.least_entropy`: the tokens of a block are equally likely."""
        return math.log(self.block.tokens)

    def draw(self, log_pi: Tensor, keys: Tensor | None = None, stream: int = 0, visible: int | None = None) -> Draw:
        """As `TokenSampler.draw`; of blocks, where they are shown as one. kappa is then that of a block's tokens, since
        a constant that is added to all logits moves it as much."""
        if self.block.is_fine:
            return super().draw(log_pi, keys, stream, visible)
        unit = self.block.tokens
        count = checked_visible(self.grid, visible or self.num_visible, unit) // unit
        drawn = gumbel_top_k(self.block.first(log_pi), count, keys, stream)
        return Draw(self.block.spread(drawn.mask), drawn.threshold)

    def trajectories(self, tokens: Tensor, query_index: Tensor) -> Tensor:
        """As `TokenSampler.trajectories`: Eq. 1's weights in the last block, mean of the heads."""
        last = self.blocks[-1]
        if not isinstance(last, TrajectoryBlock):
            return super().trajectories(tokens, query_index)
        tokens = self.blocks[:-1](self.cells.mean(tokens))
        cells = self.cells.of(query_index.to(tokens.device))
        maps = last.attn.trajectory_maps(last.norm1(tokens), last.num_frames, cells).mean(dim=1)[0]   # (Q, F, P)
        spread = self.cells.spread(maps.flatten(1)).view(len(maps), self.grid.frames, -1)
        return spread / spread.sum(dim=-1, keepdim=True)                              # a distribution in each frame
