"""Fixed positions of tokens, as tables that no checkpoint holds."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class FixedPositions(nn.Module):
    """A network with the buffer `pos_embed`, which is no part of its state_dict.

    What is built on the meta device gets its tensors later, by `to_empty` or by `load_state_dict(assign=True)`, and its
    weights from a checkpoint. Neither holds this table, nor the zero biases of the keys in timm's blocks: they are made
    again.
    """

    def set_positions(self, make: Callable[[], Tensor]) -> None:
        """make: () -> (1, N, D)."""
        self._make_positions = make
        self.register_buffer("pos_embed", make(), persistent=False)

    def _apply(self, fn, recurse=True):
        waiting = self._without_content()
        super()._apply(fn, recurse)
        for module, name in waiting:
            if not (empty := module._buffers[name]).is_meta:
                module._buffers[name] = _content(module, empty, empty.device)
        return self

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *more):
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *more)
        loaded = next((value for name, value in state_dict.items() if name.startswith(prefix)), self.pos_embed)
        if local_metadata.get("assign_to_params_buffers") and not loaded.is_meta:
            for module, name in self._without_content():
                module._buffers[name] = _content(module, module._buffers[name], loaded.device)

    def _without_content(self) -> list[tuple[nn.Module, str]]:
        """The buffers on the meta device that no state_dict holds."""
        return [(module, name) for module in self.modules() for name in module._non_persistent_buffers_set
                if (buffer := module._buffers.get(name)) is not None and buffer.is_meta]


def _content(module: nn.Module, buffer: Tensor, device: torch.device) -> Tensor:
    """Of a buffer of `FixedPositions` or of timm's attention, with this buffer's size and dtype."""
    if isinstance(module, FixedPositions):
        with torch.device("cpu"):
            return module._make_positions().to(device, buffer.dtype)
    return torch.zeros_like(buffer, device=device)


def sincos_table(num_positions: int, dim: int, base: float = 10000.0) -> Tensor:
    """VideoMAE's sinusoid over the flattened token index, (1, num_positions, dim): even channels sine, odd cosine."""
    return _sinusoid(torch.arange(num_positions), dim, base)[None].float()


def sincos3d_table(grid: Sequence[int], dim: int, base: float = 10000.0) -> Tensor:
    """A sinusoid of each of t, h and w in its own third of the channels, (1, N, dim), tokens in the order (t h w).

    The "3D periodic positional encoding" of the paper's text (Sec. 3.1); its ancestors' code uses the flattened index.
    """
    per_axis = dim // 6 * 2
    widths = (dim - 2 * per_axis, per_axis, per_axis)
    axes = torch.meshgrid(*(torch.arange(size) for size in grid), indexing="ij")
    return torch.cat([_sinusoid(axis.flatten(), width, base) for axis, width in zip(axes, widths, strict=True)],
                     dim=-1)[None].float()


def position_table(kind: str, grid: Sequence[int], dim: int, base: float) -> Tensor:
    """The table of that kind for a grid.

    Raises:
        ValueError: kind is neither "sincos1d" nor "sincos3d".
    """
    if kind == "sincos1d":
        return sincos_table(grid[0] * grid[1] * grid[2], dim, base)
    if kind == "sincos3d":
        return sincos3d_table(grid, dim, base)
    raise ValueError(f"pos_embed must be 'sincos1d' or 'sincos3d', got {kind!r}")


def _sinusoid(positions: Tensor, dim: int, base: float) -> Tensor:
    channels = torch.arange(dim)
    # float64: at base 10000 and position 1567 a float32 angle is off by more than the checks against VideoMAE allow.
    angles = positions.double()[:, None] / base ** (2 * (channels // 2).double() / dim)
    return torch.where(channels % 2 == 0, angles.sin(), angles.cos())
