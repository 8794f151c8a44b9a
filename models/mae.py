"""VideoMAE's masked autoencoder: an encoder of the visible tokens, a light decoder of all.

B: clips, N: tokens, N_v visible, M = N - N_v masked, D: embedding dimension.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .positions import FixedPositions, position_table
from .vit import (
    DEFAULT_NORM,
    PatchEmbed,
    init_linear_and_norm,
    make_blocks,
    refuse_unsupported,
    run_blocks,
    tie_queries_and_keys,
)


class TokenOrder(NamedTuple):
    """Indices of the visible tokens (B, N_v) and of the masked ones (B, M), each ascending."""

    visible: Tensor
    masked: Tensor


def token_order(bool_masked_pos: Tensor, num_masked: int | None = None) -> TokenOrder:
    """Split the tokens by a mask (B, N), True = masked, with equally many masked in every clip.

    Sorting by the mask instead of indexing with it: the result's shape is then known after one small count, and the
    gathers that follow need no wait for the device.

    Args:
        num_masked: that number, where the caller knows it: a GPU then checks it by itself, and nobody waits for it.

    Raises:
        ValueError: the counts differ.
        RuntimeError: on a GPU, later than here: they are not `num_masked`.
    """
    counted = bool_masked_pos.sum(dim=1)
    if num_masked is not None and (bool_masked_pos.device.type != "cpu" or torch.compiler.is_compiling()):
        torch._assert_async((counted == num_masked).all(), f"a mask does not hide {num_masked} tokens of every clip")
    else:
        num_masked = _same(counted.tolist(), num_masked)
    order = bool_masked_pos.to(torch.uint8).sort(dim=1, stable=True).indices
    num_visible = bool_masked_pos.shape[1] - num_masked
    return TokenOrder(order[:, :num_visible], order[:, num_visible:])


def _same(counts: list[int], wanted: int | None) -> int:
    if len(set(counts)) > 1:
        raise ValueError(f"every clip of a batch needs the same number of masked tokens, got {sorted(set(counts))}")
    if wanted not in (None, counts[0]):
        raise ValueError(f"expected {wanted} masked tokens in every clip, got {counts[0]}")
    return counts[0]


def take(tokens: Tensor, indices: Tensor) -> Tensor:
    """tokens (B or 1, N, D) at indices (B, K) -> (B, K, D)."""
    places = indices[..., None].expand(-1, -1, tokens.shape[-1])
    return tokens.expand(len(indices), -1, -1).gather(1, places)


class PretrainEncoder(FixedPositions):
    """Patch embedding and blocks, of the visible tokens alone; VideoMAE's `encoder.`."""

    def __init__(self, patch_embed: PatchEmbed, blocks: nn.ModuleList, norm: nn.Module,
                 positions: Callable[[], Tensor], use_checkpoint: bool):
        super().__init__()
        self.patch_embed, self.blocks, self.norm = patch_embed, blocks, norm
        self.grid, self.img_size, self.use_checkpoint = patch_embed.grid, patch_embed.img_size, use_checkpoint
        self.set_positions(positions)

    def forward(self, videos: Tensor, visible: Tensor) -> Tensor:
        """videos (B, C, T, H, W), indices (B, N_v) -> (B, N_v, D)."""
        tokens = self.patch_embed(videos, visible)
        tokens = tokens + take(self.pos_embed.to(tokens.dtype), visible)
        return self.norm(run_blocks(self.blocks, tokens, self.use_checkpoint))


class PretrainDecoder(nn.Module):
    """Blocks on all tokens, a linear head on the masked ones; VideoMAE's `decoder.`."""

    def __init__(self, blocks: nn.ModuleList, norm: nn.Module, head: nn.Linear, use_checkpoint: bool):
        super().__init__()
        self.blocks, self.norm, self.head, self.use_checkpoint = blocks, norm, head, use_checkpoint

    def forward(self, tokens: Tensor, num_masked: int) -> Tensor:
        """(B, N, D), the masked tokens last -> (B, M, pixels of a token)."""
        tokens = run_blocks(self.blocks, tokens, self.use_checkpoint)
        return self.head(self.norm(tokens[:, tokens.shape[1] - num_masked:]))


class PretrainVisionTransformer(FixedPositions):
    """f_phi. Constructor keywords and state_dict keys are VideoMAE's; positions are non-persistent buffers.

    Args:
        img_size: one number or (height, width). num_frames: of a clip.
        decoder_num_classes: pixels of a token, None: in_chans * tubelet_size * patch_size^2.
        pos_embed, pos_base: see `position_table`. tied_qk_init: see `tie_queries_and_keys`.
        zero_head: start by predicting 0, the mean of normalised targets.

    Attributes:
        num_masked: how many tokens every mask will hide, None where that is not known, see `token_order`.

    Raises:
        ValueError: sizes that do not divide each other.
    """

    def __init__(self, img_size=224, patch_size=16, encoder_in_chans=3, encoder_num_classes=0, encoder_embed_dim=768,  # noqa: PLR0913 - VideoMAE's keywords
                 encoder_depth=12, encoder_num_heads=12, decoder_num_classes=None, decoder_embed_dim=512,
                 decoder_depth=8, decoder_num_heads=8, mlp_ratio=4.0, qkv_bias=False, qk_scale=None, drop_rate=0.0,
                 attn_drop_rate=0.0, drop_path_rate=0.0, norm_layer=DEFAULT_NORM, init_values=0.0,
                 use_learnable_pos_emb=False, use_checkpoint=False, tubelet_size=2, num_frames=16,
                 pos_embed="sincos1d", pos_base=10000.0, tied_qk_init=None, zero_head=False):
        super().__init__()
        refuse_unsupported(qk_scale, use_learnable_pos_emb)
        if encoder_num_classes:
            raise ValueError("encoder_num_classes must be 0: the encoder of a masked autoencoder has no classes")
        pixels = encoder_in_chans * tubelet_size * patch_size**2
        if decoder_num_classes not in (None, pixels):
            raise ValueError(f"decoder_num_classes must be the {pixels} pixels of a token, got {decoder_num_classes}")
        self.patch_size, self.tubelet_size = patch_size, tubelet_size
        self.num_masked: int | None = None
        common = {"mlp_ratio": mlp_ratio, "qkv_bias": qkv_bias, "drop": drop_rate, "attn_drop": attn_drop_rate,
                  "drop_path": drop_path_rate, "norm_layer": norm_layer, "init_values": init_values}
        embed = PatchEmbed(img_size, patch_size, encoder_in_chans, encoder_embed_dim, num_frames, tubelet_size)
        blocks = make_blocks(encoder_embed_dim, encoder_depth, encoder_num_heads, **common)
        self.encoder = PretrainEncoder(embed, blocks, norm_layer(encoder_embed_dim),
                                       partial(position_table, pos_embed, embed.grid, encoder_embed_dim, pos_base),
                                       use_checkpoint)
        self.decoder = PretrainDecoder(make_blocks(decoder_embed_dim, decoder_depth, decoder_num_heads, **common),
                                       norm_layer(decoder_embed_dim), nn.Linear(decoder_embed_dim, pixels),
                                       use_checkpoint)
        self.encoder_to_decoder = nn.Linear(encoder_embed_dim, decoder_embed_dim, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_embed_dim))
        self.set_positions(partial(position_table, pos_embed, embed.grid, decoder_embed_dim, pos_base))
        self.apply(init_linear_and_norm)
        if tied_qk_init:
            nn.init.trunc_normal_(self.mask_token, std=0.02)
            tie_queries_and_keys(self.encoder.blocks, tied_qk_init)
            tie_queries_and_keys(self.decoder.blocks, tied_qk_init)
        else:  # VideoMAE leaves the projection as torch makes it, and cuts the mask token off at one deviation
            self.encoder_to_decoder.reset_parameters()
            nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)
        if zero_head:
            nn.init.zeros_(self.decoder.head.weight)

    def get_num_layers(self) -> int:
        """Number of encoder blocks."""
        return len(self.encoder.blocks)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters without weight decay, beside vectors and biases."""
        return {"mask_token", "pos_embed", "cls_token"}

    def forward(self, videos: Tensor, bool_masked_pos: Tensor, order: TokenOrder | None = None) -> Tensor:
        """Predict the masked tokens from the visible ones.

        Args:
            videos: (B, C, T, H, W), normalised. bool_masked_pos: (B, N), True = masked, the same count in every clip.
            order: `token_order` of that mask, where the caller has it.

        Returns:
            (B, M, C * tubelet * patch^2), masked tokens in ascending order.

        Raises:
            ValueError: a mask of another grid, or with unequal counts.
        """
        num_tokens = self.encoder.patch_embed.num_patches
        if bool_masked_pos.shape != (len(videos), num_tokens):
            raise ValueError(f"expected a mask of shape ({len(videos)}, {num_tokens}), "
                             f"got {tuple(bool_masked_pos.shape)}")
        if order is None:
            order = token_order(bool_masked_pos, self.num_masked)
        encoded = self.encoder_to_decoder(self.encoder(videos, order.visible))
        positions = self.pos_embed.to(encoded.dtype)
        tokens = torch.cat([encoded + take(positions, order.visible),
                            self.mask_token.to(encoded.dtype) + take(positions, order.masked)], dim=1)
        return self.decoder(tokens, order.masked.shape[1])
