"""Processes that end with the one that started them, and the end of those that a program has started."""

import contextlib
import ctypes
import multiprocessing
import signal
import sys
import threading
import time
from collections.abc import Collection, Iterator

_PR_SET_PDEATHSIG = 1   # prctl(2)
_GRACE = 5              # seconds for the kernel to take a killed process down


def end_with_parent(number: int = signal.SIGKILL) -> None:
    """From now on this process is killed when its parent ends, however that ends; does nothing outside of Linux.

    number: of the signal that it gets.

    Whoever calls has a slower way to notice as well (an end of file, a look at the parent's number): it holds
    elsewhere, and for a parent that ended before this call. The kernel goes by the thread that started this process.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):   # a C library without it
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def end_children(spared: Collection = ()) -> None:
    """Kill what `multiprocessing` started from this process, loader workers and pools, but for those in `spared`.

    They are not asked: a worker that outlives SIGTERM, or that sits in a decoder, keeps the interpreter from ending,
    which asks once and then waits without a limit.
    """
    children = [child for child in multiprocessing.active_children() if child not in spared]
    if not children:
        return
    with _without_their_signal():
        for child in children:
            with contextlib.suppress(OSError):
                child.kill()
        end = time.monotonic() + _GRACE
        for child in children:
            child.join(max(0, end - time.monotonic()))


@contextlib.contextmanager
def _without_their_signal() -> Iterator[None]:
    """Inside the block the end of a child is no event: torch's handler would raise for every worker."""
    before = signal.getsignal(signal.SIGCHLD)
    if threading.current_thread() is not threading.main_thread() or before is None:   # only there it can be set
        yield
        return
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)
