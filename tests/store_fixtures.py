"""Fixtures: object stores on loopback that speak HTTP, Amazon's, Google's and the Hub's protocol."""

import importlib.util

import pytest
from object_store import ObjectStore
from other_stores import GoogleStore, HubStore
from tats.datasets.sources import remote


@pytest.fixture
def quick_attempts(monkeypatch):
    """No waiting between attempts, and no cache that the environment names."""
    monkeypatch.setattr(remote, "FIRST_WAIT", .01)
    for name in ("TATS_CACHE_DIR", "TATS_CACHE_GB"):
        monkeypatch.setenv(name, "")


@pytest.fixture
def store(tmp_path):
    (tmp_path / "store").mkdir()
    server = ObjectStore(tmp_path / "store")
    yield server
    server.close()


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


@pytest.fixture
def google(monkeypatch, tmp_path):
    """A store of Google's protocol; gcsfs finds it by its environment."""
    if importlib.util.find_spec("gcsfs") is None:   # imported by our code, which says how
        pytest.skip("no gcsfs")
    yield from drivers_of(GoogleStore(tmp_path / "bucket"), monkeypatch, "gs",
                          lambda address: {"FSSPEC_GS_ENDPOINT_URL": address, "FSSPEC_GS_TOKEN": "anon"})


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A data set on a hub; huggingface_hub finds it by its environment."""
    pytest.importorskip("huggingface_hub")
    yield from drivers_of(HubStore(tmp_path / "repository"), monkeypatch, "hf",
                          lambda address: {"FSSPEC_HF_ENDPOINT": address})


def drivers_of(store, monkeypatch, scheme, environment):
    """The store while its driver knows it, as from the start of a process."""
    from fsspec.config import conf, set_conf_env

    store.folder.mkdir()
    for name, value in environment(store.address).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(conf, scheme, {})
    set_conf_env(conf)
    remote._system.cache_clear()
    yield store
    remote._system.cache_clear()
    store.close()
