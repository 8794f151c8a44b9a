"""AdaMAE's token sampler (arXiv 2211.09120), the REINFORCE baseline, with the key names of its checkpoints."""

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ..models.gelu_linear import keep_no_activation
from .grid import TokenGrid
from .sampler import TokenSampler


class AdaMAESampler(TokenSampler):
    """One attention block (8 heads, dropout .1), Linear(D, 1) and softmax on patch embeddings plus learned positions.

    State: `pos_embed_probs (1, N, D)`, `get_token_probs.0.*` and `get_token_probs.1.*`, which AdaMAE's checkpoints
    hold under `encoder.`. Its code sends the logits through nan_to_num, so that a policy that died looks uniform;
    here the engine skips such a step and says so.

    Args:
        grid, embed_dim, mask_ratio, visible: as for TATS.

    Raises:
        ValueError: a width that is no multiple of the number of heads.
    """

    own_positions = True  # sees the bare patch embedding and adds its own positions

    def __init__(self, grid: TokenGrid, embed_dim: int, num_heads: int = 8, dropout: float = 0.1, *,
                 mask_ratio: float = 0.95, visible: int | None = None):
        super().__init__(grid, mask_ratio=mask_ratio, visible=visible)
        if embed_dim % num_heads:
            raise ValueError(f"AdaMAE's sampler has {num_heads} heads, which do not divide the width {embed_dim}")
        self.pos_embed_probs = nn.Parameter(torch.zeros(1, self.grid.num_tokens, embed_dim))
        self.get_token_probs = nn.Sequential(
            Block(embed_dim, num_heads, proj_drop=dropout, norm_layer=nn.LayerNorm),
            nn.Linear(embed_dim, 1),
        )
        self.get_token_probs[0].mlp.drop1 = nn.Identity()  # as published: dropout after the MLP, not inside it
        keep_no_activation(self.get_token_probs[0].mlp)
        for module in self.get_token_probs.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def policy(self, tokens: Tensor) -> tuple[Tensor, None]:
        """Patch embeddings (B, N, D) -> logits (B, N); it has no value network."""
        return self.get_token_probs(tokens + self.pos_embed_probs).squeeze(-1), None
