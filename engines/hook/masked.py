"""A chosen mask for models that draw their own, in the way of MAE: by noise that is sorted."""

import torch
from torch import Tensor


def noise_of(mask: Tensor) -> Tensor:
    """Noise, float32 (B, N), whose sorting keeps exactly the visible tokens of `mask`, bool (B, N), True = masked.

    MAE and its heirs, transformers' ViTMAE too, keep the `int(N * (1 - mask_ratio))` tokens of the least noise: the
    mask must show as many.
    """
    return mask.float()


def keep_visible(tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What MAE-ST's `random_masking` returns, for a chosen mask in the place of a ratio; MAE's returns the first three.

    Args:
        tokens: (B, N, D). mask: bool (B, N), True = masked, equally many in every row.

    Returns:
        The visible tokens (B, N_v, D) in ascending order; the mask, float (B, N), 1 = masked; ids_restore, int64
        (B, N), where each token stands once the masked ones follow the visible ones; ids_keep, int64 (B, N_v).

    Raises:
        ValueError: the rows show different numbers of tokens.
    """
    shown = (~mask).sum(dim=1)
    if (shown != shown[0]).any():
        raise ValueError(f"the rows of the mask show {int(shown.min())} to {int(shown.max())} tokens: the same number "
                         "is needed in every row")
    order = mask.to(torch.uint8).argsort(dim=1, stable=True)
    ids_keep = order[:, :int(shown[0])]
    visible = tokens.gather(1, ids_keep[..., None].expand(-1, -1, tokens.shape[2]))
    return visible, mask.to(tokens.dtype), order.argsort(dim=1), ids_keep
