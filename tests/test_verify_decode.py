"""Two decoders on the same clips: agreement, disagreement, and files that only one of them reads."""

import contextlib

import numpy as np
import pytest
from tats.datasets import verify_decode as verify
from tats.datasets.lists.list_file import read_list
from tats.datasets.video.decode import Decoding, VideoError, open_video


@pytest.fixture
def two_decoders(monkeypatch):
    """PyAV, and beside it as "decord" PyAV with one edit of what it gives: edit(path, frames) -> frames."""
    def install(edit):
        @contextlib.contextmanager
        def opened(path, backend, seconds):
            with open_video(path, "pyav") as video:
                if backend == "decord":
                    read = video.read
                    video.read = lambda indices: edit(path, read(indices))
                yield video

        monkeypatch.setattr("tats.datasets.video.decode.open_video", opened)
        monkeypatch.setattr(verify, "loads", lambda name: name in ("pyav", "decord"))

    return install


def test_agreement_says_how_many(shapes, two_decoders, caplog):
    two_decoders(lambda path, frames: frames + 1 * (frames < 255))   # rounding
    with caplog.at_level("INFO"):
        found = verify.verify_decode(read_list(shapes / "train.csv"), Decoding("pyav"), 5)
    assert len(found) == len({one.path for one in found}) == 5
    assert "pyav and decord see the same pictures in 5 of 5 videos" in caplog.text


def test_other_pictures_are_named_and_end_the_program(shapes, two_decoders, caplog):
    rows = read_list(shapes / "train.csv")
    wrong = rows.paths[3]
    two_decoders(lambda path, frames: np.roll(frames, 1, axis=0) if path == wrong else frames)
    with pytest.raises(ValueError, match="1 of 24") as error:
        verify.verify_decode(rows, Decoding("pyav"), 1000)
    assert wrong in str(error.value) and "\n" not in str(error.value)
    assert f"  {wrong}  pictures differ by" in caplog.text


def test_a_file_that_one_cannot_read_is_noted_only(shapes, two_decoders, caplog):
    rows = read_list(shapes / "train.csv")

    def refuse(path, frames):
        if path == rows.paths[3]:
            raise VideoError(path, "no such codec")
        return frames

    two_decoders(refuse)
    verify.verify_decode(rows, Decoding("pyav"), 24)
    assert f"{rows.paths[3]}  decord cannot read it: no such codec" in caplog.text


def test_other_sizes_are_a_disagreement(shapes, two_decoders):
    rows = read_list(shapes / "train.csv")
    two_decoders(lambda path, frames: frames[:, :-1])
    with pytest.raises(verify.Disagreement, match="2 of 2"):
        verify.verify_decode(rows, Decoding("pyav"), 2)


def test_without_a_second_decoder_it_says_what_to_install(shapes, monkeypatch):
    monkeypatch.setattr(verify, "loads", lambda name: name == "pyav")
    with pytest.raises(ValueError, match="install torchcodec or decord"):
        verify.verify_decode(read_list(shapes / "train.csv"), Decoding("pyav"), 1)
