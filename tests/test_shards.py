"""Members of tar shards: packed by us or by others, read in place, and what is wrong with them."""

import io
import json
import os
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from elsewhere import frames_of, one_line, packed, write_tar
from tats.datasets import check_list, pack
from tats.datasets.lists.list_file import read_list
from tats.datasets.sources import opening
from tats.datasets.sources.addresses import split_member
from tats.datasets.sources.opening import open_source
from tats.datasets.video.decode import VideoError
from videos import write_drifting, write_folder

pytest_plugins = ["store_fixtures"]
pytestmark = pytest.mark.usefixtures("quick_attempts")


def test_names_by_hand():
    assert split_member("/d/s.tar::k/x.mp4") == ("/d/s.tar", "k/x.mp4")
    assert split_member("s3://b/s.tar::x.mp4") == ("s3://b/s.tar", "x.mp4")
    assert split_member("s3://b/x.mp4") == ("s3://b/x.mp4", None)


def test_shards_hold_the_list_in_webdatasets_layout(tmp_path):
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\n")
    plain, shards = packed(tmp_path, "--shard_mb", "0.004")
    assert shards.labels.tolist() == plain.labels.tolist() == [3, 1, 3]
    assert len({split_member(path)[0] for path in shards.paths}) > 1
    assert (tmp_path / "shards" / "classes.txt").read_text() == "a\nb\nc\nd\n"
    for row, path in enumerate(shards.paths):
        container, member = split_member(path)
        key, _, ending = member.partition(".")
        with tarfile.open(container) as archive:
            assert archive.extractfile(member).read() == open(plain.paths[row], "rb").read() and ending == "mp4"
            assert archive.extractfile(f"{key}.cls").read() == str(plain.labels[row]).encode()
            assert json.load(archive.extractfile(f"{key}.json"))["path"] == plain.paths[row]
        assert open_source(path).read() == open(plain.paths[row], "rb").read()


def test_the_same_list_gives_the_same_bytes(tmp_path):
    packed(tmp_path)
    first = {path.name: path.read_bytes() for path in (tmp_path / "shards").iterdir()}
    packed(tmp_path, videos=[tuple(line.rsplit(" ", 1)) for line in (tmp_path / "train.csv").read_text().splitlines()])
    assert {path.name: path.read_bytes() for path in (tmp_path / "shards").iterdir()} == first
    assert sorted(first) == ["train-000000.tar", "train-000000.tar.index", "train.csv"]


def test_shards_of_an_earlier_and_larger_pack_are_named(tmp_path, caplog):
    packed(tmp_path, "--shard_mb", "0.004")
    written = sorted(path.name for path in (tmp_path / "shards").glob("*.tar"))
    assert len(written) > 1 and "earlier pack" not in caplog.text
    (tmp_path / "shards" / "others-000007.tar").touch()
    packed(tmp_path)
    assert f"{len(written) - 1} shard(s) of an earlier pack" in caplog.text and f"delete {written[1]}" in caplog.text
    assert sorted(path.name for path in (tmp_path / "shards").glob("train*.tar")) == written   # nothing is deleted


@pytest.mark.parametrize("how", [{}, {"seconds": 60}, {"backend": "decord"}])
def test_frames_of_a_member_are_those_of_the_file(how, tmp_path):
    if how.get("backend"):
        pytest.importorskip(how["backend"])
    plain, shards = packed(tmp_path)
    for one, other in zip(plain.paths, shards.paths, strict=True):
        assert np.array_equal(frames_of(one, **how), frames_of(other, **how))


def test_a_member_is_read_in_place(tmp_path, monkeypatch):
    """Nothing but its own bytes are read, and nothing is written."""
    _, shards = packed(tmp_path)
    read, readinto = [], opening.PartOfFile.readinto

    def counting(self, buffer):
        read.append(readinto(self, buffer))
        return read[-1]

    monkeypatch.setattr(opening.PartOfFile, "readinto", counting)
    before = sorted(os.listdir(tmp_path / "shards"))
    assert len(frames_of(shards.paths[1])) == 12 and 0 < sum(read) <= 4 * (tmp_path / "2/x.y.mp4").stat().st_size
    assert sorted(os.listdir(tmp_path / "shards")) == before


def test_webdatasets_own_shards_are_read(tmp_path):
    """Written by somebody else: folders in keys, labels in .cls or .json, files that are no videos, no index."""
    video = write_drifting(tmp_path / "v.mp4", 1).read_bytes()
    with tarfile.open(tmp_path / "their.tar", "w") as archive:
        for name, content in [("./run/a.mp4", video), ("./run/a.cls", b"7\n"), ("./run/a.txt", b"words"),
                              ("b.json", b'{"label": 2}'), ("b.x.mp4", video), ("c.MP4", video), ("c.json", b"no")]:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    assert len(frames_of(f"{tmp_path}/their.tar::b.x.mp4")) == 12   # no index: the headers are read
    pack.main([str(tmp_path / "their.tar"), "--out", str(tmp_path / "lists")])
    rows = read_list(tmp_path / "lists" / "shards.csv", need_label=False)
    assert list(rows.paths) == [f"{tmp_path}/their.tar::{name}" for name in ("./run/a.mp4", "b.x.mp4", "c.MP4")]
    assert rows.labels.tolist() == [7, 2, -1]
    assert all(len(frames_of(path)) == 12 for path in rows.paths)


@pytest.mark.faults
def test_what_is_wrong_with_a_shard_is_a_bad_video(tmp_path):
    _, shards = packed(tmp_path)
    container, member = split_member(shards.paths[2])

    def cause(path):
        with pytest.raises(VideoError) as error:
            frames_of(path)
        assert error.value.path == path
        return error.value.cause

    assert "No such member" in cause(f"{container}::gone.mp4")
    assert "No such file" in cause(f"{tmp_path}/gone.tar::a.mp4")
    content = open(container, "rb").read()
    with open(container, "wb") as file:
        file.write(content[:len(content) // 2])
    assert "make it anew" in cause(shards.paths[2])
    os.unlink(container + ".index")
    assert "tar" in cause(shards.paths[2])
    with tarfile.open(tmp_path / "z.tar", "w:gz") as archive:
        archive.add(tmp_path / "c.mp4", "a.mp4")
    assert "compressed" in cause(f"{tmp_path}/z.tar::a.mp4")
    (tmp_path / "no.tar.index").write_text("nothing")
    (tmp_path / "no.tar").write_bytes(content)
    assert ".index is none" in cause(f"{tmp_path}/no.tar::{member}")


@pytest.mark.faults
def test_shards_by_other_hands(tmp_path):
    """Hard links are followed; what hides a member, or leaves open which one is meant, is refused."""
    one, two = (write_drifting(tmp_path / f"{seed}.mp4", seed).read_bytes() for seed in (1, 2))
    linked = write_tar(tmp_path / "linked.tar", ("a.mp4", one), ("b.mp4", "a.mp4"))
    assert np.array_equal(frames_of(f"{linked}::b.mp4"), frames_of(tmp_path / "1.mp4"))
    twice = write_tar(tmp_path / "twice.tar", ("a.mp4", one), ("a.mp4", two))
    good = write_tar(tmp_path / "good.tar", ("a.mp4", one), ("b.mp4", two)).read_bytes()
    header = good.rfind(b"b.mp4")
    (tmp_path / "header.tar").write_bytes(good[:header] + b"X" + good[header + 1:])
    (tmp_path / "joined.tar").write_bytes(good + twice.read_bytes())
    for path, cause in ((f"{twice}::a.mp4", "two members"), (f"{tmp_path}/header.tar::a.mp4", "damaged header"),
                        (f"{tmp_path}/joined.tar::a.mp4", "behind its end"),
                        (f"{tmp_path}/x.tar.gz::a.mp4", "unpack the compressed one"),
                        ("http://127.0.0.1:9/s.tar?key=1::a.mp4", "without a query")):
        with pytest.raises(VideoError, match=cause):
            frames_of(path)
    with pytest.raises(ValueError, match="damaged header"):
        pack.main([f"{tmp_path}/header.tar", "--out", str(tmp_path)])


@pytest.mark.faults
def test_an_index_of_another_shard_of_the_same_size_is_noticed(tmp_path):
    """Two videos that have changed places make a tar file of the same size, and one of them was the shorter one."""
    one, two = (write_drifting(tmp_path / f"{seed}.mp4", seed).read_bytes() for seed in (1, 2))
    size = max(len(one), len(two)) + 1024
    one, two = one.ljust(size, b"\0"), two.ljust(size, b"\0")
    shard, name, accent = tmp_path / "s.tar", "k" * 90 + "/" + "n" * 90 + ".mp4", "é.mp4"
    members = [("a.mp4", one), ("b.mp4", two), ("c.mp4", "a.mp4"), (name, two), (accent, two)]
    write_tar(shard, *members)
    pack.main([str(shard), "--out", str(tmp_path / "lists")])
    for member, seed in (("a.mp4", 1), ("b.mp4", 2), ("c.mp4", 1), (name, 2), (accent, 2)):
        assert np.array_equal(frames_of(f"{shard}::{member}"), frames_of(tmp_path / f"{seed}.mp4"))
    before = shard.stat().st_size
    write_tar(shard, members[1], members[0], *members[2:])
    assert shard.stat().st_size == before
    for member in ("a.mp4", "b.mp4"):
        with pytest.raises(VideoError, match="index was made for another tar file of this size: make it anew"):
            frames_of(f"{shard}::{member}")
    pack.main([str(shard), "--out", str(tmp_path / "lists")])
    assert np.array_equal(frames_of(f"{shard}::a.mp4"), frames_of(tmp_path / "1.mp4"))


@pytest.mark.faults
def test_what_cannot_be_packed_is_named(tmp_path, capsys):
    rows = [(write_drifting(tmp_path / "a.mp4", 1), 0), (tmp_path / "gone.mp4", 1),
            (write_folder(tmp_path / "f", 1), 2)]
    line = one_line(capsys, lambda: packed(tmp_path, videos=rows))
    assert "line 2" in line and "gone.mp4" in line and "--allow_missing" in line
    assert os.listdir(tmp_path / "shards") == []
    _, shards = packed(tmp_path, "--allow_missing", videos=rows)
    assert shards.labels.tolist() == [0]
    line = one_line(capsys, lambda: pack.main([str(tmp_path / "train.csv"), "--out", str(tmp_path)]))
    assert "another folder" in line


def test_check_list_looks_at_members(tmp_path):
    _, shards = packed(tmp_path)
    with open(tmp_path / "shards" / "train.csv", "a") as file:
        file.write(f"{split_member(shards.paths[0])[0]}::gone.mp4 1\n{shards.paths[1]} 1\n")
    assert check_list.main([str(tmp_path / "shards" / "train.csv"), "--num_workers", "0"]) == 1
    report = json.loads((tmp_path / "shards" / "train.report.json").read_text())
    assert [(one["line"], one["problem"]) for one in report["findings"]] == [(4, "unreadable"), (5, "duplicate")]


def test_local_files_import_nothing_of_it(tmp_path):
    """The drivers are loaded where an address is met, never for local files and shards."""
    _, shards = packed(tmp_path)
    code = ("import sys\nfrom tats.datasets.video.decode import open_video\n"
            "for path in sys.argv[1:]:\n    with open_video(path, 'pyav') as video: video.read([0])\n"
            "assert not {'fsspec', 'aiohttp', 'botocore'} & set(sys.modules), 'loaded'")
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "c.mp4"), shards.paths[0]], check=True)
