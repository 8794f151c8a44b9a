"""Nothing is lost without a word: when packing, by lists of one name, in bad_videos.txt, from settings files."""

import errno
import json

import numpy as np
import pytest
from elsewhere import frames_of, packed
from tats.datasets import build_lists, check_list, pack, prepare_videos, shard_writer
from tats.datasets.lists.bad_videos import BadVideos, TooManyBadVideos
from tats.datasets.lists.list_file import read_list
from tats.datasets.program import run_program
from tats.datasets.video.error import VideoError
from tats.engines.config.flags import read_changes
from tats.engines.run_mae_pretraining import get_parser, main
from tiny_runs import error_line, small_pretraining_flags
from videos import write_drifting, write_list


@pytest.fixture
def six(tmp_path):
    rows = [(write_drifting(tmp_path / f"{row}.mp4", row), row) for row in range(6)]
    write_list(tmp_path / "train.csv", rows)
    return [path for path, _ in rows]


class Failing:
    """A file of which a read fails, or ends early, behind its first half."""

    def __init__(self, file, fault):
        self.file, self.fault, self.half = file, fault, 0

    def seek(self, *place):
        self.half = self.file.seek(0, 2) // 2
        return self.file.seek(*place)

    def read(self, count):
        if self.file.tell() + count <= self.half:
            return self.file.read(count)
        if self.fault:
            raise self.fault
        return self.file.read(count)[:-1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


@pytest.mark.parametrize("which", [1, 5])
@pytest.mark.parametrize("fault", [OSError(errno.EIO, "Input/output error"), None])
def test_a_video_that_fails_in_the_middle_costs_no_other(which, fault, six, tmp_path, monkeypatch, caplog):
    failing = str(six[which])
    monkeypatch.setattr(shard_writer, "open", lambda path, how: Failing(open(path, how), fault) if path == failing else
                        open(path, how), raising=False)
    pack.main([str(tmp_path / "train.csv"), "--out", str(tmp_path / "shards"), "--allow_missing"])
    rows = read_list(tmp_path / "shards" / "train.csv")
    left = [path for row, path in enumerate(six) if row != which]
    assert len(rows) == 5 and caplog.text.count("left out") == 1 and failing in caplog.text
    assert all(np.array_equal(frames_of(one), frames_of(other)) for one, other in zip(rows.paths, left, strict=True))


def test_a_full_disk_is_not_blamed_on_a_video(six, tmp_path, monkeypatch):
    def full(self, *_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shard_writer.tarfile.TarFile, "addfile", full)
    with pytest.raises(OSError, match="No space left"):
        pack.main([str(tmp_path / "train.csv"), "--out", str(tmp_path / "shards"), "--allow_missing"])


def test_another_list_of_the_same_name_replaces_nothing(six, tmp_path):
    packed(tmp_path, videos=[(path, row) for row, path in enumerate(six)])
    shard, before = tmp_path / "shards" / "train-000000.tar", (tmp_path / "shards" / "train-000000.tar").read_bytes()
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "train.csv"
    write_list(other, [(six[3], 0)])
    with pytest.raises(ValueError, match="are of other videos"):
        pack.main([str(other), "--out", str(tmp_path / "shards")])
    assert shard.read_bytes() == before
    pack.main([str(tmp_path / "train.csv"), "--out", str(tmp_path / "shards")])   # its own list packs again
    for program, more in ((prepare_videos, ("--short_side", "16")), (check_list, ())):
        out = tmp_path / program.__name__
        arguments = ["--out", str(out), "--num_workers", "0", *more]
        program.main([str(tmp_path / "train.csv"), *arguments])
        program.main([str(tmp_path / "train.csv"), *arguments])   # again, from where it stands
        with pytest.raises(ValueError, match="of another list of this name"):
            program.main([str(other), *arguments])
        assert json.loads((out / "train.report.json").read_text())["list"] == str(tmp_path / "train.csv")


def test_unreadable_videos_are_counted_where_the_file_cannot_be_written(tmp_path, caplog):
    (tmp_path / "file").touch()
    bad = BadVideos(tmp_path / "file" / "bad_videos.txt", 100, .02)   # no folder
    for name in ("a.mp4", "a.mp4", "b.mp4"):
        bad.add(VideoError(name, "it is broken"))
    with pytest.raises(TooManyBadVideos, match="3 of 100"):
        bad.add(VideoError("c.mp4", "it is broken"))
    assert caplog.text.count("cannot be written") == 1
    gone = BadVideos(tmp_path / "deleted" / "bad_videos.txt", 100, .02)   # a folder that was deleted
    gone.add(VideoError("a.mp4", "it is broken"))
    assert gone.read() == ["a.mp4: it is broken"]


def test_shares_of_folders_that_are_divided_already_are_refused(tmp_path, capsys):
    for part in ("train", "val"):
        for name in ("a", "b"):
            write_drifting(tmp_path / part / name / "0.mp4", 1)
    line = error_line(capsys, build_lists.main, "folders", "--root", tmp_path, "--out", tmp_path, "--val", ".3")
    assert "leave out --val and --test" in line
    run_program(lambda: build_lists.main(["folders", "--root", str(tmp_path), "--out", str(tmp_path / "lists")]))


def test_words_of_a_settings_file(tmp_path, shapes, capsys):
    (tmp_path / "my.args").write_text("""# a comment
--output_dir /runs/exp#3   # another
--data_path "/my lists/train.csv"
--warmup_lr 1e-6
""")
    args = get_parser().parse_args([f"@{tmp_path}/my.args"])
    assert (args.output_dir, args.data_path) == ("/runs/exp#3", "/my lists/train.csv")
    (tmp_path / "torn.args").write_text("--data_path 'a\n")
    assert "No closing quotation" in error_line(capsys, main, f"@{tmp_path}/torn.args")


def test_dead_flags_of_a_settings_file_are_named(tmp_path, shapes, caplog):
    (tmp_path / "my.args").write_text("--warmup_lr 1e-6\n")
    main([f"@{tmp_path}/my.args", *small_pretraining_flags(shapes, tmp_path / "out", "--epochs", "1")])
    assert "--warmup_lr has no effect" in caplog.text


def test_a_changed_path_may_have_spaces():
    args = read_changes(get_parser(), ["--change", "data_path", "/my lists/train.csv"])
    assert args.data_path == "/my lists/train.csv"
    assert read_changes(get_parser(), ["--change", "tats_merge", "2 1 1"]).tats_merge == [2, 1, 1]
