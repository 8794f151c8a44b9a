"""Masks that do not look at the clip. Each is built once and called once a clip, in the loader's worker.

All return a bool tensor (N,), True = masked, token order (t h w), and draw from torch's global generator.
`visible` overrides the count that the strategy would make of `mask_ratio`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .grid import TokenGrid, checked_visible, exact_ratio, floor_share, num_visible


def _hide_all_but(visible: Tensor, num_tokens: int) -> Tensor:
    """bool (num_tokens,), False at the indices `visible`."""
    mask = torch.ones(num_tokens, dtype=torch.bool)
    mask[visible] = False
    return mask


def check_masks(per_clip: Callable[[], Tensor], grid: TokenGrid, name: str) -> None:
    """Make one mask, before hours of training depend on it. It draws from torch's generator.

    Raises:
        ValueError: the loader half of the strategy `name` has no num_visible, or its mask is not what it promises.
    """
    visible, mask = getattr(per_clip, "num_visible", None), per_clip()
    if not isinstance(visible, int):
        raise ValueError(f"the masks of the strategy {name!r} need num_visible, the number of tokens that they show; "
                         f"it is {visible!r}")
    wanted = f"a bool tensor of shape ({grid.num_tokens},), True = masked, that shows {visible} tokens"
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != (grid.num_tokens,):
        kind = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, Tensor) else f"a {type(mask).__name__}"
        raise ValueError(f"the strategy {name!r} makes {kind} for a clip, wanted is {wanted}")
    if (shown := int((~mask).sum())) != visible:
        raise ValueError(f"the strategy {name!r} makes a mask that shows {shown} tokens, wanted is {wanted}")


class RandomMasking:
    """N_v tokens anywhere in space and time (MAE-ST; lines 5-6 of Algorithm 1)."""

    def __init__(self, grid: TokenGrid, mask_ratio: float, visible: int | None = None):
        self.grid = TokenGrid(*grid)
        self.num_visible = checked_visible(self.grid, visible or num_visible(self.grid, mask_ratio))

    def __call__(self) -> Tensor:
        order = torch.randperm(self.grid.num_tokens)
        return _hide_all_but(order[: self.num_visible], self.grid.num_tokens)


class TubeMasking:
    """The same H'W' - int(rho H'W') patches in every time slice (VideoMAE: 10 of 196, so 80 of 1568 at rho = .95)."""

    def __init__(self, grid: TokenGrid, mask_ratio: float, visible: int | None = None):
        self.grid = TokenGrid(*grid)
        area = self.grid.tokens_per_frame
        hidden = floor_share(area, exact_ratio(mask_ratio))
        if not (hidden or visible):
            raise ValueError(f"mask_ratio {mask_ratio} hides none of the {area} patches of a frame: tubes need at "
                             f"least {1 / area:.4f}")
        default = max(1, area - hidden) * self.grid.frames
        self.num_visible = checked_visible(self.grid, visible or default, unit=self.grid.frames)

    def __call__(self) -> Tensor:
        order = torch.randperm(self.grid.tokens_per_frame)
        tube = _hide_all_but(order[: self.num_visible // self.grid.frames], self.grid.tokens_per_frame)
        return tube.repeat(self.grid.frames)


class FrameMasking:
    """max(1, floor(T'(1 - rho))) whole time slices are seen, so its count is its own (196 of 1568 at rho = .95)."""

    def __init__(self, grid: TokenGrid, mask_ratio: float, visible: int | None = None):
        self.grid = TokenGrid(*grid)
        area = self.grid.tokens_per_frame
        default = num_visible(TokenGrid(self.grid.frames, 1, 1), mask_ratio) * area
        self.num_visible = checked_visible(self.grid, visible or default, unit=area)

    def __call__(self) -> Tensor:
        order = torch.randperm(self.grid.frames)
        slices = _hide_all_but(order[: self.num_visible // self.grid.tokens_per_frame], self.grid.frames)
        return slices.repeat_interleave(self.grid.tokens_per_frame)
