"""Copies of objects and of indexes on the local disk."""

import multiprocessing
import os
import random

import numpy as np
import pytest
from elsewhere import frames_of, packed
from tats.datasets.lists.list_file import read_list
from tats.datasets.sources.kept_files import KeptFiles, keep_remote_files
from tats.datasets.sources.opening import SourceError
from tats.datasets.video.decode import VideoError

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
