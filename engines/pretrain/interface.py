"""All that is asked of a masked autoencoder, read from the model itself: VideoMAE's class and its forks' will do."""

import inspect
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...masking import TokenGrid
from ...models.mae import token_order


class PatchSize(NamedTuple):
    """patch_size in pixels, tubelet_size in frames."""

    patch_size: int
    tubelet_size: int


def patch_size_of(mae: nn.Module) -> PatchSize:
    """Read from the patch embedding's convolution, so that any VideoMAE fork's model will do. One over images, with a
    kernel of two sides, has tubelets of one frame.

    Raises:
        ValueError: there is no such convolution, or its patches are not square.
    """
    kernel = getattr(getattr(getattr(getattr(mae, "encoder", None), "patch_embed", None), "proj", None), "kernel_size",
                     ())
    if len(kernel) not in (2, 3) or kernel[-1] != kernel[-2]:
        raise ValueError(f"{type(mae).__name__} has no encoder.patch_embed.proj that is a convolution of square "
                         "patches: give PatchSize(patch_size, tubelet_size) yourself")
    return PatchSize(kernel[-1], kernel[0] if len(kernel) == 3 else 1)


def mask_ratio_of(mask: Mapping, grid: TokenGrid) -> float:
    """The mask ratio by a checkpoint's settings of masks, in which --num_visible stands above --mask_ratio."""
    count = mask["num_visible"]
    # A hair less is masked: who rounds the visible tokens down then has just as many.
    return 1 - (count + 1e-6) / grid.num_tokens if count else mask["mask_ratio"]


def predict(mae: Callable[..., Tensor], net: nn.Module, videos: Tensor, mask: Tensor,
            num_masked: int | None = None, decoded: Callable[[Tensor], Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """(prediction (B, M, C), I_m int64 (B, M)) for a mask bool (B, N).

    A model whose forward takes `order` gets the token order too: the mask is then sorted once a step.

    Args:
        mae: calls the network `net`, under autocast and DDP.
        num_masked: M, where it is known: a GPU need then not be asked.
        decoded: of I_m, the tokens that the decoder sees and predicts; the others are left out of what is returned.

    Raises:
        ValueError: `decoded` with a model whose forward takes no `order`: its decoder predicts all of I_m.
    """
    if "order" in inspect.signature(net.forward).parameters:
        order = token_order(mask, num_masked)
        if decoded is not None:
            order = order._replace(masked=decoded(order.masked))
        return mae(videos, mask, order), order.masked
    if decoded is not None:
        raise ValueError(f"the decoder of {type(net).__name__} predicts every masked token: use "
                         "--decoder_mask_ratio 0, or a model whose forward takes `order`")
    prediction = mae(videos, mask)
    return prediction, token_order(mask, prediction.shape[1]).masked


def tokenize(mae: nn.Module, videos: Tensor, positions: bool = True) -> Tensor:
    """X (line 4): patch embedding plus the encoder's fixed positions, (B, N, D), detached.

    Detached because phase 2 must not move phi; AdaMAE lets its sampling loss train the patch embedding.

    Args:
        positions: False gives the bare patch embedding, for a sampler with positions of its own.
    """
    with torch.no_grad():
        tokens = mae.encoder.patch_embed(videos)
        if positions:
            tokens = tokens + mae.encoder.pos_embed.to(tokens.device).type_as(tokens)
    return tokens.detach()


def grid_of(mae: nn.Module) -> TokenGrid:
    """The token grid of a pre-training model."""
    return TokenGrid(*mae.encoder.grid)


def clip_size(mae: nn.Module) -> int:
    """Side in pixels of the square clips that a pre-training model takes."""
    height, width = mae.encoder.img_size
    if height != width:
        raise ValueError(f"the loader makes square clips, the model takes {height} x {width}")
    return height


def token_width(mae: nn.Module) -> int:
    """D, the width of the tokens of the encoder's patch embedding."""
    return mae.encoder.patch_embed.proj.out_channels
