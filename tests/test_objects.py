"""Objects behind addresses and members of shards there, on a store that misbehaves."""

import random

import numpy as np
import pytest
from elsewhere import frames_of, packed, write_tar
from tats.datasets import pack
from tats.datasets.lists.list_file import read_list
from tats.datasets.sources import opening, ranged, remote
from tats.datasets.sources.kept_files import KeptFiles, keep_remote_files
from tats.datasets.video import container_file, packet_index
from tats.datasets.video.decode import VideoError, open_video
from tats.datasets.windows import WindowClips, Windows
from videos import write_drifting, write_list, write_long

pytest_plugins = ["store_fixtures"]
pytestmark = pytest.mark.usefixtures("quick_attempts")


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


@pytest.mark.faults
@pytest.mark.parametrize("keeps", [False, True])
def test_a_shard_that_was_replaced_is_read_by_its_own_index_or_not_at_all(keeps, store, tmp_path):
    """By another shard's index the bytes of one video would stand under the name of another."""
    plain, _ = packed(store.folder, "--prefix", f"{store.address}/shards")
    if keeps:
        keep_remote_files(str(tmp_path / "kept"), 1)
    shard = store.folder / "shards" / "train-000000.tar"
    first, second, _ = read_list(store.folder / "shards" / "train.csv").paths
    assert np.array_equal(frames_of(first), frames_of(plain.paths[0]))
    longer = write_drifting(tmp_path / "longer.mp4", 9, count=300, height=64, width=64)   # sizes are in steps of 10 kB
    write_list(tmp_path / "new.csv", [(longer, 2), (plain.paths[1], 1)])
    pack.main([str(tmp_path / "new.csv"), "--out", str(tmp_path / "new"), "--prefix", f"{store.address}/shards"])
    shard.write_bytes((tmp_path / "new" / "new-000000.tar").read_bytes())
    opening._shard.cache_clear()   # as in another process
    with pytest.raises(VideoError, match=".index was made for a tar file of"):
        frames_of(second)
    index = (tmp_path / "new" / "new-000000.tar.index").read_bytes()
    (shard.parent / "train-000000.tar.index").write_bytes(index)
    moved = read_list(tmp_path / "new" / "new.csv").paths[1].replace("new-0", "train-0")
    assert np.array_equal(frames_of(moved), frames_of(plain.paths[1]))


@pytest.mark.faults
@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize("large", [False, True])
def test_an_index_of_another_remote_shard_of_the_same_size_is_noticed(keeps, large, store, tmp_path, monkeypatch):
    """Two videos of one size that have changed places."""
    if large:
        monkeypatch.setattr(opening, "WHOLE", 1000)
    if keeps:
        keep_remote_files(str(tmp_path / "kept"), 1)
    one, two = (write_drifting(tmp_path / f"{seed}.mp4", seed).read_bytes() for seed in (1, 2))
    one, two = (content.ljust(max(len(one), len(two)) + 1024, b"\0") for content in (one, two))
    shard, long = store.folder / "s.tar", "k" * 90 + "/" + "n" * 90 + ".mp4"
    members = [("a.mp4", one), ("b.mp4", two), ("link.mp4", "a.mp4"), (long, two)]
    write_tar(shard, *members)
    pack.main([str(shard), "--out", str(tmp_path / "lists")])
    for member, seed in (("a.mp4", 1), ("b.mp4", 2), ("link.mp4", 1), (long, 2)):
        assert np.array_equal(frames_of(f"{store.address}/s.tar::{member}"), frames_of(tmp_path / f"{seed}.mp4"))
    write_tar(shard, members[1], members[0], *members[2:])
    for cached in (opening._shard, opening._shard_version):   # as in another process
        cached.cache_clear()
    with pytest.raises(VideoError, match="for another tar file of this size"):
        frames_of(f"{store.address}/s.tar::b.mp4")
    pack.main([str(shard), "--out", str(tmp_path / "lists")])
    for member, seed in (("a.mp4", 1), ("b.mp4", 2), ("link.mp4", 1)):
        assert np.array_equal(frames_of(f"{store.address}/s.tar::{member}"), frames_of(tmp_path / f"{seed}.mp4"))


@pytest.mark.faults
def test_an_object_that_is_replaced_while_it_is_read_is_told(store, tmp_path):
    """Parts of two objects must not become one video, nor be kept as parts of the first."""
    (store.folder / "a.bin").write_bytes(b"a" * (3 * ranged.BLOCK))
    address, kept = f"{store.address}/a.bin", KeptFiles(tmp_path, 10**9)
    known = remote.described(address)
    file = ranged.RangedObject(address, 0, known.size, total=known.size, version=known.version, kept=kept)
    assert file.read(4) == b"aaaa"
    (store.folder / "a.bin").write_bytes(b"b" * (3 * ranged.BLOCK))
    file.seek(2 * ranged.BLOCK)
    with pytest.raises(opening.SourceError, match="replaced while it was read"):
        file.read(4)
    assert all(part.read_bytes().endswith(b"\n" + b"a" * ranged.BLOCK) for part in tmp_path.glob("??/*"))


def test_a_kept_part_that_is_damaged_is_fetched_anew(store, tmp_path):
    (store.folder / "a.bin").write_bytes(b"a" * ranged.BLOCK)
    for damage in (b"", b"a" * 7, None):
        file = ranged.RangedObject(f"{store.address}/a.bin", 0, ranged.BLOCK, total=ranged.BLOCK, version="1",
                                   kept=KeptFiles(tmp_path, 10**9))
        file.version = None   # what the store says of it is not the thing here
        assert file.read(ranged.BLOCK) == b"a" * ranged.BLOCK
        part, = tmp_path.glob("??/*")
        assert part.read_bytes().endswith(b"\n" + b"a" * ranged.BLOCK)
        if damage is not None:
            part.write_bytes(damage)
    assert store.gets("a.bin") == 3


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
@pytest.mark.parametrize("address", ["http://", "https:///a.mp4", "http://host:port/a.mp4", "s3://", "loop"])
def test_an_address_that_cannot_be_is_tried_once(address, store, monkeypatch):
    if address.startswith("s3"):
        pytest.importorskip("s3fs")
    monkeypatch.setattr(remote, "FIRST_WAIT", 99)
    if address == "loop":
        address = f"{store.address}/loop.mp4"
        monkeypatch.setattr(store, "fault_of", lambda *_: "moved")
    with pytest.raises(VideoError) as error:
        frames_of(address)
    assert "attempts" not in error.value.cause and "No such object" not in error.value.cause


@pytest.mark.faults
def test_silence_ends_with_the_clips_time(store):
    write_drifting(store.folder / "a.mp4", 1)
    store.faults["a.mp4"] = ["silent"] * 9
    with pytest.raises(VideoError, match="within 2 s"):
        frames_of(f"{store.address}/a.mp4", seconds=2)
