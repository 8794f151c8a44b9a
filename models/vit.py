"""VideoMAE's vision transformer: tubelet embedding, blocks, and the classifier for fine-tuning.

The blocks are timm's BEiT blocks, which have VideoMAE's very parameters: q_bias and v_bias beside a qkv without bias,
gamma_1 and gamma_2 when init_values > 0, and attention through scaled_dot_product_attention.

B: clips, T: frames, N: tokens = T/tubelet * H/patch * W/patch, D: embedding dimension.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from timm.models.beit import Block
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .gelu_linear import keep_no_activation
from .positions import FixedPositions, position_table

DEFAULT_NORM = partial(nn.LayerNorm, eps=1e-6)
MAX_TOKENS = 1 << 18   # 512 frames of 512 x 512; more is a slip, or a file that wants the machine's memory


def to_pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) from one number or two."""
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


class TubeletProjection(nn.Conv3d):
    """The convolution of a patch embedding, whose kernel is its stride, as the one matrix product that it is.

    Its parameters, their names and their shapes are the convolution's, so that checkpoints fit. On GPUs a bf16
    convolution in three dimensions may have no fast kernel; sums run in another order, so values differ from the
    convolution's in their last bits.
    """

    def forward(self, tubelets: Tensor) -> Tensor:
        """Pixels (..., C * tubelet * patch * patch) -> (..., D)."""
        return F.linear(tubelets, self.weight.flatten(1), self.bias)


class PatchEmbed(nn.Module):
    """Tubelets of `tubelet_size` frames x patch x patch pixels -> tokens.

    Raises:
        ValueError: frames or size that the tubelet or the patch do not divide.
    """

    def __init__(self, img_size: int | tuple[int, int] = 224, patch_size: int = 16, in_chans: int = 3,
                 embed_dim: int = 768, num_frames: int = 16, tubelet_size: int = 2):
        super().__init__()
        self.img_size, self.patch_size, self.tubelet_size = to_pair(img_size), to_pair(patch_size), tubelet_size
        self.num_frames = num_frames
        if num_frames % tubelet_size:
            raise ValueError(f"num_frames {num_frames} is not a multiple of the tubelet size {tubelet_size}")
        if any(size % patch for size, patch in zip(self.img_size, self.patch_size, strict=True)):
            raise ValueError(f"input size {self.img_size} is not a multiple of the patch size {self.patch_size}")
        self.grid = (num_frames // tubelet_size, self.img_size[0] // self.patch_size[0],
                     self.img_size[1] // self.patch_size[1])
        self.num_patches = self.grid[0] * self.grid[1] * self.grid[2]
        if self.num_patches > MAX_TOKENS:
            raise ValueError(f"{num_frames} frames of {self.img_size}: {self.num_patches} tokens, at most {MAX_TOKENS}")
        kernel = (tubelet_size, *self.patch_size)
        self.proj = TubeletProjection(in_chans, embed_dim, kernel_size=kernel, stride=kernel)

    def forward(self, videos: Tensor, chosen: Tensor | None = None) -> Tensor:
        """(B, C, T, H, W) -> (B, N, D), tokens in the order (t h w).

        Args:
            chosen: int64 (B, K), the tokens that are wanted: only they are embedded, -> (B, K, D). A masked
                autoencoder sees a twentieth of them, and only their pixels have a gradient for the weights.

        Raises:
            ValueError: clips of another shape.
        """
        wanted = (self.proj.in_channels, self.num_frames, *self.img_size)
        if videos.ndim != 5 or tuple(videos.shape[1:]) != wanted:
            raise ValueError(f"expected clips of shape (B, {', '.join(map(str, wanted))}), got {tuple(videos.shape)}")
        kind = videos.device.type
        if chosen is None and torch.is_autocast_enabled(kind):   # half the bytes to move; the product would cast them
            videos = videos.to(torch.get_autocast_dtype(kind))
        return self.proj(self._tubelets(videos, chosen).flatten(2))

    def _tubelets(self, videos: Tensor, chosen: Tensor | None) -> Tensor:
        """Pixels of all tokens, or of those `chosen` (B, K) -> (B, N or K, C, tubelet, patch, patch)."""
        (tall, wide), tubelet = self.patch_size, self.tubelet_size
        blocks = videos.unflatten(4, (-1, wide)).unflatten(3, (-1, tall)).unflatten(2, (-1, tubelet))
        if chosen is None:
            return blocks.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(1, 3)
        _, height, width = self.grid
        frames, rows, columns = chosen // (height * width), chosen // width % height, chosen % width
        clips = torch.arange(len(videos), device=videos.device)[:, None]
        return blocks[clips, :, frames, :, rows, :, columns]


def make_blocks(dim: int, depth: int, num_heads: int, *, mlp_ratio: float = 4.0, qkv_bias: bool = False,  # noqa: PLR0913 - VideoMAE's keywords
                drop: float = 0.0, attn_drop: float = 0.0, drop_path: float = 0.0,
                norm_layer: Callable = DEFAULT_NORM, init_values: float | None = None) -> nn.ModuleList:
    """`depth` pre-norm blocks, drop path growing linearly from 0 to `drop_path`."""
    if dim % num_heads:
        raise ValueError(f"{num_heads} attention heads do not divide the width {dim}")
    rates = [drop_path * index / max(1, depth - 1) for index in range(depth)]
    blocks = nn.ModuleList(Block(dim, num_heads, qkv_bias=qkv_bias, mlp_ratio=mlp_ratio, proj_drop=drop,
                                 attn_drop=attn_drop, drop_path=rate, norm_layer=norm_layer,
                                 init_values=init_values or None) for rate in rates)
    for block in blocks:
        block.mlp.drop1 = nn.Identity()  # VideoMAE has dropout after the MLP, none inside it
        keep_no_activation(block.mlp)
    return blocks


def run_blocks(blocks: nn.ModuleList, tokens: Tensor, use_checkpoint: bool = False) -> Tensor:
    """All blocks in order; with `use_checkpoint` their activations are computed again in the backward pass."""
    for block in blocks:
        if use_checkpoint and torch.is_grad_enabled():
            tokens = checkpoint(block, tokens, use_reentrant=False)
        else:
            tokens = block(tokens)
    return tokens


def init_linear_and_norm(module: nn.Module, init_weight: Callable[[Tensor], Tensor] = nn.init.xavier_uniform_) -> None:
    """VideoMAE's initialisation, for `Module.apply`: `init_weight` for linear weights, zero biases, unit norms."""
    if isinstance(module, nn.Linear):
        init_weight(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)


@torch.no_grad()
def tie_queries_and_keys(blocks: nn.ModuleList, scale: float) -> None:
    """Start attention as "look at tokens like yourself, and copy them": W_q = W_k orthogonal, W_proj = W_v transposed.

    With Xavier weights a tiny masked autoencoder stays for hundreds of steps where it predicts the mean patch. Not
    VideoMAE's: only the tiny model of the table asks for it.
    """
    for block in blocks:
        dim = block.attn.proj.weight.shape[0]
        tied, value = (nn.init.orthogonal_(torch.empty(dim, dim)) for _ in range(2))
        block.attn.qkv.weight.copy_(torch.cat([scale * tied, scale * tied, value]))
        block.attn.proj.weight.copy_(value.T)


class VisionTransformer(FixedPositions):
    """VideoMAE's classifier: all tokens, mean-pooled. Constructor keywords and state_dict keys are VideoMAE's.

    Args:
        all_frames: frames of a clip. use_mean_pooling: False takes token 0 through `norm` instead, as VideoMAE's
            `--use_cls` does (it has no class token). fc_drop_rate: dropout before the head. init_scale: of the head.
        pos_embed, pos_base: see `position_table`. tied_qk_init: see `tie_queries_and_keys`.
    """

    def __init__(self, img_size=224, patch_size=16, in_chans=3, num_classes=1000, embed_dim=768, depth=12,  # noqa: PLR0913 - VideoMAE's keywords
                 num_heads=12, mlp_ratio=4.0, qkv_bias=False, qk_scale=None, fc_drop_rate=0.0, drop_rate=0.0,
                 attn_drop_rate=0.0, drop_path_rate=0.0, norm_layer=DEFAULT_NORM, init_values=0.0,
                 use_learnable_pos_emb=False, init_scale=0.0, all_frames=16, tubelet_size=2, use_checkpoint=False,
                 use_mean_pooling=True, pos_embed="sincos1d", pos_base=10000.0, tied_qk_init=None):
        super().__init__()
        refuse_unsupported(qk_scale, use_learnable_pos_emb)
        self.num_classes, self.embed_dim, self.tubelet_size = num_classes, embed_dim, tubelet_size
        self.num_features, self.use_checkpoint = embed_dim, use_checkpoint
        self.patch_embed = PatchEmbed(img_size, patch_size, in_chans, embed_dim, all_frames, tubelet_size)
        self.grid, self.img_size = self.patch_embed.grid, self.patch_embed.img_size
        self.set_positions(partial(position_table, pos_embed, self.grid, embed_dim, pos_base))
        self.pos_drop = nn.Dropout(drop_rate)
        self.blocks = make_blocks(embed_dim, depth, num_heads, mlp_ratio=mlp_ratio, qkv_bias=qkv_bias, drop=drop_rate,
                                  attn_drop=attn_drop_rate, drop_path=drop_path_rate, norm_layer=norm_layer,
                                  init_values=init_values)
        self.norm = nn.Identity() if use_mean_pooling else norm_layer(embed_dim)
        self.fc_norm = norm_layer(embed_dim) if use_mean_pooling else None
        self.fc_dropout = nn.Dropout(fc_drop_rate)
        self.head = nn.Linear(embed_dim, num_classes) if num_classes > 0 else nn.Identity()
        if tied_qk_init:
            self.apply(init_linear_and_norm)
            tie_queries_and_keys(self.blocks, tied_qk_init)
        else:  # VideoMAE's classifier starts narrower than its masked autoencoder
            self.apply(partial(init_linear_and_norm, init_weight=partial(nn.init.trunc_normal_, std=0.02)))
        if num_classes > 0:
            nn.init.trunc_normal_(self.head.weight, std=0.02)
            with torch.no_grad():
                self.head.weight.mul_(init_scale)
                self.head.bias.mul_(init_scale)

    def get_num_layers(self) -> int:
        """Number of blocks (VideoMAE's name; layer decay asks for it)."""
        return len(self.blocks)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters without weight decay, beside vectors and biases."""
        return {"pos_embed", "cls_token"}

    def forward_tokens(self, videos: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, N, D), behind the last block, before the mean."""
        tokens = self.patch_embed(videos)
        tokens = self.pos_drop(tokens + self.pos_embed.to(tokens.dtype))
        return self.norm(run_blocks(self.blocks, tokens, self.use_checkpoint))

    def forward_features(self, videos: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, D)."""
        tokens = self.forward_tokens(videos)
        return self.fc_norm(tokens.mean(dim=1)) if self.fc_norm is not None else tokens[:, 0]

    def forward(self, videos: Tensor) -> Tensor:
        """(B, C, T, H, W) -> logits (B, num_classes)."""
        return self.head(self.fc_dropout(self.forward_features(videos)))


def refuse_unsupported(qk_scale: float | None, use_learnable_pos_emb: bool) -> None:
    """Two of VideoMAE's keywords that no published model sets.

    Raises:
        ValueError: one of them is set.
    """
    if qk_scale is not None:
        raise ValueError("qk_scale is not supported: attention uses 1 / sqrt(head dimension)")
    if use_learnable_pos_emb:
        raise ValueError("use_learnable_pos_emb is not supported: positions are fixed sinusoids")
