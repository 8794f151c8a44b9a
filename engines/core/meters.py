"""Running means of what a step reports, kept on the device: nothing waits for the GPU until someone reads."""

import torch
from torch import Tensor

from .runtime import Runtime


class Meters:
    """Call it with detached scalars by name; read with `means`. Values that are not finite are left out: they belong to
    steps that were skipped, which `bad_steps` records.

    Args:
        device: where the sums are kept, whatever device a value comes from: plain numbers and tensors of the CPU stand
            beside those of a GPU.
    """

    FOLD = 64   # observations that wait, so that a step only keeps references and starts nothing on the device

    def __init__(self, device: torch.device | str = "cpu"):
        self._device = torch.device(device)
        self._waiting: dict[str, list[Tensor | float]] = {}
        self._sums: dict[str, Tensor] = {}   # float64 (2,): sum of the finite values, and their number

    def __call__(self, **values: Tensor | float | None) -> None:
        """Add one observation of each name; None is skipped."""
        for name, value in values.items():
            if value is not None:
                self._waiting.setdefault(name, []).append(value)
                if len(self._waiting[name]) >= self.FOLD:
                    self._fold(name)

    def _fold(self, name: str) -> None:
        waiting = self._waiting.pop(name, [])
        if waiting:
            values = torch.stack([self._double(value) for value in waiting])
            finite = values.isfinite()
            found = torch.stack([torch.where(finite, values, 0.0).sum(), finite.sum()])
            self._sums[name] = found if name not in self._sums else self._sums[name] + found

    def _double(self, value: Tensor | float) -> Tensor:
        if isinstance(value, Tensor):
            return value.to(self._device, torch.float64, non_blocking=True)
        return torch.full((), value, dtype=torch.float64, device=self._device)   # a copy would wait for the GPU

    def means(self, runtime: Runtime | None = None) -> dict[str, float]:
        """Means since the last `reset`, over all processes when `runtime` is given (every process must call then)."""
        for name in list(self._waiting):
            self._fold(name)
        names = sorted(self._sums)
        if not names:
            return {}
        sums = torch.stack([self._sums[name] for name in names])
        if runtime is not None:
            sums = runtime.mean(sums)
        return {name: total / count for name, (total, count) in zip(names, sums.tolist(), strict=True) if count}

    def state(self) -> dict[str, list[float]]:
        """(sum, number) by name, of this process."""
        self.means()
        return {name: sums.tolist() for name, sums in self._sums.items()}

    def load(self, state: dict[str, list[float]]) -> None:
        """Go on from what `state` returned."""
        self.reset()
        self._sums = {name: torch.tensor(sums, dtype=torch.float64, device=self._device)
                      for name, sums in state.items()}

    def reset(self) -> None:
        """Forget everything."""
        self._waiting.clear()
        self._sums.clear()
