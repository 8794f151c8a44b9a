"""Signals that ask a run to save and end: SIGTERM (a job's time is up, a requeue), SIGUSR1 (a warning before it), and
SIGINT (Ctrl-C)."""

import atexit
import contextlib
import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType

import torch

from ...datasets.video.children import end_children, end_with_parent
from .runtime import Runtime

ASKS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
SAME_PRESS = 2.0   # seconds within which several SIGINT are one Ctrl-C: the terminal's and the launcher's


class Stopped(SystemExit):
    """The run was asked to end, and has been saved: the process ends with 0, or 130 after Ctrl-C, and what called the
    program with it."""

    def __init__(self, message: str, code: int = 0):
        super().__init__(code)
        self.message = message


class Interrupts(contextlib.AbstractContextManager):
    """Inside the block a signal of `ASKS` is only noted; between two steps the processes agree on what they got.

    Further ones change nothing: where a job's every process is told, torchrun tells its own once more. A second Ctrl-C,
    seconds later, ends the process at once, saved or not.
    """

    def __init__(self, runtime: Runtime):
        self.runtime, self._got, self._before, self._pressed = runtime, 0, {}, None
        self._runner = parent_of(os.getppid()) if "CROSS_RANK" in os.environ else None
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
        if number == signal.SIGINT:
            now = time.monotonic()
            if self._pressed is not None and now - self._pressed > SAME_PRESS:
                raise KeyboardInterrupt
            self._pressed = now if self._pressed is None else self._pressed

    def agreed(self) -> str | None:
        """Name of the signal that any process got, None without; every process must call.

        The command `deepspeed` hands no signal on: where it is gone, SIGTERM counts as received.
        """
        if self._runner is not None and not self._got and parent_of(os.getppid()) != self._runner:
            self._got = signal.SIGTERM
        got = torch.tensor(self._got, device=self.runtime.device)
        number = int(self.runtime.largest(got)) if self.runtime.world_size > 1 else self._got
        return signal.Signals(number).name if number else None


def parent_of(pid: int) -> int | None:
    """Number of the process that started process `pid`, or that has taken its place; None outside of Linux."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return None


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

    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, note)
