"""Videos that are no local files: shards read in place, objects on a store that misbehaves, and copies of them."""

import io
import json
import multiprocessing
import os
import random
import re
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from object_store import FAULTS, ObjectStore
from tats.datasets import pack
from tats.datasets.lists.list_file import read_list
from tats.datasets.program import run_program
from tats.datasets.sources import opening, ranged, remote
from tats.datasets.sources.addresses import split_member
from tats.datasets.sources.kept_files import KeptFiles, keep_remote_files
from tats.datasets.sources.opening import SourceError, open_source
from tats.datasets.video import container_file, packet_index
from tats.datasets.video.decode import VideoError, open_video
from tats.datasets.windows import WindowClips, Windows
from tats.engines import run_mae_pretraining
from videos import write_drifting, write_folder, write_list, write_long


@pytest.fixture(autouse=True)
def quick_attempts(monkeypatch):
    monkeypatch.setattr(remote, "FIRST_WAIT", .01)
    for name in ("TATS_CACHE_DIR", "TATS_CACHE_GB"):
        monkeypatch.setenv(name, "")


@pytest.fixture
def store(tmp_path):
    (tmp_path / "store").mkdir()
    server = ObjectStore(tmp_path / "store")
    yield server
    server.close()


def packed(folder, *more, videos=None):
    """Three videos and their list, packed into shards; (the list, the list over the shards)."""
    size = {"height": 48, "width": 64}
    videos = videos or [(write_drifting(folder / "a b" / "x.y.mp4", 1, **size), 3),
                        (write_drifting(folder / "2" / "x.y.mp4", 2, **size), 1),
                        (write_drifting(folder / "c.mp4", 3, count=20, **size), 3)]
    write_list(folder / "train.csv", videos)
    pack.main([str(folder / "train.csv"), "--out", str(folder / "shards"), *more])
    return read_list(folder / "train.csv"), read_list(folder / "shards" / "train.csv")


def frames_of(path, **how):
    with open_video(path, **how) as video:
        return video.read(np.arange(video.num_frames))


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
        file.write(content[:-4000])
    assert "make it anew" in cause(shards.paths[2])
    os.unlink(container + ".index")
    assert "tar" in cause(shards.paths[2])
    with tarfile.open(tmp_path / "z.tar", "w:gz") as archive:
        archive.add(tmp_path / "c.mp4", "a.mp4")
    assert "compressed" in cause(f"{tmp_path}/z.tar::a.mp4")
    (tmp_path / "no.tar.index").write_text("nothing")
    (tmp_path / "no.tar").write_bytes(content)
    assert ".index is none" in cause(f"{tmp_path}/no.tar::{member}")


def write_tar(path, *members):
    """A tar file of (name, content)s; content as text: a hard link to that member."""
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.LNKTYPE, content
            entry.size = 0 if isinstance(content, str) else len(content)
            archive.addfile(entry, io.BytesIO(b"" if isinstance(content, str) else content))
    return path


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


def one_line(capsys, call):
    with pytest.raises(SystemExit) as end:
        run_program(call)
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert end.value.code == 2 and line.startswith("error:")
    return line


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


def test_objects_and_members_behind_addresses(store, tmp_path):
    plain, _ = packed(store.folder, "--prefix", f"{store.address}/shards")
    shards = read_list(store.folder / "shards" / "train.csv")
    for one, other in zip(plain.paths, shards.paths, strict=True):
        assert other.startswith("http://") and np.array_equal(frames_of(one), frames_of(other))
    assert store.gets("shards/train-000000.tar.index") == 1 and store.gets("shards/train-000000.tar") == 3
    for address in (store.address, store.address.replace("http", "HTTP")):
        assert np.array_equal(frames_of(f"{address}/c.mp4?key=1"), frames_of(plain.paths[2]))
    store.faults["c.mp4"] = ["moved"]
    assert np.array_equal(frames_of(f"{store.address}/c.mp4"), frames_of(plain.paths[2]))
    windows = WindowClips(read_list(store.folder / "shards" / "train.csv"), [2], Windows(8, 4, False), (4, 16))
    assert [chunk.ends.tolist() for chunk in windows][0] == pytest.approx([.32, .48, .64, .8])


@pytest.fixture
def s3(monkeypatch):
    """(moto's S3 server behind a store that can misbehave, a client of it); s3fs finds it by its environment."""
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    from fsspec.config import conf, set_conf_env

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    store = ObjectStore(upstream="http://{}:{}".format(*server.get_host_and_port()))
    for name, value in {"FSSPEC_S3_ENDPOINT_URL": store.address, "AWS_ACCESS_KEY_ID": "a",
                        "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(conf, "s3", {})
    set_conf_env(conf)   # as at the start of a process
    remote._system.cache_clear()
    client = boto3.client("s3", endpoint_url=store.address)
    client.create_bucket(Bucket="bucket")
    yield store, client
    remote._system.cache_clear()
    store.close()
    server.stop()


def upload(client, folder, prefix):
    for path in folder.iterdir():
        client.upload_file(str(path), "bucket", f"{prefix}{path.name}")


def test_objects_of_an_s3_store(s3, tmp_path):
    """Whole objects and members of shards, in this process and in a decoder process."""
    _, client = s3
    plain, _ = packed(tmp_path, "--prefix", "s3://bucket/shards")
    upload(client, tmp_path / "shards", "shards/")
    client.upload_file(str(tmp_path / "c.mp4"), "bucket", "c.mp4")
    paths = [*read_list(tmp_path / "shards" / "train.csv").paths, "s3://bucket/c.mp4"]
    for seconds in (0, 58):
        for one, other in zip([*plain.paths, plain.paths[2]], paths, strict=True):
            assert np.array_equal(frames_of(one), frames_of(other, seconds=seconds))
    for gone in ("s3://bucket/gone.mp4", "s3://no-bucket/a.mp4"):
        with pytest.raises(VideoError, match="No such object"):
            frames_of(gone)


@pytest.mark.faults
def test_an_s3_store_that_misbehaves(s3, tmp_path):
    """Each fault passes or is a bad video with its cause, and is never another picture."""
    store, client = s3
    expected = frames_of(write_drifting(tmp_path / "a.mp4", 1))
    client.upload_file(str(tmp_path / "a.mp4"), "bucket", "a.mp4")
    for fault in FAULTS:
        store.faults["bucket/a.mp4"] = [fault, fault]
        assert np.array_equal(frames_of("s3://bucket/a.mp4"), expected), fault
        assert store.faults["bucket/a.mp4"] == ([fault] if fault == "slow" else [])
    store.faults["HEAD"] = ["503", "503"]
    assert np.array_equal(frames_of("s3://bucket/a.mp4"), expected) and not store.faults["HEAD"]
    for fault in ("503", "cut", "short", "403"):
        store.faults["bucket/a.mp4"] = [fault] * 50
        with pytest.raises(VideoError):
            frames_of("s3://bucket/a.mp4")


@pytest.mark.faults
def test_of_a_large_object_only_parts_are_fetched(store, tmp_path, monkeypatch):
    """Whole or in a shard, whatever happens to a part; and what was fetched is kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    for module, name in ((opening, "WHOLE"), (packet_index, "LARGE"), (container_file, "LARGE")):
        monkeypatch.setattr(module, name, 1 << 20)
    monkeypatch.setattr(ranged, "BLOCK", 1 << 14)
    path, wanted = write_long(store.folder / "long.mp4", 3000), range(1000, 1016, 4)
    with open_video(path) as video:
        expected = video.read(wanted)
    write_list(tmp_path / "list.csv", [(path, 0)])
    pack.main([str(tmp_path / "list.csv"), "--out", str(store.folder), "--prefix", store.address])
    objects = {"long.mp4": f"{store.address}/long.mp4",
               "list-000000.tar": read_list(store.folder / "list.csv").paths[0]}

    def fetched(address):
        packet_index._CACHE.clear()
        before = store.sent
        with open_video(address) as video:
            assert video.num_frames == 3000 and np.array_equal(video.read(wanted), expected)
        return (store.sent - before) / path.stat().st_size

    for name, address in objects.items():
        assert fetched(address) < .04 and fetched(address) < .03   # with its index, and without
        for fault in ("503", "cut", "short", "long"):
            store.faults[name] = ["", fault, fault]
            fetched(address)
            assert not store.faults[name], fault
        store.faults[name] = ["", *["cut"] * 9]
        with pytest.raises(VideoError, match="5 attempts"):
            fetched(address)
        store.faults.clear()
    store.faults["long.mp4"] = ["whole"]   # a server that knows no ranges sends all of it: once
    assert .99 < fetched(objects["long.mp4"]) < 1.01 and not store.faults["long.mp4"]
    store.faults["list-000000.tar"] = ["whole"] * 9   # of a shard that would be too much
    with pytest.raises(VideoError, match="know byte ranges"):
        fetched(objects["list-000000.tar"])
    store.faults.clear()
    keep_remote_files(str(tmp_path / "kept"), 1)
    for address in objects.values():
        fetched(address)
        assert fetched(address) == 0
    path.write_bytes(write_long(tmp_path / "other.mp4", 2000).read_bytes())   # another version under the old name
    with open_video(objects["long.mp4"]) as video:
        assert video.num_frames == 2000


def test_check_list_looks_at_members(tmp_path):
    from tats.datasets import check_list

    _, shards = packed(tmp_path)
    with open(tmp_path / "shards" / "train.csv", "a") as file:
        file.write(f"{split_member(shards.paths[0])[0]}::gone.mp4 1\n{shards.paths[1]} 1\n")
    assert check_list.main([str(tmp_path / "shards" / "train.csv"), "--num_workers", "0"]) == 1
    report = json.loads((tmp_path / "shards" / "train.report.json").read_text())
    assert [(one["line"], one["problem"]) for one in report["findings"]] == [(4, "unreadable"), (5, "duplicate")]


@pytest.mark.faults
@pytest.mark.parametrize("fault", ["503", "cut", "short", "long", "slow"])
def test_a_fault_that_passes_costs_an_attempt(fault, store):
    write_drifting(store.folder / "a.mp4", 1)
    expected = frames_of(store.folder / "a.mp4")
    store.faults["a.mp4"] = [fault, fault]
    state = random.getstate()
    assert np.array_equal(frames_of(f"{store.address}/a.mp4"), expected)
    assert store.gets("a.mp4") == (1 if fault == "slow" else 3) and random.getstate() == state
    store.faults["HEAD"] = ["503"]
    assert np.array_equal(frames_of(f"{store.address}/a.mp4"), expected) and not store.faults["HEAD"]


def test_drivers_that_draw_do_not_move_a_clips_randomness(monkeypatch):
    class Drawing:
        def info(self, path):
            return {"size": 3}

        def cat_file(self, path, start=None, end=None):
            random.random()
            return b"abc"

    monkeypatch.setattr(remote, "_system", lambda pid, scheme: Drawing())
    state = random.getstate()
    assert remote.fetch("http://a/b") == b"abc" and random.getstate() == state


@pytest.mark.faults
@pytest.mark.parametrize(("fault", "attempts", "cause"), [
    ("503", 5, "503"), ("cut", 5, "attempts"), ("short", 5, "bytes came instead of"), ("403", 1, "403")])
def test_a_fault_that_stays_is_a_bad_video(fault, attempts, cause, store):
    write_drifting(store.folder / "a.mp4", 1)
    store.faults["a.mp4"] = [fault] * 20
    with pytest.raises(VideoError) as error:
        frames_of(f"{store.address}/a.mp4")
    assert cause in error.value.cause and store.gets("a.mp4") == attempts


@pytest.mark.faults
def test_a_missing_object_and_a_store_that_is_gone(store):
    for path, cause in ((f"{store.address}/gone.mp4", "No such object"), ("http://127.0.0.1:9/a.mp4", "attempts"),
                        (f"{store.address}/gone.tar::a.mp4", "index"), ("nosuch://a/b.mp4", "nosuch")):
        with pytest.raises(VideoError) as error:
            frames_of(path)
        assert cause in error.value.cause and error.value.path == path


@pytest.mark.faults
def test_silence_ends_with_the_clips_time(store):
    write_drifting(store.folder / "a.mp4", 1)
    store.faults["a.mp4"] = ["silent"] * 9
    with pytest.raises(VideoError, match="within 2 s"):
        frames_of(f"{store.address}/a.mp4", seconds=2)


def test_a_missing_driver_is_named_before_the_run(tmp_path, monkeypatch):
    (tmp_path / "l.csv").write_text("az://box/a.mp4 1\n")
    with pytest.raises(ValueError, match="pip install adlfs"):
        read_list(tmp_path / "l.csv")


def test_what_is_kept_is_not_fetched_again(store, tmp_path, monkeypatch):
    plain, _ = packed(store.folder, "--prefix", f"{store.address}/shards")
    monkeypatch.setenv("TATS_CACHE_DIR", "")
    keep_remote_files(str(tmp_path / "kept"), 1)
    paths = [*read_list(store.folder / "shards" / "train.csv").paths, f"{store.address}/c.mp4"]
    for seconds in (0, 59):   # a new decoder process knows the folder, too
        for one, other in zip([*plain.paths, plain.paths[2]], paths, strict=True):
            assert np.array_equal(frames_of(one), frames_of(other, seconds=seconds))
    assert store.gets("c.mp4") == 1 and store.gets("shards/train-000000.tar") == 3
    store.faults["2/x.y.mp4"] = ["cut"] * 9
    with pytest.raises(VideoError):
        frames_of(f"{store.address}/2/x.y.mp4")
    store.faults.clear()
    assert len(frames_of(f"{store.address}/2/x.y.mp4")) == 12   # what failed is not kept


def test_the_least_recently_used_goes(tmp_path):
    cache = KeptFiles(tmp_path, 1000)
    fetched = []

    def get(name, size=300):
        found = cache.open(name, lambda: fetched.append(name) or name.encode() * size)
        content = found if isinstance(found, bytes) else found.read()
        assert content == name.encode() * size

    for place, name in enumerate("abc"):
        get(name)
        os.utime(cache.path(name), (place, place))
    get("a")          # used last
    get("d")          # 1200 bytes: b and c, the oldest, go until there is room
    assert [cache.path(name).is_file() for name in "abcd"] == [True, False, True, True] or not cache.path("c").is_file()
    assert cache.path("a").is_file() and cache.path("d").is_file() and not cache.path("b").is_file()
    get("e", 2000)    # larger than all that is allowed: handed on, not kept
    assert fetched == list("abcde") and not cache.path("e").is_file()
    held = cache.open("a", None)
    cache._delete_oldest(0)
    assert held.read() == b"a" * 300 and not cache.path("a").is_file()
    with pytest.raises(SourceError):
        cache.open("f", lambda: (_ for _ in ()).throw(SourceError("gone")))
    assert not cache.path("f").is_file()


def _hammer(folder, seed):
    cache, draw = KeptFiles(folder, 20_000), random.Random(seed)
    for _ in range(300):
        number = draw.randrange(40)
        found = cache.open(f"o{number}", lambda number=number: bytes([number]) * 1000)
        assert (found if isinstance(found, bytes) else found.read()) == bytes([number]) * 1000


@pytest.mark.faults
def test_four_processes_share_a_cache(tmp_path):
    """Nobody reads half a file or another one, and the folder stays within its limit."""
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_hammer, args=(tmp_path, seed)) for seed in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * 4
    assert sum(path.stat().st_size for path in tmp_path.glob("??/*")) <= 24_000   # as many in flight as processes


def pretrained(out, data, *more):
    """What two epochs of pre-training say of themselves, but for times."""
    run_mae_pretraining.main([
        "--model", "pretrain_tats_tiny", "--data_path", str(data), "--output_dir", str(out), "--batch_size", "8",
        "--num_workers", "0", "--mask_type", "tats", "--mask_ratio", "0.75", "--epochs", "2", "--sampling_rate", "1",
        "--warmup_epochs", "0", "--lr", "0.05", "--device", "cpu", "--max_bad_fraction", "0.1", "--num_frames", "4",
        "--input_size", "16", "--save_every_steps", "1", "--keep_last", "0", "--decode_timeout", "0",
        "--mae_only_epochs", "0", *more])
    return [{key: value for key, value in json.loads(line).items() if key.startswith("train_")
             and "second" not in key and "share" not in key} for line in (out / "log.txt").read_text().splitlines()]


@pytest.fixture(scope="module")
def epochs_over_files(shapes, tmp_path_factory):
    """(folder of a list with a bad video among the 24, what pre-training on it said)."""
    folder = tmp_path_factory.mktemp("files")
    lines = (shapes / "train.csv").read_text().splitlines()
    (folder / "cut.mp4").write_bytes((shapes / "train" / "000003.mp4").read_bytes()[:900])
    lines[3] = f"{folder}/cut.mp4 0"
    (folder / "train.csv").write_text("\n".join(lines) + "\n")
    return folder, pretrained(folder / "out", folder / "train.csv")


def resumed(out, again, data, *more):
    """The same after a kill within the second epoch: its newest checkpoint and the log are there."""
    again.mkdir()
    (again / "epoch-1-step-4.pth").write_bytes((out / "epoch-1-step-4.pth").read_bytes())
    (again / "log.txt").write_text((out / "log.txt").read_text().splitlines(keepends=True)[0] + '{"torn')
    return pretrained(again, data, *more)


def test_one_epoch_over_shards_in_decoder_processes_is_that_over_files(epochs_over_files, tmp_path):
    folder, expected = epochs_over_files
    pack.main([str(folder / "train.csv"), "--out", str(tmp_path / "s"), "--shard_mb", "0.05"])
    assert len(list((tmp_path / "s").glob("*.tar"))) > 1
    assert pretrained(tmp_path / "a", tmp_path / "s" / "train.csv", "--num_workers", "2", "--decode_timeout",
                      "60") == expected


@pytest.mark.faults
@pytest.mark.parametrize("every", [0, 20])
def test_one_epoch_over_a_store_is_that_over_files(every, epochs_over_files, store, tmp_path, fault):
    """Members of a shard and whole objects; `every`: of so many requests one fails. Killed and resumed, too."""
    folder, expected = epochs_over_files
    pack.main([str(folder / "train.csv"), "--out", str(store.folder), "--prefix", store.address])
    shards = (store.folder / "train.csv").read_text().splitlines(keepends=True)
    for place, row in list(enumerate(read_list(folder / "train.csv").paths))[4::4]:
        (store.folder / f"{place}.mp4").write_bytes(open(row, "rb").read())
        shards[place] = f"{store.address}/{place}.mp4 {shards[place].split()[-1]}\n"
    (store.folder / "train.csv").write_text("".join(shards))
    store.every = every
    data, cache = store.folder / "train.csv", ("--cache_dir", str(tmp_path / "kept"))
    assert pretrained(tmp_path / "a", data) == expected
    assert re.search(r"cut\.mp4: Invalid data", (tmp_path / "a" / "bad_videos.txt").read_text())
    assert resumed(tmp_path / "a", tmp_path / "b", data, *cache) == expected
    if every:
        assert store.met >= 3
        fault(f"{store.met} of {len(store.requests)} requests fail: {', '.join(FAULTS)}", "tried again, same losses")


@pytest.mark.faults
def test_one_epoch_over_an_s3_store_that_misbehaves_is_that_over_files(epochs_over_files, s3, tmp_path, fault):
    folder, expected = epochs_over_files
    store, client = s3
    pack.main([str(folder / "train.csv"), "--out", str(tmp_path / "s"), "--prefix", "s3://bucket"])
    upload(client, tmp_path / "s", "")
    store.every = 20
    data = tmp_path / "s" / "train.csv"
    assert pretrained(tmp_path / "a", data) == expected
    assert resumed(tmp_path / "a", tmp_path / "b", data) == expected
    assert store.met >= 2
    fault(f"S3: {store.met} of {len(store.requests)} requests fail", "tried again, same losses")


def test_local_files_import_nothing_of_it(tmp_path):
    """The drivers are loaded where an address is met, never for local files and shards."""
    _, shards = packed(tmp_path)
    code = ("import sys\nfrom tats.datasets.video.decode import open_video\n"
            "for path in sys.argv[1:]:\n    with open_video(path, 'pyav') as video: video.read([0])\n"
            "assert not {'fsspec', 'aiohttp', 'botocore'} & set(sys.modules), 'loaded'")
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "c.mp4"), shards.paths[0]], check=True)
