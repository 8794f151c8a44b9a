"""Drivers of the stores: Amazon's, Google's and the Hub's protocols on loopback; those that are missing."""

import importlib.util
import re

import numpy as np
import pytest
from elsewhere import frames_of, one_line, packed, upload
from object_store import FAULTS
from tats.datasets.lists.list_file import read_list
from tats.datasets.sources.addresses import _DRIVERS, driver_fault
from tats.datasets.video.decode import VideoError
from videos import write_drifting

pytest_plugins = ["store_fixtures"]
pytestmark = pytest.mark.usefixtures("quick_attempts")


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


@pytest.mark.parametrize(("scheme", "module"), [("az", "adlfs"), ("gs", "gcsfs"), ("hf", "huggingface_hub"),
                                                ("s3", "s3fs"), ("https", "aiohttp"), ("hf", "fsspec")])
def test_a_missing_driver_is_named_before_the_run(scheme, module, tmp_path, monkeypatch, capsys):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: name != module and real(name, *more) or None)
    (tmp_path / "l.csv").write_text(f"{scheme}://box/a.mp4 1\n")
    assert f"pip install {module}" in one_line(capsys, lambda: read_list(tmp_path / "l.csv"))
    with pytest.raises(VideoError, match=f"{scheme}:// needs {module}"):
        frames_of(f"{scheme}://box/a.mp4")


def test_other_schemes_are_refused_in_a_line(tmp_path, capfd):
    """All that fsspec knows, and some that it does not: named before the run, and where one is met within a list."""
    pytest.importorskip("fsspec")
    import fsspec

    read = {"file", "local", "memory"}
    for scheme in sorted({*fsspec.available_protocols(), "nosuch", "ftps", "S3 "} - set(_DRIVERS) - read):
        (tmp_path / "l.csv").write_text(f"{scheme}://box/a.mp4 1\n")
        with pytest.raises(ValueError, match="is not supported|needs a package") as early:
            read_list(tmp_path / "l.csv")
        with pytest.raises(VideoError) as late:
            frames_of(f"{scheme}://box/a.mp4")
        assert str(early.value) == late.value.cause and "\n" not in late.value.cause
        assert not re.search("Error|argument", late.value.cause), scheme
    said = {scheme: driver_fault(scheme) for scheme in ("ftp", "ssh", "oss", "nosuch")}
    assert said["ftp"].startswith("ftp:// is not supported (s3://, ") and said["ssh"].startswith("ssh:// is not")
    assert "ossfs" in said["oss"] and "no such scheme" in said["nosuch"]
    assert capfd.readouterr().err == ""


def test_schemes_that_need_only_an_address_are_read(tmp_path):
    """fsspec's own, and a driver that the user registers."""
    pytest.importorskip("fsspec")
    import fsspec
    from fsspec.implementations.local import LocalFileSystem

    class Mine(LocalFileSystem):
        protocol = "mine"

        @classmethod
        def _strip_protocol(cls, path):
            return super()._strip_protocol(path.removeprefix("mine://"))

    class Hosted(Mine):
        def __init__(self, host, **more):
            super().__init__(**more)

    fsspec.register_implementation("mine", Mine, clobber=True)
    fsspec.register_implementation("hosted", Hosted, clobber=True)
    path = write_drifting(tmp_path / "a.mp4", 1)
    expected = frames_of(path)
    fsspec.filesystem("memory").pipe("/a.mp4", path.read_bytes())
    for address in (f"file://{path}", f"mine://{path}", "memory://a.mp4"):
        assert np.array_equal(frames_of(address), expected)
    with pytest.raises(VideoError, match=r"more than an address \(host\)"):
        frames_of(f"hosted://{path}")


@pytest.mark.parametrize(("name", "prefix", "limit"), [("google", "gs://bucket", 71),
                                                       ("hub", "hf://datasets/me/videos", 72)])
def test_objects_of_other_stores(name, prefix, limit, tmp_path, request):
    """Google's and the Hub's: whole objects and members of shards, here and in a decoder process; what is missing."""
    store = request.getfixturevalue(name)
    plain, _ = packed(tmp_path, "--prefix", f"{prefix}/shards")
    (tmp_path / "shards").rename(store.folder / "shards")
    (tmp_path / "c.mp4").rename(store.folder / "c d.mp4")
    plain = [*list(plain.paths)[:2], *[store.folder / "c d.mp4"] * 2]
    paths = [*read_list(store.folder / "shards" / "train.csv").paths, f"{prefix}/c d.mp4"]
    for seconds in (0, limit):   # a limit that no other test has: a process that knows this store
        for one, other in zip(plain, paths, strict=True):
            assert other.startswith(prefix) and np.array_equal(frames_of(one), frames_of(other, seconds=seconds))
    for gone in (f"{prefix}/gone.mp4", f"{prefix}/no/gone.mp4", f"{prefix}/gone.tar::a.mp4"):
        with pytest.raises(VideoError, match=r"No such object|no gone\.tar\.index"):
            frames_of(gone)
