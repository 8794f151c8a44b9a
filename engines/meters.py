"""Running means of what a step reports, kept on the device: nothing waits for the GPU until someone reads."""

import torch
from torch import Tensor

from .runtime import Runtime


class Meters:
    """Call it with detached scalars by name; read with `means`."""

    def __init__(self):
        self._sums: dict[str, Tensor | float] = {}
        self._counts: dict[str, int] = {}

    def __call__(self, **values: Tensor | float | None) -> None:
        """Add one observation of each name; None is skipped."""
        for name, value in values.items():
            if value is not None:
                self._sums[name] = self._sums.get(name, 0.0) + value
                self._counts[name] = self._counts.get(name, 0) + 1

    def means(self, runtime: Runtime | None = None) -> dict[str, float]:
        """Means since the last `reset`, over all processes when `runtime` is given (every process must call then)."""
        names = sorted(self._sums)
        if not names:
            return {}
        device = runtime.device if runtime else None
        values = torch.stack([torch.as_tensor(self._sums[name], dtype=torch.float64, device=device)
                              / self._counts[name] for name in names])
        if runtime is not None:
            values = runtime.mean(values)
        return dict(zip(names, values.tolist(), strict=True))

    def reset(self) -> None:
        """Forget everything."""
        self._sums.clear()
        self._counts.clear()
