"""How every program here ends: bad input is one line and exit code 2, never a traceback."""

import errno
import sys
from collections.abc import Callable


def run_program(main: Callable[[], object]) -> None:
    """Call `main`; end the process with 2 and one line on stderr for bad input, with 130 after Ctrl-C.

    Bad input is what the programs raise as ValueError, and what the operating system says about a path or a full disk.
    Everything else is a defect and keeps its traceback.
    """
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        if error.filename is not None:
            _end(f"{error.strerror}: {error.filename}")
        if not isinstance(error, FileNotFoundError) and error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _end(error.strerror or str(error))
    except ValueError as error:
        if "Traceback (most recent call last)" in str(error):   # how a loader hands on what went wrong in its worker
            raise
        _end(str(error))


def _end(message: str) -> None:
    sys.stderr.write("error: " + " ".join(message.split()) + "\n")
    sys.exit(2)
