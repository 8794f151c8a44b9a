"""Videos kept in memory are the same as decoded ones, and files written anew are read anew."""

import logging
import re

import numpy as np
import pytest
from tats.datasets.moving_shapes import ShapesConfig, write_moving_shapes
from tats.datasets.video import decode
from tats.datasets.video.cache import KeptVideos, Tally
from tats.datasets.video.decode import VideoError, keep_videos, open_video
from tats.engines.run_class_finetuning import main as finetune
from tats.engines.run_mae_pretraining import main as pretrain
from tiny_runs import assert_equal_states, final_state, finetuning_flags, log_lines, small_pretraining_flags


@pytest.fixture
def videos(tmp_path):
    write_moving_shapes(ShapesConfig(tmp_path, (2, 0, 0), frames=4), workers=1, progress=False)
    yield sorted((tmp_path / "train").glob("*.mp4"))
    keep_videos(0)


def read(path, indices, seconds=0):
    with open_video(path, "pyav", seconds) as video:
        return video.read(indices)


@pytest.mark.parametrize("mebibytes", [1, .001], ids=["kept", "no room"])
@pytest.mark.parametrize("seconds", [0, 30])
def test_frames_are_those_of_the_file(videos, mebibytes, seconds):
    plain = [read(path, [3, 0, 0]) for path in videos]
    keep_videos(mebibytes)
    for _ in range(2):
        for path, frames in zip(videos, plain, strict=True):
            assert np.array_equal(read(path, [3, 0, 0], seconds), frames)


def test_what_is_kept_is_not_what_is_handed_out(videos):
    keep_videos(1)
    for _ in range(2):
        read(videos[0], range(4))[:] = 0
        read(videos[0], [0])[:] = 0
    assert read(videos[0], range(4)).any()


class Frames:
    """A reader of 40 frames of 4 bytes, each full of its number; frames 30 and up are damaged."""

    num_frames, first_number = 40, 0

    def __init__(self, asked):
        self.asked = asked

    def decode(self, wanted):
        self.asked.append(list(wanted))
        if max(wanted) >= 30:
            raise VideoError("the video", "damaged")
        return np.stack([np.full((2, 2, 1), number, np.uint8) for number in wanted])

    def close(self):
        self.asked.append("closed")


def kept_reads(kept, asked, *wanted):
    """The frame numbers that are read, and what has been asked of the file."""
    asked.clear()
    found = []
    for numbers in wanted:
        reader = kept.reader("the video", lambda: Frames(asked))
        found.append(reader.decode(list(numbers))[:, 0, 0, 0].tolist())
        reader.close()
    return found, [one for one in asked if one != "closed"]


def test_what_lies_within_a_clip_is_read_ahead_and_kept():
    asked, kept, first, later = [], KeptVideos(1, Tally()), range(2, 10, 2), range(3, 9)
    found, decoded = kept_reads(kept, asked, first, later)
    assert found == [list(first), list(later)] and decoded == [list(first), [3, 5, 7]]
    assert kept.tally.read() == (1, 7 * 4, 0)
    found, decoded = kept_reads(kept, asked, range(7, 14, 2))   # half of it is there
    assert found == [[7, 9, 11, 13]] and decoded == [[9, 11, 13], [10, 12]]


def test_a_short_video_is_read_ahead_whole_and_damage_that_nobody_asked_for_is_no_error():
    asked, kept = [], KeptVideos(1, Tally())
    found, decoded = kept_reads(kept, asked, range(0, 20, 4), range(1, 20, 4))
    assert found == [list(range(0, 20, 4)), list(range(1, 20, 4))]
    rest = [number for number in range(40) if number % 4 or number > 19]
    assert decoded == [list(range(0, 20, 4)), rest, list(range(1, 20, 4))]   # and not once more
    with pytest.raises(VideoError, match="damaged"):
        kept_reads(kept, asked, [29, 30])
    assert kept_reads(kept, asked, [29])[0] == [[29]]


@pytest.mark.parametrize(("room", "kept_frames"), [(0, 0), (12, 0), (16, 4), (27, 4), (28, 7)])
def test_memory_ends_where_it_was_told_to(room, kept_frames):
    """4 frames of 4 bytes are asked for, 3 lie between them; what has no room is decoded each time."""
    asked, kept = [], KeptVideos(room / 2**20, Tally())
    for _ in range(2):
        assert kept_reads(kept, asked, range(2, 10, 2))[0] == [[2, 4, 6, 8]]
    assert kept.tally.read()[:2] == (bool(kept_frames), 4 * kept_frames)
    assert bool(kept.tally.read()[2]) == (not kept_frames) == bool(asked)


@pytest.mark.parametrize("backends", [("pyav", "decord"), ("decord", "pyav")])
def test_another_decoder_reads_for_itself(videos, monkeypatch, backends):
    keep_videos(1)
    opened, real = [], decode.open_reader
    monkeypatch.setattr(decode, "open_reader", lambda path, name, pattern: opened.append(name) or real(path, "pyav",
                                                                                                     pattern))
    for backend in backends:
        with open_video(videos[0], backend) as video:
            video.read([0])
    assert opened == list(backends)


@pytest.mark.parametrize("asked_again", [False, True])
def test_kept_until_the_file_changes(videos, monkeypatch, asked_again):
    keep_videos(1)
    first = read(videos[0], range(4))
    if asked_again:   # as every run of many in one process does
        keep_videos(1)
    with monkeypatch.context() as patch:
        patch.setattr("tats.datasets.video.decode.open_reader", lambda *_: pytest.fail("decoded twice"))
        assert np.array_equal(read(videos[0], range(4)), first)
    videos[0].write_bytes(videos[1].read_bytes())
    assert not np.array_equal(read(videos[0], range(4)), first)


def test_bad_files_are_named_as_before(videos):
    keep_videos(1)
    videos[0].write_bytes(b"")
    with pytest.raises(VideoError, match="empty"):
        read(videos[0], [0])
    with pytest.raises(VideoError, match="none.mp4"):
        read(videos[0].with_name("none.mp4"), [0])


PRETRAINING = ("--mask_type", "tube", "--epochs", "2", "--num_sample", "2", "--vis_clips", "0")


@pytest.fixture(scope="module")
def plain(shapes, tmp_path_factory):
    """A run that keeps no frames."""
    out = tmp_path_factory.mktemp("plain")
    pretrain(small_pretraining_flags(shapes, out, *PRETRAINING, "--decode_timeout", "0"))
    return out


@pytest.mark.parametrize(("flags", "what"), [
    (("1", "0"), r"frames of 24 video\(s\) are kept, \S+ of 1 GB, in this process$"),
    (("2e-4", "0"), r"kept, \S+ of 0.0002 GB, in this process; there was no room for others"),
    (("1", "1"), r"frames of 24 video\(s\) are kept, \S+ of 1 GB, in 1 worker\(s\)$"),
], ids=["all", "some", "in a worker"])
def test_pre_training_on_kept_frames_is_the_same(plain, shapes, tmp_path, monkeypatch, caplog, flags, what):
    room, workers = flags
    caplog.set_level(logging.INFO)
    files, real = [], decode.open_reader
    monkeypatch.setattr(decode, "open_reader", lambda *asked: files.append(asked) or real(*asked))
    pretrain(small_pretraining_flags(shapes, tmp_path, *PRETRAINING, "--num_workers", workers, "--cache_decoded", room,
                                     "--decode_timeout", "60" if workers == "1" else "0"))
    assert_equal_states(final_state(tmp_path), final_state(plain))
    assert log_lines(tmp_path) == log_lines(plain)
    line, = (line for line in caplog.messages if "cache_decoded" in line)
    assert re.search(what, line)
    if workers == "0":
        assert len(files) == 24 if room == "1" else 24 < len(files) < 48
    assert not decode._KEPT   # the program is over


def test_fine_tuning_on_kept_frames_is_the_same(shapes, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    more = ("--decode_timeout", "0", "--disable_eval_during_finetuning", "--test_num_segment", "1", "--aa",
            "none", "--num_frames", "4", "--input_size", "16")
    finetune(finetuning_flags(shapes, tmp_path / "plain", *more))
    assert "cache_decoded" not in caplog.text
    finetune(finetuning_flags(shapes, tmp_path / "kept", *more, "--cache_decoded", "0.5"))
    assert_equal_states(final_state(tmp_path / "kept"), final_state(tmp_path / "plain"))
    assert (tmp_path / "kept" / "result.json").exists() and "frames of 24 video(s) are kept" in caplog.text
