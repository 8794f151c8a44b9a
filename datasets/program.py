"""How every program here ends: bad input is one line and exit code 2, never a traceback; and it does end."""

import contextlib
import errno
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable

from .video.children import end_children

_LAST_SECONDS = 10   # for what the interpreter does at its end
_KEPT: list[BaseException] = []


def run_program(main: Callable[[], object]) -> None:
    """Call `main`; end the process with 2 and one line on stderr for bad input, with 130 after Ctrl-C, and with 141 and
    no word where who read its output has closed it, as `head` does.

    Bad input is what the programs raise as ValueError, and what the operating system says about a path or a full disk.
    Everything else is a defect and keeps its traceback, with exit code 1. However `main` ends, the processes that it
    started are killed, and what hangs at the interpreter's end is cut off.
    """
    try:
        main()
        _flush()
    except BaseException as error:
        # A loader that is freed before the interpreter ends would wait for its killed workers.
        _KEPT.append(error)
        code = _exit_code(error)
        with contextlib.suppress(RuntimeError):   # no memory left for a thread
            threading.Thread(target=_end_surely, args=(code or 1,), daemon=True).start()
        if code is None:
            raise
        sys.exit(code)
    finally:
        end_children()


def _exit_code(error: BaseException) -> int | None:
    """The code of an end that needs no traceback, after the line for bad input; None for a defect or `sys.exit`."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, BrokenPipeError) and _nobody_reads():
        return 128 + signal.SIGPIPE
    if (line := _bad_input(error)) is None:
        return None
    sys.stderr.write("error: " + " ".join(line.split()) + "\n")
    return 2


def _flush() -> None:
    """Write what is left of the output: the interpreter's end has no line for what goes wrong in it."""
    if sys.stdout is None or sys.stdout.closed:
        return
    try:
        sys.stdout.flush()
    except OSError as error:
        _let_go()
        if isinstance(error, BrokenPipeError):
            sys.exit(128 + signal.SIGPIPE)
        raise


def _nobody_reads() -> bool:
    """Whether the output is a pipe whose other end is closed, and not one to a process of ours. It is let go then."""
    with contextlib.suppress(AttributeError, OSError, ValueError):   # no output, or none of the system's
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
            _let_go()
            return True
    return False


def _let_go() -> None:
    """What is left of the output goes nowhere: the interpreter's end would try, and complain."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _bad_input(error: BaseException) -> str | None:
    """What to say about bad input; None for a defect."""
    if "Traceback (most recent call last)" in str(error):   # how a loader hands on what went wrong in its worker
        return None
    if isinstance(error, OSError):
        if error.filename is not None:
            return f"{error.strerror}: {error.filename}"
        if isinstance(error, FileNotFoundError) or error.errno in (errno.ENOSPC, errno.EDQUOT):
            return error.strerror or str(error)
    return str(error) if isinstance(error, ValueError) else None


def _end_surely(code: int) -> None:
    """Threads that do not end, and what runs at exit, have their time; then the process ends with `code`."""
    threading.main_thread().join()
    time.sleep(_LAST_SECONDS)
    os._exit(code)
