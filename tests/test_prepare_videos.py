"""Re-encoding: the same frames in smaller pictures, resumable, honest about what fails, and faster to read."""

import json
import os
from pathlib import Path

import av
import numpy as np
import pytest
import videos
from tats.datasets.files import require_writable
from tats.datasets.lists.list_file import read_list
from tats.datasets.prepare_videos import main, plan
from tats.datasets.reencode import Encoding, Job, encode, scaled_size
from tats.datasets.video.decode import open_video


def write_ramps(path, frames=20, height=48, width=64, gop=250):
    """A video whose frame i is a left-to-right ramp of brightness i * 8 .. i * 8 + 40."""
    ramp = np.linspace(0, 40, width).astype(np.uint8)[None, :, None]
    pictures = [np.broadcast_to(number * 8 % 200 + ramp, (height, width, 3)).astype(np.uint8)
                for number in range(frames)]
    return videos.write_video(path, pictures, videos.Encoding(rate=12, options={"g": str(gop), "sc_threshold": "0"}))


def rows_of(folder, *paths):
    return read_list(videos.write_list(folder / "rows.csv", [(path, 0) for path in paths]))


def prepare(listed, *arguments):
    fixed = (listed, "--root", listed.parent / "in", "--num_workers", "0", "--measure", "0")
    return main([str(argument) for argument in (*fixed, *arguments)])


def frames_of(path):
    with open_video(path) as video:
        return video.read(np.arange(video.num_frames))


def test_frames_keep_their_numbers_and_pictures_get_small(tmp_path):
    source = write_ramps(tmp_path / "in" / "a.mkv")
    listed = videos.write_list(tmp_path / "train.csv", [(source, 3)])
    assert prepare(listed, "--out", tmp_path / "out", "--short_side", 24) == 0
    rows = read_list(tmp_path / "out/train.csv")
    assert rows.labels.tolist() == [3] and rows.paths[0] == str(tmp_path / "out/videos/a.mp4")
    frames = frames_of(rows.paths[0])
    assert frames.shape == (20, 24, 32, 3)
    assert np.abs(frames.mean((1, 2, 3)) - frames_of(source).mean((1, 2, 3))).max() < 3   # 8 from frame to frame
    with av.open(rows.paths[0]) as container:
        keys = [packet.is_keyframe for packet in container.demux(video=0) if packet.size]
        assert container.streams.video[0].average_rate == 12 and not container.streams.audio
    assert sum(keys) >= 3   # frames 0, 8 and 16


def test_runs_again_only_where_something_is_missing_or_new(tmp_path):
    first, second = (write_ramps(tmp_path / "in" / name) for name in ("a.mp4", "b.mp4"))
    listed = videos.write_list(tmp_path / "l.csv", [(first, 0), (second, 1)])
    prepare(listed, "--out", tmp_path / "out")
    targets = [tmp_path / "out/videos" / name for name in ("a.mp4", "b.mp4")]
    made = [target.stat().st_ino for target in targets]
    prepare(listed, "--out", tmp_path / "out")
    assert [target.stat().st_ino for target in targets] == made
    targets[1].unlink()
    os.utime(first, ns=(2**62, 2**62))   # a newer source
    prepare(listed, "--out", tmp_path / "out")
    assert targets[1].exists() and targets[0].stat().st_ino != made[0]


def test_a_source_that_was_replaced_by_an_older_file_is_written_anew(tmp_path):
    source, other = (write_ramps(tmp_path / "in" / name, frames) for name, frames in (("a.mp4", 20), ("b.mp4", 12)))
    listed = videos.write_list(tmp_path / "l.csv", [(source, 0)])
    prepare(listed, "--out", tmp_path / "out")
    os.utime(other, (10**9, 10**9))
    os.replace(other, source)   # as `mv` and `cp -p` do, the time comes along
    prepare(listed, "--out", tmp_path / "out")
    assert len(frames_of(tmp_path / "out/videos/a.mp4")) == 12


def test_lists_that_share_a_folder_do_not_share_a_video_of_two_sources(tmp_path):
    """a.mkv and a.mp4 side by side, each in a list of its own; a folder of an earlier version; a line that was cut."""
    first, second = (write_ramps(tmp_path / "in" / name, frames) for name, frames in (("a.mkv", 20), ("a.mp4", 12)))
    out, lists = tmp_path / "out", [videos.write_list(tmp_path / f"{name}.csv", [(path, 0)])
                                    for name, path in (("one", first), ("two", second))]
    prepare(lists[0], "--out", out)
    (out / "sources.jsonl").unlink()
    prepare(lists[0], "--out", out)
    with open(out / "sources.jsonl", "a") as file:
        file.write('\n["videos/a.m')
    for _ in range(2):
        for listed, frames in zip(lists, (20, 12), strict=True):
            assert prepare(listed, "--out", out) == 0
            assert len(frames_of(*read_list(out / listed.name).paths)) == frames
    assert sorted(os.listdir(out / "videos")) == ["a.mp4", "a.mp4.mp4"]


def test_failures_are_left_out_and_named(tmp_path):
    good = write_ramps(tmp_path / "in/good.mp4")
    bad = tmp_path / "in/bad.mp4"
    bad.write_bytes(good.read_bytes()[:900])
    listed = videos.write_list(tmp_path / "l.csv", [(good, 0), (bad, 1), (tmp_path / "in/none.mp4", 1)])
    assert prepare(listed, "--out", tmp_path / "out") == 1
    report = json.loads((tmp_path / "out/l.report.json").read_text())
    assert report["videos"] == 1 and set(report["failed"]) == {str(bad), str(tmp_path / "in/none.mp4")}
    assert list(read_list(tmp_path / "out/l.csv").paths) == [str(tmp_path / "out/videos/good.mp4")]
    assert sorted(os.listdir(tmp_path / "out/videos")) == ["good.mp4"]   # no half-written file


def test_other_encodings_need_another_folder(tmp_path):
    listed = videos.write_list(tmp_path / "l.csv", [(write_ramps(tmp_path / "in/a.mp4"), 0)])
    prepare(listed, "--out", tmp_path / "out")
    with pytest.raises(ValueError, match="choose another --out"):
        prepare(listed, "--out", tmp_path / "out", "--gop", 4)


def test_targets_do_not_collide(tmp_path):
    jobs = plan(rows_of(tmp_path, "/d/x/a.avi", "/d/x/a.mp4", "/d/y/a.avi", "/d/x/a.avi"), tmp_path, "/d")
    assert [str(Path(job.target).relative_to(tmp_path)) for job in jobs] == [
        "x/a.mp4", "x/a.mp4.mp4", "y/a.mp4", "x/a.mp4"]
    assert plan(rows_of(tmp_path, "/d/x/a.avi"), tmp_path, "/")[0].target == str(tmp_path / "d/x/a.mp4")
    with pytest.raises(ValueError, match="/e/a.avi does not lie below --root /d"):
        plan(rows_of(tmp_path, "/e/a.avi"), tmp_path, "/d")


@pytest.mark.parametrize(("height", "width", "size"), [
    (240, 320, (240, 320)), (720, 1280, (256, 456)), (1280, 720, (456, 256)), (481, 641, (256, 342)), (15, 9, (16, 8))])
def test_sizes(height, width, size):
    assert scaled_size(height, width, 256) == size


def test_unwritable_target_is_a_failure_not_a_crash(tmp_path):
    source = write_ramps(tmp_path / "a.mp4")
    (tmp_path / "file").touch()
    assert "cannot be written" in encode(Job(str(source), str(tmp_path / "file/a.mp4")), Encoding())



def test_the_time_of_a_clip_is_told_before_and_after(tmp_path, caplog):
    listed = videos.write_list(tmp_path / "l.csv", [(write_ramps(tmp_path / "in/a.mp4"), 0)])
    with caplog.at_level("INFO"):
        prepare(listed, "--out", tmp_path / "out", "--measure", 1)
    assert "reading a clip takes" in caplog.text
    assert json.loads((tmp_path / "out/l.report.json").read_text())["clip_ms_after"] > 0


@pytest.mark.parametrize(("rate", "wanted"), [(20, [0, 2, 4, 6, 8, 10, 12, 14]), (10, list(range(8))),
                                              (5, [0, 0, 1, 1, 2, 2, 3, 3])])
def test_so_many_frames_a_second_whatever_the_rate_was(tmp_path, rate, wanted):
    """.8 seconds at 5, 10 and 20 frames a second have eight frames at 10; the slow one's are repeated."""
    videos.write_numbered(tmp_path / "a.mp4", count=16 * rate // 20, rate=rate)
    (tmp_path / "list.csv").write_text(f"{tmp_path}/a.mp4 3\n")
    arguments = [str(tmp_path / "list.csv"), "--out", str(tmp_path / "out"), "--root", str(tmp_path), "--measure", "0",
                 "--num_workers", "0", "--fps", "10"]
    assert main(arguments) == 0
    with open_video(tmp_path / "out/videos/a.mp4") as video:
        assert videos.numbers(video.read(range(video.num_frames))) == wanted
    with av.open(str(tmp_path / "out/videos/a.mp4")) as container:
        assert container.streams.video[0].average_rate == 10
    with pytest.raises(ValueError, match="made with .*10.0.*another --out"):
        main([*arguments[:-1], "8"])
    with pytest.raises(ValueError, match="--fps must lie between 0 and 1000, got 0"):
        main([*arguments[:-1], "0"])


def test_a_folder_of_pictures_has_no_times(tmp_path):
    cause = encode(Job(str(videos.write_folder(tmp_path / "a", 0)), str(tmp_path / "a.mp4")), Encoding(fps=10))
    assert cause == "a folder of pictures has no times: leave --fps out"


def test_the_list_that_is_read_is_not_replaced(tmp_path):
    """The originals' list would be gone, and a second start would shrink the shrunk videos."""
    listed = videos.write_list(tmp_path / "l.csv", [(write_ramps(tmp_path / "in/a.mp4"), 0)])
    before = listed.read_text()
    with pytest.raises(ValueError, match="--out would replace .*l.csv, which is read: name another place"):
        prepare(listed, "--out", tmp_path)
    assert listed.read_text() == before and not (tmp_path / "videos").exists()
    (tmp_path / "link").symlink_to(listed)
    with pytest.raises(ValueError, match="--here would replace"):
        require_writable(tmp_path / "link", "--here", [listed])
