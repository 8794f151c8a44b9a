"""Checkpoints made to harm: they run nothing, take no memory to speak of, and end in one line that names them."""

import json
import os
import pickle
import resource
import struct
import sys
import zipfile

import numpy as np
import pytest
import torch
from tats.models import create_model, load_pretraining
from tats.models.convert.files import find_weights, read_checkpoint
from tats.models.import_hf import import_folder

LIMIT = 300 << 20   # bytes that a refusal may take beyond what was in use


def peak():
    """Most bytes that this process has had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def packed(path):
    """A file of 3 MB whose one tensor says that it is 2 GB of zeros."""
    torch.save({"model": {"a": torch.zeros(4)}}, path)
    with zipfile.ZipFile(path) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in records.items():
            with archive.open(name, "w", force_zip64=True) as file:
                for _ in range(2048 if name.endswith("data/0") else 0):
                    file.write(bytes(1 << 20))
                file.write(content)


def legacy(path, elements):
    """An old file whose storage of 4 numbers announces more."""
    torch.save({"model": {"a": torch.zeros(4)}}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    place = content.find(b"K\x04", content.find(b"cpu"))
    path.write_bytes(content[:place] + b"\x8a\x06" + elements.to_bytes(6, "little") + content[place + 2:])


def safetensors(path, header, length=None, body=16):
    header = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", length or len(header)) + header + bytes(body))


BIG = {"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}
SMALL = {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}
BOMBS = {
    "packed zeros.pth": packed,
    "2^40 numbers.pth": lambda path: legacy(path, 1 << 40),
    "20 GB of numbers.pth": lambda path: legacy(path, 5 << 30),
    "an 8 GB bytearray.pth": lambda path: torch.save({"a": torch.zeros(1), "b": Calls(bytearray, 1 << 33)}, path),
    "a 32 TB bytearray, plain.pth": lambda path: torch.save({"a": torch.zeros(1), "b": Calls(bytearray, 1 << 45)}, path,
                                                            _use_new_zipfile_serialization=False),
    "a header of 32 TB.safetensors": lambda path: safetensors(path, SMALL, 1 << 45),
    "a tensor of 4 TB.safetensors": lambda path: safetensors(path, BIG),
    "a configuration that is none.safetensors": lambda path: safetensors(
        path, {"__metadata__": {"config": "[[" * 10_000}} | SMALL),
}


@pytest.mark.faults
@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_without_taking_memory(tmp_path, name, fault):
    if name.endswith("safetensors"):
        pytest.importorskip("safetensors")
    path = tmp_path / name
    BOMBS[name](path)
    before = peak()
    with pytest.raises(ValueError) as refused:
        read_checkpoint(path)
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)
    assert peak() - before < LIMIT
    fault(f"checkpoint: {name.rsplit('.', 1)[0]}", "refused")


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("how", ["torch", "legacy", "pickle"])
@pytest.mark.faults
def test_code_in_a_checkpoint_is_refused_and_does_not_run(tmp_path, protocol, how, fault):
    mark, path = tmp_path / "it ran", tmp_path / "bad.pth"
    state = {"model": {"a": torch.zeros(1)}, "x": Calls(os.system, f"touch '{mark}'")}
    if how == "pickle":
        path.write_bytes(pickle.dumps({"x": state["x"]}, protocol))
    else:
        torch.save(state, path, pickle_protocol=protocol, _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(ValueError):
        read_checkpoint(path)
    assert not mark.exists() and os.listdir(tmp_path) == ["bad.pth"]
    fault(f"code in a checkpoint ({how}, protocol {protocol})", "refused, did not run")


@pytest.mark.faults
def test_mutated_checkpoints_load_or_are_named(tmp_path, fault, request):
    """Through the importer: whatever is in a file, its end is a loaded network or one line."""
    count, rng = 1000 if request.config.getoption("--long") else 200, np.random.default_rng(3)
    model = create_model("pretrain_tats_tiny", num_frames=4, img_size=16)
    wholes = []
    for zipped in (True, False):
        torch.save({"model": model.state_dict(), "config": {"name": "pretrain_tats_tiny", "kwargs": {}}, "epoch": 3,
                    "rng": torch.get_rng_state()}, tmp_path / "whole.pth", _use_new_zipfile_serialization=zipped)
        wholes.append((tmp_path / "whole.pth").read_bytes())
    (tmp_path / "whole.pth").unlink()
    loaded, before = 0, peak()
    for number in range(count):
        path, data = tmp_path / f"{number}.pth", bytearray(wholes[number % 2])
        structure = 60_000 if number % 4 < 2 else len(data)   # every other file: where the pickle is
        for place in rng.integers(0, structure, rng.integers(1, 30)):
            data[place % len(data)] = rng.integers(256)
        if number % 5 == 0:
            del data[int(rng.integers(len(data))):]
        path.write_bytes(data)
        try:
            checkpoint = read_checkpoint(path)
            find_weights(checkpoint)
            load_pretraining(model, checkpoint)
            loaded += 1
        except ValueError as error:
            assert "\n" not in str(error)
    assert sorted(os.listdir(tmp_path)) == sorted(f"{number}.pth" for number in range(count))
    assert peak() - before < LIMIT and 0 < loaded < count
    fault(f"{count} mutated checkpoints", f"{loaded} loaded, {count - loaded} named")


@pytest.mark.parametrize("kwargs", [{"img_size": 10**6}, {"num_frames": 10**9}, {"encoder_depth": 10**9},
                                    {"encoder_embed_dim": 10**8}, {"img_size": (24, 2**20)},
                                    {"img_size": 4096, "num_frames": 1024}])
def test_sizes_that_a_checkpoint_names_are_bounded(kwargs):
    with pytest.raises(ValueError, match="more than 65536|at most 262144"):
        create_model("pretrain_tats_tiny", **kwargs)


@pytest.mark.parametrize(("index", "said"), [
    ({"weight_map": {"a": "../secret.bin"}}, "outside its folder"), ({"weight_map": {"a": "/etc/passwd"}}, "outside"),
    ({"weight_map": [1]}, "no index"), ({}, "no index"), ([], "no index")])
def test_an_index_of_shards_opens_nothing_outside_its_folder(tmp_path, index, said):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=said):
        import_folder(tmp_path)
