"""Running means of what a step reports, kept on the device: nothing waits for the GPU until someone reads."""

import torch
from torch import Tensor

from .runtime import Runtime


class Meters:
    """Call it with detached scalars by name; read with `means`. Values that are not finite are left out: they belong to
    steps that were skipped, which `bad_steps` records."""

    FOLD = 64   # observations that wait, so that a step only keeps references and starts nothing on the device

    def __init__(self):
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
            device = next((value.device for value in reversed(waiting) if isinstance(value, Tensor)), None)
            values = torch.stack([torch.as_tensor(value, device=device).double() for value in waiting])
            finite = values.isfinite()
            found = torch.stack([torch.where(finite, values, 0.0).sum(), finite.sum()])
            self._sums[name] = found if name not in self._sums else self._sums[name].to(found.device) + found

    def means(self, runtime: Runtime | None = None) -> dict[str, float]:
        """Means since the last `reset`, over all processes when `runtime` is given (every process must call then)."""
        for name in list(self._waiting):
            self._fold(name)
        names = sorted(self._sums)
        if not names:
            return {}
        sums = torch.stack([self._sums[name].to(runtime.device if runtime else None) for name in names])
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
        self._sums = {name: torch.tensor(sums, dtype=torch.float64) for name, sums in state.items()}

    def reset(self) -> None:
        """Forget everything."""
        self._waiting.clear()
        self._sums.clear()
