"""Videos kept in memory are the same as decoded ones, and files written anew are read anew."""

import numpy as np
import pytest
from tats.datasets.moving_shapes import ShapesConfig, write_moving_shapes
from tats.datasets.video.decode import VideoError, keep_videos, open_video


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
    read(videos[0], range(4))[:] = 0
    assert read(videos[0], range(4)).any()


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
