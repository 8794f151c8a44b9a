"""Signals that ask a run to save and end: SIGTERM (a job's time is up, a requeue) and SIGUSR1 (a warning before it)."""

import atexit
import contextlib
import signal
import threading
from types import FrameType

import torch

from ...datasets.video.children import end_children, end_with_parent
from .runtime import Runtime

ASKS = (signal.SIGTERM, signal.SIGUSR1)


class Stopped(SystemExit):
    """The run was asked to end, and has been saved: the process ends with 0, and what called the program with it."""

    def __init__(self, message: str):
        super().__init__(0)
        self.message = message


class Interrupts(contextlib.AbstractContextManager):
    """Inside the block a signal of `ASKS` is only noted; between two steps the processes agree on what they got.

    Further ones change nothing: where a job's every process is told, torchrun tells its own once more. A run that hangs
    is ended by SIGINT or SIGKILL.
    """

    def __init__(self, runtime: Runtime):
        self.runtime, self._got, self._before = runtime, 0, {}
        atexit.register(end_children)   # for callers without `run_program`

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():   # Python's rule; else the caller handles signals
            self._before = {number: signal.signal(number, self._note) for number in ASKS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._got = number

    def agreed(self) -> str | None:
        """Name of the signal that any process got, None without; every process must call."""
        got = torch.tensor(self._got, device=self.runtime.device)
        number = int(self.runtime.largest(got)) if self.runtime.world_size > 1 else self._got
        return signal.Signals(number).name if number else None


def outlive_signals(worker: int) -> None:
    """A loader worker's first act: a signal to the whole job is the trainer's business, who needs its batches still.

    Not for ever: a worker that is told twice ends, and none lives longer than the trainer, who kills them at its end.
    """
    del worker
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)   # Ctrl-C reaches the whole group: the trainer ends, and they with it

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        signal.signal(number, signal.SIG_DFL)

    for number in ASKS:
        signal.signal(number, note)
