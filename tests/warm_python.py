"""A Python that has imported the programs already, for `PYTHON=` of the row scripts: a start is a fork, not seconds of
imports. The program itself is a process of its own, with its own arguments, environment and files.

`python warm_python.py SOCKET` is the far end; `interpreter` starts it and gives the path to call.
"""

import atexit
import contextlib
import importlib
import json
import os
import runpy
import signal
import socket
import stat
import subprocess
import sys
import traceback

IMPORTED = ("tats.engines.runs.pretraining_run", "tats.engines.runs.finetuning_run", "tats.engines.figures.sheet",
            "tats.datasets.synthetic.shapes_world", "torch.distributed.elastic.multiprocessing.errors", "pandas",
            "tabulate", "timm.data.auto_augment", "matplotlib.backends.backend_agg", "matplotlib.figure", "av")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
NEAR = """#!{python} -SE
import json, os, signal, socket, sys
far = socket.socket(socket.AF_UNIX)
far.connect({path!r})
text = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(far, [b"%010d" % len(text)], [0, 1, 2])
far.sendall(text)
answers = far.makefile()
child = int(answers.readline())
for number in {signals}:
    signal.signal(number, lambda number, _: os.kill(child, number))
status = int(answers.readline() or 1)
if status < 0:
    signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
os._exit(status)
"""


@contextlib.contextmanager
def interpreter(folder):
    """The path of a program that takes what `python` takes of `-m MODULE` and `-c CODE`; it lives inside the block."""
    path, near = str(folder / "socket"), folder / "python"
    near.write_text(NEAR.format(python=sys.executable, path=path, signals=tuple(int(number) for number in SIGNALS)))
    near.chmod(near.stat().st_mode | stat.S_IXUSR)
    with subprocess.Popen([sys.executable, __file__, path], stdout=subprocess.PIPE,
                          env={**os.environ, "OMP_NUM_THREADS": "1"}) as far:
        try:
            assert far.stdout.readline() == b"ready\n"
            yield str(near)
        finally:
            far.kill()


def serve(path):
    """Answer each connection with a program, until killed."""
    for name in IMPORTED:
        importlib.import_module(name)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)   # nobody asks how the attendants ended
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            near, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                attend(near)
            near.close()


def attend(near):
    """Start the program that `near` asks for, say its number, and how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    length, files, _, _ = socket.recv_fds(near, 10, 3)
    text = b""
    while len(text) < int(length):
        text += near.recv(1 << 16)
    child = os.fork()
    if child == 0:
        near.close()
        run(*json.loads(text), files)
    with contextlib.suppress(OSError):
        near.sendall(f"{child}\n".encode())
        _, status = os.waitpid(child, 0)
        near.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def run(arguments, folder, environment, files):
    """What the interpreter does with its arguments, from its start to its end."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0] = folder
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    kind, what, *sys.argv[1:] = arguments
    code = 1
    try:
        if kind == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            sys.argv[0] = kind
            exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})   # -c
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:   # os._exit: what the far end has open and registered is not this program's to end
        if sys.exc_info()[0] is not None:
            traceback.print_exc()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
