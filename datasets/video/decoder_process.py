"""Decoding in a process of its own, under limits of time and memory: a decoder that hangs or crashes costs one video.

A worker of a loader has one such process for as long as it lives. It is started afresh and not forked, since native
decoders that find themselves in a fork hang now and then, and it is ended where nothing else helps: a decoder that
sits in native code, whether it holds Python's lock or not, cannot be interrupted from inside.
"""

import contextlib
import functools
import json
import os
import resource
import signal
import subprocess
import sys
import traceback
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import numpy as np

from .backends import open_reader, reader_class
from .children import end_with_parent
from .error import VideoError

MEMORY = 12 << 30   # bytes of a decoder process: room for the largest clip, twice, and the decoder's own pictures
RENEWED_AFTER = 20_000   # clips: what a native library leaks is then given back
_GRACE = 5          # seconds after the limit within which a process whose loader is gone ends by itself
_READY = 600        # seconds until a new process has imported the decoder, on the slowest of disks
_START = ("import sys; sys.path[:] = sys.argv[5:]; import importlib; "
          "importlib.import_module(sys.argv[1]).serve(int(sys.argv[2]), sys.argv[3], float(sys.argv[4]))")
# Sent to whole groups of processes by terminals and schedulers; this process ends when its pipe does.
_NOT_FOR_US = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class GuardedReader:
    """A file opened in the decoder process of this process; otherwise as the readers of the backends.

    Args:
        path: of the file or folder.
        backend: one of `backends.BACKENDS`.
        seconds: limit of opening, and of each `decode`.
        frame_pattern: as `open_video`.

    Raises:
        VideoError: the file cannot be opened, took too long, or took the decoder down, twice.
    """

    def __init__(self, path: str, backend: str, seconds: float, frame_pattern: str = ""):
        self.path, self.backend, self.seconds, self.frame_pattern = path, backend, seconds, frame_pattern
        found = self._ask(None)
        self.num_frames: int = found["num_frames"]
        self.first_number: int = found["first_number"]

    def decode(self, wanted: list[int]) -> np.ndarray:
        """Frames `wanted` (ascending, distinct) -> uint8 (len(wanted), H, W, 3).

        Raises:
            VideoError: as above, or one of them cannot be decoded.
        """
        return self._ask(wanted)["frames"]

    def close(self) -> None:
        """Close the file; the process stays for the next one."""
        self._decoder().close_file()

    def _decoder(self) -> "_Decoder":
        return _decoder(os.getpid(), self.backend, self.seconds)

    def _ask(self, wanted: list[int] | None) -> dict:
        decoder = self._decoder()
        try:
            answer = decoder.ask(self.path, wanted, self.frame_pattern)
        except _Died:   # perhaps somebody else ended it, or the file before this one: only a second time is the file's
            try:
                answer = decoder.ask(self.path, wanted, self.frame_pattern)
            except _Died as error:
                raise VideoError(self.path, error) from None
        if "cause" in answer:
            raise VideoError(self.path, answer["cause"])
        return answer


class _Died(Exception):
    """The decoder process ended without an answer."""


@functools.cache
def _decoder(pid: int, backend: str, seconds: float) -> "_Decoder":
    """One for each process: after a fork `pid` is another one, and so is the decoder."""
    return _Decoder(backend, seconds)


class _Decoder:
    """The near end of a decoder process, started with the first request, and again after its death."""

    def __init__(self, backend: str, seconds: float):
        self.backend, self.seconds = backend, seconds
        self._process: subprocess.Popen | None = None
        self._clips = 0   # that this process has been asked for

    def ask(self, path: str, wanted: list[int] | None, frame_pattern: str = "") -> dict:
        """Raises _Died: it is gone, and a new one will take the next request. VideoError: it took too long."""
        if self._process is None:
            self._start()
        try:
            request = {"path": path, "wanted": wanted, "frame_pattern": frame_pattern}
            self._pipe.send_bytes(json.dumps(request).encode())
            if not self._pipe.poll(self.seconds):
                raise VideoError(path, f"no answer from the decoder within {self.seconds:g} s")
            answer = json.loads(self._pipe.recv_bytes())
            if "shape" in answer:
                answer["frames"] = np.empty(answer["shape"], np.uint8)
                for frame in answer["frames"]:
                    self._pipe.recv_bytes_into(memoryview(frame).cast("B"))
        except BaseException as error:   # an interrupt, too: what is left of this answer is not the next one's
            died = self._end(waiting=_GRACE if isinstance(error, EOFError | OSError) else 0)
            if isinstance(error, EOFError | OSError):
                raise _Died(died) from None
            raise
        return answer

    def close_file(self) -> None:
        """Let the process close the file that it has open, without waiting for it."""
        if self._process is None:
            return
        self._clips += 1
        if self._clips >= RENEWED_AFTER:
            self._end()
            return
        with contextlib.suppress(OSError):   # it is gone: the next request will see
            self._pipe.send_bytes(b"{}")

    def _start(self) -> None:
        self._clips = 0
        self._pipe, far = Pipe()
        with far:
            command = [sys.executable, "-c", _START, __name__, str(far.fileno()), self.backend,
                       str(self.seconds), *sys.path]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[far.fileno()])
        try:   # its start is not part of a clip's time
            if not self._pipe.poll(_READY) or self._pipe.recv_bytes() != b"ready":
                raise EOFError
        except (EOFError, OSError):
            raise _Died(f"{self._end(_GRACE)} before it began") from None

    def _end(self, waiting: float = 0) -> str:
        """End what is left of it; how it died, in words.

        waiting: seconds for one that has closed its pipe to end by itself, which says how it died.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(waiting)
        was_alive = self._process.poll() is None
        self._process.kill()
        self._pipe.close()
        try:
            status = self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:   # in the kernel, on a file system that does not answer
            status = 0
        self._process = None
        if was_alive:
            return "the decoder did not answer and was ended"
        if status == -signal.SIGKILL:
            return "the decoder was killed from outside, as the system does for want of memory"
        if status < 0:
            return f"the decoder crashed ({signal.Signals(-status).name})"
        return f"the decoder ended with exit code {status}, see its messages above"


def serve(pipe: int, backend: str, seconds: float) -> None:
    """The far end: say b"ready", then answer requests from file descriptor `pipe` until the other side closes it."""
    end_with_parent()
    reader_class(backend)   # imported before the first clip's time runs

    for number in _NOT_FOR_US:
        signal.signal(number, signal.SIG_IGN)
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard), hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    reader, opened = None, ()
    # A loader that is torn down closes its side while this one is at work: no error, and nobody to read a traceback.
    with Connection(pipe) as connection, contextlib.suppress(ConnectionError):
        connection.send_bytes(b"ready")
        while True:
            try:
                request = json.loads(connection.recv_bytes())
            except EOFError:
                return
            if not request:
                reader = _closed(reader)
                continue
            # The default action of this signal ends the process, whatever native code it is in.
            signal.setitimer(signal.ITIMER_REAL, seconds + _GRACE)
            file, wanted, frames = (request["path"], request["frame_pattern"]), request["wanted"], ()
            try:
                if reader is None or wanted is None or opened != file:
                    reader, opened = _closed(reader), file
                    reader = open_reader(file[0], backend, file[1])
                answer = {"num_frames": reader.num_frames, "first_number": reader.first_number}
                if wanted is not None:
                    frames = reader.decode(wanted)
                    answer = {"shape": frames.shape}
            except VideoError as error:
                answer, reader = {"cause": error.cause}, _closed(reader)
            except MemoryError:
                answer, reader = {"cause": "it takes more memory than a decoder may have"}, _closed(reader)
            except Exception as error:  # noqa: BLE001  (a defect: it belongs to the clip that met it, under its own name)
                what = traceback.format_exception_only(error)[-1].strip()
                answer, reader = {"cause": f"the decoder failed: {what}"}, _closed(reader)
            signal.setitimer(signal.ITIMER_REAL, 0)
            connection.send_bytes(json.dumps(answer).encode())
            for frame in frames:
                connection.send_bytes(memoryview(np.ascontiguousarray(frame)).cast("B"))
            del frames


def _closed(reader) -> None:
    if reader is not None:
        with contextlib.suppress(Exception):   # its error has been told
            reader.close()
