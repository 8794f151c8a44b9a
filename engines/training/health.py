"""Were a network's numbers finite? Noted on the device, agreed by all processes, counted without asking the host."""

import torch
from torch import Tensor

from ..core.runtime import Runtime

CHECKED = ("loss", "probability", "reward", "gradient")


class Health:
    """What one learner's steps were like.

    The processes agree in one all-reduce of four numbers a step. It is its own because the gradients' says too little:
    a loss can overflow whose gradient does not.

    Attributes, all on the device:
        bad: bool (), whether the last step had a value that is not finite, on any process.
        in_a_row, total: int64 (), bad steps up to now without a good one between them, and in all.
        causes: float32 (4,), 1 for what of `CHECKED` was not finite in the last bad step.
    """

    def __init__(self, device: torch.device, runtime: Runtime | None = None):
        self.runtime = runtime
        self._fine = torch.zeros((), dtype=torch.bool, device=device)
        self._noted: dict[str, Tensor] = {}
        self.bad = self._fine
        self.causes = torch.zeros(len(CHECKED), device=device)
        self.load({"in_a_row": 0, "total": 0})

    def check(self, **values: Tensor) -> None:
        """Note whether these values, by a name of `CHECKED`, are finite; several calls in a step add up."""
        for name, value in values.items():
            self._noted[name] = self._noted.get(name, self._fine) | ~value.detach().isfinite().all()

    def close(self) -> Tensor:
        """End the step. Returns `bad`; every process must call."""
        flags = torch.stack([self._noted.get(name, self._fine) for name in CHECKED]).float()
        self._noted.clear()
        if self.runtime is not None:
            flags = self.runtime.largest(flags)
        self.bad = flags.bool().any()
        self.in_a_row = (self.in_a_row + 1) * self.bad
        self.total = self.total + self.bad
        self.causes = torch.where(self.bad, flags, self.causes)
        return self.bad

    def state(self) -> dict[str, int]:
        """The counts."""
        return {"in_a_row": int(self.in_a_row), "total": int(self.total)}

    def load(self, state: dict[str, int]) -> None:
        """Put back what `state` returned."""
        self.in_a_row, self.total = (torch.tensor(state[name], device=self._fine.device)
                                     for name in ("in_a_row", "total"))
