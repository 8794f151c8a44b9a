"""AdaMAE's token sampler (arXiv 2211.09120), the REINFORCE baseline, with the key names of its checkpoints."""

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from .grid import TokenGrid, checked_visible, num_visible
from .gumbel import Draw, gumbel_top_k


class AdaMAESampler(nn.Module):
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
        super().__init__()
        self.grid = TokenGrid(*grid)
        self.num_visible = checked_visible(self.grid, visible or num_visible(self.grid, mask_ratio))
        if embed_dim % num_heads:
            raise ValueError(f"AdaMAE's sampler has {num_heads} heads, which do not divide the width {embed_dim}")
        self.pos_embed_probs = nn.Parameter(torch.zeros(1, self.grid.num_tokens, embed_dim))
        self.get_token_probs = nn.Sequential(
            Block(embed_dim, num_heads, proj_drop=dropout, norm_layer=nn.LayerNorm),
            nn.Linear(embed_dim, 1),
        )
        self.get_token_probs[0].mlp.drop1 = nn.Identity()  # as published: dropout after the MLP, not inside it
        for module in self.get_token_probs.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor, log: bool = False) -> tuple[Tensor, None]:
        """Patch embeddings (B, N, D) -> probabilities float32 (B, N) (`log`: their logarithms); it has no value net.

        Raises:
            ValueError: the tokens are not those of this grid.
        """
        if tokens.shape[1] != self.grid.num_tokens:
            raise ValueError(f"the sampler was built for {self.grid.num_tokens} tokens "
                             f"({'x'.join(map(str, self.grid))}), got {tokens.shape[1]}")
        logits = self.get_token_probs(tokens + self.pos_embed_probs).squeeze(-1)
        log_pi = logits.float().log_softmax(dim=-1)
        return (log_pi if log else log_pi.exp()), None

    def draw(self, log_pi: Tensor, keys: Tensor | None = None, stream: int = 0) -> Draw:
        """N_v tokens without replacement; the law of `torch.multinomial`, which AdaMAE calls."""
        return gumbel_top_k(log_pi, self.num_visible, keys, stream)

    def sample(self, probabilities: Tensor) -> Tensor:
        """bool (B, N), True = masked."""
        return self.draw(probabilities.float().log()).mask
