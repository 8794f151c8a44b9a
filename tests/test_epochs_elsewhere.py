"""Training over shards and stores is training over files: the same losses and weights to the bit."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest
from elsewhere import upload
from object_store import FAILURES
from tats.datasets import pack
from tats.datasets.lists.list_file import read_list
from tats.engines import run_mae_pretraining
from tiny_runs import assert_equal_states, final_state

pytest_plugins = ["store_fixtures"]
pytestmark = pytest.mark.usefixtures("quick_attempts")


def pretraining(out, data):
    """The flags of two epochs."""
    return [
        "--model", "pretrain_tats_tiny", "--data_path", str(data), "--output_dir", str(out), "--batch_size", "8",
        "--num_workers", "0", "--mask_type", "tats", "--mask_ratio", "0.75", "--epochs", "2", "--sampling_rate", "1",
        "--warmup_epochs", "0", "--lr", "0.05", "--device", "cpu", "--max_bad_fraction", "0.1", "--num_frames", "4",
        "--input_size", "16", "--save_every_steps", "1", "--keep_last", "0", "--decode_timeout", "0",
        "--mae_only_epochs", "0"]


def pretrained(out, data, *more):
    """What two epochs of pre-training say of themselves, but for times."""
    run_mae_pretraining.main([*pretraining(out, data), *more])
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


def over_the_store(folder, store, local=()):
    """The list of `folder` in the store: every fourth row an object, the others members of a shard; `local`: of these
    rows the shards are here."""
    pack.main([str(folder / "train.csv"), "--out", str(store.folder), "--prefix", store.address])
    rows = (store.folder / "train.csv").read_text().splitlines(keepends=True)
    for place, path in enumerate(read_list(folder / "train.csv").paths):
        if place and place % 4 == 0:
            (store.folder / f"{place}.mp4").write_bytes(open(path, "rb").read())
            rows[place] = f"{store.address}/{place}.mp4 {rows[place].split()[-1]}\n"
        elif place in local:
            rows[place] = rows[place].replace(store.address, str(store.folder))
    (store.folder / "train.csv").write_text("".join(rows))
    return store.folder / "train.csv"


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
@pytest.mark.parametrize("every", [0, 15])
def test_one_epoch_over_a_store_is_that_over_files(every, epochs_over_files, store, tmp_path, fault):
    """Members of a shard and whole objects; `every`: of so many requests one fails. Killed and resumed, too."""
    folder, expected = epochs_over_files
    store.every = every
    data, cache = over_the_store(folder, store), ("--cache_dir", str(tmp_path / "kept"))
    assert pretrained(tmp_path / "a", data) == expected
    assert re.search(r"cut\.mp4: Invalid data", (tmp_path / "a" / "bad_videos.txt").read_text())
    assert resumed(tmp_path / "a", tmp_path / "b", data, *cache) == expected
    if every:
        assert store.met == len(store.requests) // every and store.met / len(store.requests) >= .05
        failed = f"{store.met / len(store.requests):.1%} of requests fail: {', '.join(FAILURES)}"
        fault(failed, "the same losses to the bit")


@pytest.mark.faults
def test_one_epoch_over_an_s3_store_that_misbehaves_is_that_over_files(epochs_over_files, s3, tmp_path, fault):
    folder, expected = epochs_over_files
    store, client = s3
    pack.main([str(folder / "train.csv"), "--out", str(tmp_path / "s"), "--prefix", "s3://bucket"])
    upload(client, tmp_path / "s", "")
    store.every = 15
    data = tmp_path / "s" / "train.csv"
    assert pretrained(tmp_path / "a", data) == expected
    assert resumed(tmp_path / "a", tmp_path / "b", data) == expected
    reads = [request for request in store.requests if request[0] in ("GET", "HEAD")]
    assert store.met == len(reads) // 15 and store.met / len(reads) >= .05
    fault(f"S3: {store.met / len(reads):.1%} of requests fail", "same losses to the bit")


@pytest.mark.slow
@pytest.mark.faults
def test_a_run_that_is_killed_and_resumed_is_one_that_was_not(epochs_over_files, store, tmp_path, fault):
    """SIGKILL between two steps of the second epoch, at the first request of the third; shards here and on the store,
    objects, 5 % of requests failing: the losses and all states are those of the run over files."""
    folder, expected = epochs_over_files
    data, out = over_the_store(folder, store, local=range(1, 24, 3)), tmp_path / "out"
    flags = [*pretraining(out, data), "--decode_timeout", "60"]
    process = subprocess.Popen([sys.executable, "-m", "tats.engines.run_mae_pretraining", *flags],
                               env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)

    def kill(name):
        if (out / "epoch-1-step-5.pth").exists():
            process.kill()

    store.every, store.on_request = 15, kill
    said = process.communicate(timeout=300)[1]
    assert process.returncode == -signal.SIGKILL, said
    assert len((out / "log.txt").read_text().splitlines()) == 1 and not (out / "checkpoint-1.pth").exists()
    store.on_request = None
    assert pretrained(out, data) == expected
    killed, whole = ({**final_state(one), "identity": None} for one in (out, folder / "out"))   # of other lists
    assert_equal_states(killed, whole)
    fault("SIGKILL within an epoch over shards and a store", "resumed: the same losses and weights to the bit")
