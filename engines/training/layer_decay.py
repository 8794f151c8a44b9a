"""Layer-wise learning-rate decay: the deeper a parameter lies below the head, the smaller its steps."""

import re
from collections.abc import Callable

_BLOCK = re.compile(r"blocks\.(\d+)\.")
_EMBEDDING = ("patch_embed.", "pos_embed", "cls_token", "mask_token")


def layer_decay_scale(depth: int, decay: float) -> Callable[[str], float]:
    """Parameter name of a `VisionTransformer` -> factor of the learning rate, as VideoMAE assigns them.

    The embedding is layer 0, block i layer i + 1, fc_norm, norm and head layer depth + 1; layer l has
    decay ** (depth + 1 - l).

    Args:
        depth: number of blocks. decay: 1 gives the factor 1 everywhere.

    Raises:
        ValueError: decay outside (0, 1].
    """
    if not 0 < decay <= 1:
        raise ValueError(f"--layer_decay must lie in (0, 1], got {decay}")

    def scale(name: str) -> float:
        if name.startswith(_EMBEDDING):
            layer = 0
        else:
            block = _BLOCK.match(name)
            layer = int(block.group(1)) + 1 if block else depth + 1
        return decay ** (depth + 1 - layer)

    return scale
