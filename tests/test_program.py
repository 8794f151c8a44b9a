"""How programs end."""

import os

import pytest
from tats.datasets.program import run_program


def ending(error, capsys):
    def main():
        raise error
    with pytest.raises(SystemExit) as end:
        run_program(main)
    return end.value.code, capsys.readouterr().err


@pytest.mark.parametrize(("error", "line"), [
    (ValueError("two\nlines"), "error: two lines\n"),
    (FileNotFoundError("no list a.csv"), "error: no list a.csv\n"),
    (OSError(28, "No space left on device"), "error: No space left on device\n"),
    (PermissionError(13, "Permission denied", "/out"), "error: Permission denied: /out\n"),
])
def test_bad_input_is_one_line_and_2(error, line, capsys):
    assert ending(error, capsys) == (2, line)


def test_interrupt_is_130(capsys):
    assert ending(KeyboardInterrupt(), capsys) == (130, "")


@pytest.mark.parametrize("error", [OSError(9, "Bad file descriptor"), RuntimeError("shape"), KeyError("a"),
                                   ValueError("Caught ValueError.\nTraceback (most recent call last):\n  bug")])
def test_defects_keep_their_traceback(error):
    def main():
        raise error
    with pytest.raises(type(error)):
        run_program(main)


def test_a_program_that_ends_well_returns():
    assert run_program(lambda: 1) is None


@pytest.mark.parametrize("length", [10, 100_000])   # less than a buffer, and more
@pytest.mark.parametrize(("target", "code", "line"), [
    (None, 141, ""), ("/dev/full", 2, "error: No space left on device\n")])
def test_output_that_cannot_be_written(length, target, code, line, capsys, monkeypatch):
    """None: into a pipe whose reader has ended, as `head` does."""
    if target is None:
        reader, target = os.pipe()
        os.close(reader)
    with open(target, "w") as output:
        monkeypatch.setattr("sys.stdout", output)
        with pytest.raises(SystemExit) as end:
            run_program(lambda: output.write("x" * length) and None)
        monkeypatch.undo()
    assert (end.value.code, capsys.readouterr().err) == (code, line)
