"""Weights of the public implementations, in every disguise they travel in, into our networks; refusals by name."""

import argparse
import json
import os
import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tats.engines.runs.pretraining_build import initialise_sampler
from tats.masking import AdaMAESampler, TokenGrid
from tats.models import PretrainVisionTransformer, VisionTransformer
from tats.models.convert.checkpoints import (
    WeightsMismatch,
    compare,
    find_weights,
    load_encoder,
    load_pretraining,
    read_checkpoint,
)
from torch import nn

DATA = Path(__file__).parent / "data"
ENCODER = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 4, "qkv_bias": True}


def golden(name):
    arrays = np.load(DATA / f"{name}.npz")
    state = {key.removeprefix("state/"): torch.from_numpy(arrays[key]) for key in arrays.files
             if key.startswith("state/")}
    config = json.loads(str(arrays["config"]))
    config = {key: value for key, value in config.items() if key not in ("mask_ratio", "sampler", "norm_eps")}
    return config, state, {key: torch.from_numpy(arrays[key]) for key in arrays.files
                           if key in ("video", "mask", "prediction", "logits", "features", "probabilities")}


def classifier(**changes):
    return VisionTransformer(**{**ENCODER, "num_classes": 5, "norm_layer": partial(nn.LayerNorm, eps=1e-6), **changes})


def mae_of(config, **changes):
    return PretrainVisionTransformer(**{**config, **changes})


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


DISGUISES = {
    "bare": lambda state: state,
    "VideoMAE": lambda state: {"model": state, "epoch": 3, "scaler": {"scale": 65536.0}, "optimizer": {"state": {}}},
    "DistributedDataParallel": lambda state: {"model": prefixed(state, "module.")},
    "VideoMAEv2": lambda state: {"model": prefixed(state, "_orig_mod.")},
    "compiled and distributed": lambda state: {"model": prefixed(state, "module._orig_mod.")},
    "distributed and compiled": lambda state: {"model": prefixed(state, "_orig_mod.module.")},
    "DeepSpeed": lambda state: {"module": state, "global_steps": 7, "dp_world_size": 2},
    "half": lambda state: {"model": {key: value.bfloat16() for key, value in state.items()}},
}


@pytest.fixture(params=DISGUISES)
def disguise(request, tmp_path):
    def write(state):
        path = tmp_path / "weights.pth"
        torch.save(DISGUISES[request.param](state), path)
        return path, (2e-2 if request.param == "half" else 1e-5)
    return write


def test_videomae_pretraining_weights_in_every_disguise(disguise):
    config, state, values = golden("videomae_pretrain")
    path, tolerance = disguise(state)
    mae = mae_of(config).eval()
    report, sampler = load_pretraining(mae, path)
    assert report.whole and len(report.matched) == len(state) and sampler == {}
    torch.testing.assert_close(mae(values["video"], values["mask"]), values["prediction"], atol=tolerance, rtol=0)


def test_the_encoder_in_every_disguise(disguise):
    _, state, _ = golden("videomae_pretrain")
    path, tolerance = disguise(state)
    model = classifier()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = load_encoder(model, path)
    assert report.missing == ("fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias")
    assert not report.unexpected and not report.misshaped
    own = model.state_dict()
    assert set(report.matched) == {name for name in own if not name.startswith(("fc_norm", "head"))}
    for name in report.matched:
        torch.testing.assert_close(own[name], state["encoder." + name], atol=tolerance, rtol=0)
    for name in report.missing:
        assert torch.equal(own[name], before[name])
    assert set(report.dropped) == {name.removeprefix("encoder.") for name in state} - set(report.matched)
    assert "fc_norm" in report.dropped["norm.weight"] and report.dropped["mask_token"] == "decoder"


def test_adamae_with_its_sampler(tmp_path):
    config, state, values = golden("adamae_pretrain")
    torch.save({"model": state}, tmp_path / "adamae.pth")
    mae = mae_of(config).eval()
    report, sampler_state = load_pretraining(mae, tmp_path / "adamae.pth")
    assert report.whole
    sampler = AdaMAESampler(TokenGrid(*mae.encoder.grid), 48).eval()
    sampler.load_state_dict(sampler_state)
    probabilities, _ = sampler(mae.encoder.patch_embed(values["video"]))
    torch.testing.assert_close(probabilities, values["probabilities"], atol=1e-5, rtol=0)
    report = load_encoder(classifier(), tmp_path / "adamae.pth")
    assert report.dropped["pos_embed_probs"] == "sampler" == report.dropped["get_token_probs.1.weight"]
    assert not report.unexpected


def test_our_own_pretraining_checkpoint(tmp_path):
    config, state, _ = golden("videomae_pretrain")
    theirs = AdaMAESampler(TokenGrid(8, 4, 4), 48)
    torch.save({"model": state, "sampler": theirs.state_dict(), "mask_type": "adamae", "epoch": 1}, tmp_path / "c.pth")
    _, sampler_state = load_pretraining(mae_of(config), tmp_path / "c.pth")
    ours = AdaMAESampler(TokenGrid(8, 4, 4), 48)
    assert initialise_sampler(ours, sampler_state, "c.pth")
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())
    assert load_encoder(classifier(), tmp_path / "c.pth").share(("fc_norm.", "head.")) == 1


def test_a_sampler_of_another_grid_is_left_alone(caplog):
    theirs, ours = AdaMAESampler(TokenGrid(4, 4, 4), 48), AdaMAESampler(TokenGrid(8, 4, 4), 48)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    assert not initialise_sampler(ours, theirs.state_dict(), "c.pth")
    assert "pos_embed_probs (file (1, 64, 48), model (1, 128, 48))" in caplog.text
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())
    assert not initialise_sampler(ours, {}, "c.pth") and not initialise_sampler(None, theirs.state_dict(), "c.pth")


def test_a_whole_classifier():
    config, state, values = golden("videomae_finetune")
    model = classifier(num_classes=7).eval()
    report = load_encoder(model, {"model": state})
    assert report.whole and report.dropped == {}
    torch.testing.assert_close(model(values["video"]), values["logits"], atol=1e-5, rtol=0)
    model = classifier(num_classes=5).eval()
    report = load_encoder(model, {"model": prefixed(state, "backbone.")})
    assert report.missing == ("head.weight", "head.bias")
    assert report.dropped == dict.fromkeys(("head.weight", "head.bias"), "head (of 7 classes)")
    torch.testing.assert_close(model.forward_features(values["video"]), values["features"], atol=1e-5, rtol=0)


def test_class_token_pooling_takes_the_encoder_norm():
    _, state, _ = golden("videomae_pretrain")
    model = classifier(use_mean_pooling=False)
    load_encoder(model, {"model": state})
    assert torch.equal(model.norm.weight, state["encoder.norm.weight"])


def test_safetensors(tmp_path):
    save_file = pytest.importorskip("safetensors.torch").save_file
    _, state, values = golden("videomae_pretrain")
    save_file(state, tmp_path / "w.safetensors")
    assert load_encoder(classifier(), tmp_path / "w.safetensors").share(("fc_norm.", "head.")) == 1
    (tmp_path / "broken.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:1000])
    with pytest.raises(ValueError, match="broken.safetensors"):
        read_checkpoint(tmp_path / "broken.safetensors")


def renamed(state):
    return {name.replace("encoder.blocks.1.mlp.fc1.bias", "encoder.blocks.1.mlp.fc9.bias"): value
            for name, value in state.items()}


def test_a_renamed_tensor_is_named_and_the_rest_loaded(caplog):
    config, state, _ = golden("videomae_pretrain")
    report, _ = load_pretraining(mae_of(config), {"model": renamed(state)})
    assert report.missing == ("encoder.blocks.1.mlp.fc1.bias",)
    assert report.unexpected == ("encoder.blocks.1.mlp.fc9.bias",) and not report.whole
    assert "encoder.blocks.1.mlp.fc1.bias" in caplog.text and "encoder.blocks.1.mlp.fc9.bias" in caplog.text
    for name in report.missing + report.unexpected:
        assert name in str(report)
    report = load_encoder(classifier(), {"model": renamed(state)})
    assert "blocks.1.mlp.fc1.bias" in report.missing and report.unexpected == ("blocks.1.mlp.fc9.bias",)


@pytest.mark.parametrize("changes", [{"patch_size": 16}, {"tubelet_size": 4}, {"in_chans": 1}])
def test_another_patch_embedding_is_refused_though_it_is_one_tensor(changes):
    _, state, _ = golden("videomae_pretrain")
    model = classifier(**changes)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(WeightsMismatch, match=r"patch_embed.proj.weight .*\(48, 3, 2, 8, 8\)") as refused:
        load_encoder(model, {"model": state})
    assert "\n" not in str(refused.value)
    assert list(refused.value.report.misshaped) == ["patch_embed.proj.weight"]
    assert "patch_embed.proj.weight" in str(refused.value.report)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    report = load_encoder(model, {"model": state}, allow_partial=True)
    assert torch.equal(model.blocks[0].mlp.fc1.weight, state["encoder.blocks.0.mlp.fc1.weight"])
    assert list(report.misshaped) == ["patch_embed.proj.weight"]


@pytest.mark.parametrize("changes", [
    {"depth": 4}, {"depth": 2},          # a file with more blocks than the model would fit without a missing tensor
    {"init_values": 0.1}, {"qkv_bias": False}, {"embed_dim": 24},
])
def test_another_architecture_is_refused(changes):
    _, state, _ = golden("videomae_pretrain")
    with pytest.raises(WeightsMismatch):
        load_encoder(classifier(**changes), {"model": state})


def test_no_tensor_at_all_is_refused_even_in_part():
    with pytest.raises(WeightsMismatch, match="0%"):
        load_encoder(classifier(), {"weight": torch.zeros(2)}, allow_partial=True)


def test_a_classifier_is_no_pretraining_checkpoint():
    config, state, _ = golden("videomae_finetune")
    with pytest.raises(WeightsMismatch, match="mask_token.*patch_embed.proj"):
        load_pretraining(mae_of(golden("videomae_pretrain")[0]), {"model": state})


def test_another_decoder_only_in_part():
    config, state, _ = golden("videomae_pretrain")
    with pytest.raises(WeightsMismatch, match="decoder.blocks.2"):
        load_pretraining(mae_of(config, decoder_depth=4), {"model": state})
    report, _ = load_pretraining(mae_of(config, decoder_depth=4), {"model": state}, allow_partial=True)
    assert set(report.missing) == {f"decoder.blocks.{new}.{name.removeprefix('decoder.blocks.0.')}" for new in (2, 3)
                                   for name in state if name.startswith("decoder.blocks.0.")}
    assert not report.unexpected and not report.misshaped and len(report.matched) == len(state)


def test_learned_positions_are_named_and_ignored():
    config, state, _ = golden("videomae_pretrain")
    state = state | {"encoder.pos_embed": torch.ones(1, 128, 48)}
    report, sampler = load_pretraining(mae_of(config), {"model": state})
    assert report.whole and "positions" not in sampler and "fixed by the grid" in report.dropped["encoder.pos_embed"]
    assert "1 position tables" in str(report)
    assert "fixed by the grid" in load_encoder(classifier(), {"model": state}).dropped["pos_embed"]


def test_hugging_face_names_get_the_way_to_the_converter():
    weights = {"videomae.embeddings.patch_embeddings.projection.bias": torch.zeros(48)}
    with pytest.raises(WeightsMismatch, match="tats.models.import_hf"):
        load_encoder(classifier(), weights)


def test_model_key():
    weights = {"a": torch.zeros(1)}
    ema = {"a": torch.ones(1)}
    assert find_weights({"model": weights, "model_ema": ema}, "model_ema")["a"] == 1
    assert find_weights({"model": weights, "model_ema": ema}, "model_ema|model")["a"] == 1
    assert find_weights({"model": weights, "module": ema})["a"] == 0
    assert find_weights({"model": None, "module": ema})["a"] == 1
    assert find_weights(weights) == weights
    with pytest.raises(ValueError, match="under model or module .*epoch, args"):
        find_weights({"epoch": 1, "args": None})
    with pytest.raises(ValueError, match="module"):
        find_weights({"module.a": torch.zeros(1), "a": torch.zeros(1)})


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_file_is_refused_and_runs_nothing(tmp_path, zipped):
    mark = tmp_path / "it ran"
    torch.save({"model": {"a": torch.zeros(1)}, "args": Bomb(mark)}, tmp_path / "bad.pth",
               _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match="--trust_checkpoint") as refused:
        read_checkpoint(tmp_path / "bad.pth")
    assert "\n" not in str(refused.value) and not mark.exists()
    with pytest.raises(ValueError, match="--trust_checkpoint"):
        load_encoder(classifier(), tmp_path / "bad.pth")
    assert not mark.exists()


def test_a_plain_pickle_is_refused_and_runs_nothing(tmp_path):
    mark = tmp_path / "it ran"
    (tmp_path / "bad.pth").write_bytes(pickle.dumps({"model": Bomb(mark)}))
    with pytest.raises(ValueError):
        read_checkpoint(tmp_path / "bad.pth")
    assert not mark.exists()


@pytest.mark.parametrize("thing", [argparse.Namespace(lr=1e-3), np.float64(0.1)])
def test_files_with_objects_only_when_trusted(tmp_path, thing):
    _, state, _ = golden("videomae_pretrain")
    torch.save({"model": state, "args": thing}, tmp_path / "old.pth")
    with pytest.raises(ValueError, match="old.pth .*(argparse|numpy).*--trust_checkpoint"):
        read_checkpoint(tmp_path / "old.pth")
    assert load_encoder(classifier(), tmp_path / "old.pth", trust=True).share(("fc_norm.", "head.")) == 1
    assert read_checkpoint(tmp_path / "old.pth", trust=True)["args"] == thing


def test_missing_damaged_and_other_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="no.pth"):
        read_checkpoint(tmp_path / "no.pth")
    with pytest.raises(ValueError, match=tmp_path.name):
        read_checkpoint(tmp_path)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="list.pth"):
        read_checkpoint(tmp_path / "list.pth")
    (tmp_path / "text.pth").write_text("epoch 3, loss .5\n")
    (tmp_path / "empty.pth").touch()
    for name in ("text", "empty"):
        with pytest.raises(ValueError, match=f"{name}.pth") as refused:
            read_checkpoint(tmp_path / f"{name}.pth")
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_cut_and_flipped_bytes_end_in_one_line(tmp_path, zipped):
    path = tmp_path / "w.pth"
    torch.save({"model": {"a": torch.arange(9.0)}, "epoch": 3}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    damaged = [whole[:size] for size in range(0, len(whole) - 1, 37)]
    for place in generator.integers(0, len(whole), 300):
        damaged.append(whole[:place] + bytes([generator.integers(256)]) + whole[place + 1:])
    for content in damaged:
        path.write_bytes(content)
        try:
            read_checkpoint(path)
        except ValueError as error:
            assert "\n" not in str(error)


def test_compare_loads_nothing():
    model = nn.Linear(2, 3)
    before = model.weight.clone()
    report = compare(model, {"weight": torch.zeros(3, 2), "other": torch.zeros(1)}, "x", {"head": "why"})
    assert (report.matched, report.missing, report.unexpected) == (("weight",), ("bias",), ("other",))
    assert report.share() == 1 / 3 and torch.equal(model.weight, before)
    assert str(report).splitlines() == [
        "weights from x", "  matched        1", "  missing        1  bias", "  unexpected     1  other",
        "  misshaped      0", "  dropped        1  1 why"]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(("content", "kind"), [
    (b"/data/a.mp4 0\n", "a text file, which begins with '/data/a.mp4 0'"), (b"", "an empty file"),
    ("<html>gr\u00fcn".encode(), "a text file"), (b"\0\0\0\x20ftypisom" + bytes(600), "a video"),
    (b"\x1aE\xdf\xa3" + bytes(99), "a video"), (b"\x89PNG\r\n\x1a\n" + bytes(99), "a picture")])
def test_another_kind_of_file_is_named(tmp_path, content, kind, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"is no checkpoint but {kind}.*give the .pth") as error:
        read_checkpoint(path)
    assert "weights_only" not in str(error.value)


def test_damage_is_said_without_torchs_advice(tmp_path):
    """Which is to load the file in the way that runs what it holds."""
    path = tmp_path / "weights.pth"
    path.write_bytes(b"\x80\x02" + bytes(range(128, 256)) * 9)
    with pytest.raises(ValueError, match="damaged or no checkpoint") as error:
        read_checkpoint(path)
    assert "weights_only" not in str(error.value) and "Re-running" not in str(error.value)


@pytest.mark.parametrize(("checkpoint", "said"), [
    ({"model": {"a": torch.ones(1)}, "epoch": 1, "fixed_policy": torch.ones(3)}, "under model: name the right one"),
    ({"model": {"a": torch.ones(1)}, "ema": {"a": torch.ones(1)}}, "under model, ema: name"),
    ({"a": torch.ones(1)}, "leave --model_key away"), ({"epoch": 1}, "it holds epoch, and none"),
    ({}, "holds nothing")])
def test_a_model_key_that_is_not_there_is_refused(checkpoint, said):
    with pytest.raises(ValueError, match=f"no weights under net in the checkpoint; .*{said}"):
        find_weights(checkpoint, "net")


def test_a_checkpoint_that_was_cut_off_is_said_to_be(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"model": {"a": torch.ones(5000)}}, path)
    for size in (3000, 15000):
        (tmp_path / "half.pth").write_bytes(path.read_bytes()[:size])
        with pytest.raises(ValueError, match=r"damaged or no checkpoint \(its end is missing"):
            read_checkpoint(tmp_path / "half.pth")


def test_a_folder_in_place_of_a_file_names_the_newest_in_it(tmp_path):
    with pytest.raises(ValueError, match="import_hf FOLDER OUT"):
        read_checkpoint(tmp_path)
    for name, time in (("checkpoint-9.pth", 100), ("checkpoint-10.pth", 200), ("checkpoint-8.pth", 50)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time, time))
    with pytest.raises(ValueError, match="the newest is .*checkpoint-10.pth"):
        read_checkpoint(tmp_path)
