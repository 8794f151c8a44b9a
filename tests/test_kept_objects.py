"""Copies of objects and of indexes on the local disk."""

import multiprocessing
import os
import random
from collections import OrderedDict

import numpy as np
import pytest
from elsewhere import frames_of, packed
from tats.datasets import pack
from tats.datasets.lists.list_file import read_list
from tats.datasets.sources import kept_arrays, opening
from tats.datasets.sources.kept_arrays import keep_indexes
from tats.datasets.sources.kept_files import KeptFiles, keep_remote_files
from tats.datasets.sources.opening import SourceError
from tats.datasets.video import packet_index
from tats.datasets.video.decode import VideoError
from tats.engines.run_mae_pretraining import main as pretrain
from tiny_runs import small_pretraining_flags
from videos import write_drifting, write_list

pytest_plugins = ["store_fixtures"]
pytestmark = pytest.mark.usefixtures("quick_attempts")


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


@pytest.mark.faults
def test_a_copy_of_a_small_object_that_is_damaged_is_fetched_anew(store, tmp_path):
    """Cut off, changed in one byte, empty, or written by a version that kept the bare bytes."""
    expected = frames_of(write_drifting(store.folder / "c.mp4", 3, height=48, width=64))
    bare = (store.folder / "c.mp4").read_bytes()
    keep_remote_files(str(tmp_path / "kept"), 1)
    frames_of(f"{store.address}/c.mp4")
    copy, = kept(tmp_path / "kept")
    good = copy.read_bytes()
    middle = len(good) // 2
    changed = good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1:]
    for count, content in enumerate((good[:-1], good[:20], b"", changed, bare, good + b"x"), 2):
        copy.write_bytes(content)
        assert np.array_equal(frames_of(f"{store.address}/c.mp4"), expected)
        assert store.gets("c.mp4") == count and copy.read_bytes() == good
    assert np.array_equal(frames_of(f"{store.address}/c.mp4"), expected) and store.gets("c.mp4") == count


@pytest.mark.faults
def test_members_of_a_shard_that_was_replaced_by_one_of_the_same_size(store, tmp_path):
    """Its kept members and index are another shard's; where the store is silent they are better than nothing."""
    plain, _ = packed(store.folder, "--prefix", f"{store.address}/shards")
    keep_remote_files(str(tmp_path / "kept"), 1)
    first, second, _ = read_list(store.folder / "shards" / "train.csv").paths
    old = [frames_of(path) for path in (first, second)]
    write_list(tmp_path / "new.csv", [(plain.paths[1], 1), (plain.paths[0], 3), (plain.paths[2], 3)])
    pack.main([str(tmp_path / "new.csv"), "--out", str(tmp_path / "new"), "--prefix", f"{store.address}/shards"])
    shard = store.folder / "shards" / "train-000000.tar"
    before = shard.stat()
    names = [path.split("::")[1] for path in (first, second)]
    for ending in ("", ".index"):   # the same names for other videos, in the other order
        content = (tmp_path / "new" / f"new-000000.tar{ending}").read_bytes()
        if ending:
            new = [line.split(b"\t")[2].decode() for line in content.split(b"\n")[1:-1] if line.endswith(b".mp4")]
            for name, other in zip(names, new, strict=False):
                content = content.replace(other.encode(), name.encode())
        (shard.parent / f"train-000000.tar{ending}").write_bytes(content)
    assert shard.stat().st_size == before.st_size
    os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))
    opening._shard.cache_clear()   # as in another process
    opening._shard_version.cache_clear()
    opening._INDEXES.forget((first.split("::")[0], None))
    assert np.array_equal(frames_of(first), old[1]) and np.array_equal(frames_of(second), old[0])
    opening._shard.cache_clear()
    opening._shard_version.cache_clear()
    store.faults["HEAD"] = ["403"] * 9
    assert np.array_equal(frames_of(first), old[1])


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


@pytest.fixture
def long_ones(tmp_path, monkeypatch):
    """Two videos that count as long, in a place where no other test's index is known."""
    monkeypatch.setattr(packet_index, "LARGE", 1000)
    monkeypatch.setattr(packet_index, "_CACHE", OrderedDict())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    monkeypatch.setenv("TATS_INDEX_CACHE", "")
    return [write_drifting(tmp_path / f"{seed}.mp4", seed) for seed in (1, 2)]


def kept(folder):
    return [path for path in folder.glob("??/*") if path.is_file()]


def test_where_indexes_are_kept(long_ones, tmp_path):
    for named, folder, count in (("", tmp_path / "own/tats", 2), (tmp_path / "there", tmp_path / "there", 2),
                                 ("none", tmp_path, 0)):
        packet_index._CACHE.clear()
        assert keep_indexes(str(named)) == ""
        for path in long_ones:
            frames_of(path)
        assert len(kept(folder)) == count
    os.environ["TATS_INDEX_CACHE"] = ""
    keep_remote_files(str(tmp_path / "objects"), 1)
    packet_index._CACHE.clear()
    assert keep_indexes("") == "" and len(frames_of(long_ones[0])) == 12 and len(kept(tmp_path / "objects")) == 1
    with pytest.raises(ValueError, match="--index_cache .*1.mp4"):
        keep_indexes(str(long_ones[0]))


@pytest.mark.parametrize("limit", ["many", "nan", "inf", "0", "-1"])
def test_a_limit_in_the_environment_that_is_none(limit, monkeypatch):
    monkeypatch.setenv("TATS_CACHE_GB", limit)
    with pytest.raises(ValueError, match=f"TATS_CACHE_GB={limit} "):
        keep_remote_files("", 50.)


def test_a_relative_folder_of_the_environment_is_below_this_one(long_ones, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TATS_INDEX_CACHE", "beside")
    assert keep_indexes("") == "" and len(frames_of(long_ones[0])) == 12 and len(kept(tmp_path / "beside")) == 1


@pytest.mark.faults
def test_what_is_no_index_of_a_video_is_made_anew(long_ones, tmp_path):
    """Empty, cut off, changed, of another video: the pictures are those of the video, and the copy is mended."""
    wanted = [frames_of(path) for path in long_ones]
    one, other = sorted(kept(tmp_path / "own/tats"), key=lambda path: path.stat().st_mtime_ns)
    good, foreign = one.read_bytes(), other.read_bytes()
    for content in (b"", good[:32], good[:len(good) // 2], good[:-1], good[:-40] + b"x" + good[-39:], foreign):
        one.write_bytes(content)
        packet_index._CACHE.clear()
        assert all(np.array_equal(frames_of(path), frames) for path, frames in zip(long_ones, wanted, strict=True))
        assert one.read_bytes()[:32] == good[:32] and len(one.read_bytes()) == len(good)


def test_a_count_of_bytes_that_is_none_is_counted_anew(tmp_path):
    cache = KeptFiles(tmp_path, 1000)
    for content in (b"", b"x", b"9" * 5000):
        (tmp_path / "size").write_bytes(content)
        cache.forget("a")
        cache.open("a", lambda: b"a" * 10)
        assert cache.found("a").read() == b"a" * 10
        assert int((tmp_path / "size").read_bytes()) == cache.path("a").stat().st_size


@pytest.mark.faults
def test_a_home_that_cannot_be_written(long_ones, tmp_path, monkeypatch, caplog, shapes):
    """One line at the start of a program, none for a video; the pictures are the same."""
    expected = frames_of(long_ones[0])
    monkeypatch.setenv("XDG_CACHE_HOME", str(long_ones[1]))   # no folder
    packet_index._CACHE.clear()
    pretrain(small_pretraining_flags(shapes, tmp_path / "out", "--epochs", "1"))
    assert np.array_equal(frames_of(long_ones[0]), expected)
    lines = [record.message for record in caplog.records if "index" in record.message or "cache" in record.message]
    assert len(lines) == 1 and "are not kept" in lines[0] and "--index_cache" in lines[0]
    caplog.clear()
    pretrain(small_pretraining_flags(shapes, tmp_path / "quiet", "--epochs", "1", "--index_cache", "none"))
    assert "are not kept" not in caplog.text


def _list_both(paths, wanted):
    for path, expected in zip(paths, wanted, strict=True):
        for _ in range(5):
            packet_index._CACHE.clear()
            assert np.array_equal(frames_of(path), expected)


def test_two_processes_keep_the_same_indexes_within_the_limit(long_ones, tmp_path, monkeypatch):
    monkeypatch.setattr(kept_arrays, "_LIMIT", 1500)   # room for one
    wanted = [frames_of(path) for path in long_ones]
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_list_both, args=(paths, wanted[::step]))
                for step, paths in ((1, long_ones), (-1, long_ones[::-1]))]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    sizes = [path.stat().st_size for path in kept(tmp_path / "own/tats")]
    assert len(sizes) >= 1 and sum(sizes) <= 1500 + max(sizes)   # one more is in flight
    assert not list((tmp_path / "own/tats").glob("??/*.writing"))
