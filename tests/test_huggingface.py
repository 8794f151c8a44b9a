"""Our networks as Hugging Face's, number for number, and back bit for bit; offline."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tats.models import (
    PretrainVisionTransformer,
    create_model,
    load_encoder,
    load_pretraining,
    read_checkpoint,
    reconstruction_targets,
)
from tats.models.convert.huggingface import from_hf, hf_model
from tats.models.export_hf import build, save_safetensors, write_folder
from tats.models.export_hf import main as export_main
from tats.models.import_hf import import_folder
from tats.models.import_hf import main as import_main

DATA = Path(__file__).parent / "data"
TOLERANCE = {"atol": 1e-4, "rtol": 0}
MAE = {"name": "pretrain_videomae_base_patch16_224", "kwargs": {
    "img_size": 32, "patch_size": 8, "encoder_embed_dim": 48, "encoder_depth": 3, "encoder_num_heads": 4,
    "decoder_embed_dim": 24, "decoder_num_heads": 2, "decoder_depth": 2}}
CLASSIFIER = {"name": "vit_base_patch16_224", "kwargs": {
    "img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 4, "num_classes": 7}}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def golden(name):
    arrays = np.load(DATA / f"{name}.npz")
    state = {key.removeprefix("state/"): torch.from_numpy(arrays[key]) for key in arrays.files
             if key.startswith("state/")}
    return state, {key: torch.from_numpy(arrays[key]) for key in ("video", "mask", "logits", "features")
                   if key in arrays.files}


def with_biases(state):
    """The golden biases made certainly non-zero: a lost one must show."""
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(value.shape, generator=generator) * 0.5 if name.endswith(("q_bias", "v_bias")) else value
            for name, value in state.items()}


@pytest.fixture
def pretraining(tmp_path):
    state, values = golden("videomae_pretrain")
    path = tmp_path / "mae.pth"
    torch.save({"model": with_biases(state), "config": MAE}, path)
    return path, build(read_checkpoint(path))[0], values


@pytest.fixture
def classifier(tmp_path):
    state, values = golden("videomae_finetune")
    path = tmp_path / "vit.pth"
    torch.save({"model": with_biases(state), "config": CLASSIFIER}, path)
    return path, build(read_checkpoint(path))[0], values


def exported(path, out, *options):
    export_main([str(path), str(out), *options])
    return out


def assert_all_loaded(loader, folder):
    model, info = loader.from_pretrained(folder, output_loading_info=True)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not info[kind], (kind, info[kind])
    return model.eval()


def test_pretraining_loss_and_prediction(pretraining, tmp_path):
    transformers = pytest.importorskip("transformers")
    path, ours, values = pretraining
    theirs = assert_all_loaded(transformers.VideoMAEForPreTraining, exported(path, tmp_path / "hf"))
    video, mask = values["video"], values["mask"]
    with torch.no_grad():
        output, prediction = theirs(video.transpose(1, 2), bool_masked_pos=mask), ours(video, mask)
    torch.testing.assert_close(output.logits, prediction, **TOLERANCE)
    mean, std = (torch.tensor(value).view(1, 3, 1, 1, 1) for value in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    target = reconstruction_targets(video * std + mean, mask, 8, 2)
    torch.testing.assert_close(output.loss, (prediction - target).square().mean(), **TOLERANCE)


def test_classifier_logits(classifier, tmp_path):
    transformers = pytest.importorskip("transformers")
    path, ours, values = classifier
    theirs = assert_all_loaded(transformers.VideoMAEForVideoClassification, exported(path, tmp_path / "hf"))
    with torch.no_grad():
        logits = theirs(values["video"].transpose(1, 2)).logits
    assert logits.shape == (2, 7) and logits.std() > 0.1
    torch.testing.assert_close(logits, ours(values["video"]), **TOLERANCE)


def test_biases_are_not_lost(pretraining, tmp_path):
    transformers = pytest.importorskip("transformers")
    path, ours, _ = pretraining
    theirs = transformers.VideoMAEForPreTraining.from_pretrained(exported(path, tmp_path / "hf"))
    for mine, layers in ((ours.encoder.blocks, theirs.videomae.encoder.layer),
                         (ours.decoder.blocks, theirs.decoder.decoder_layers)):
        for block, layer in zip(mine, layers, strict=True):
            biases = {name.split(".")[-2] if name.endswith(".bias") else name: value
                      for name, value in layer.attention.attention.named_parameters() if value.ndim == 1}
            query, value = biases.get("query", biases.get("q_bias")), biases.get("value", biases.get("v_bias"))
            assert len(biases) == 2 and query.abs().min() > 0
            assert torch.equal(query, block.attn.q_bias) and torch.equal(value, block.attn.v_bias)


@pytest.mark.parametrize("kind", ["pretraining", "classifier"])
def test_the_encoder_alone(kind, request, tmp_path):
    transformers = pytest.importorskip("transformers")
    path, ours, values = request.getfixturevalue(kind)
    theirs = assert_all_loaded(transformers.VideoMAEModel, exported(path, tmp_path / "hf", "--encoder"))
    with torch.no_grad():
        hidden = theirs(values["video"].transpose(1, 2)).last_hidden_state
        if kind == "classifier":
            features = ours.forward_features(values["video"])
            torch.testing.assert_close(ours.fc_norm(hidden.mean(1)), features, **TOLERANCE)
        else:
            nothing_masked = torch.arange(128).expand(2, -1)
            torch.testing.assert_close(hidden, ours.encoder(values["video"], nothing_masked), **TOLERANCE)


@pytest.mark.parametrize("kind", ["pretraining", "classifier"])
@pytest.mark.parametrize("through", ["our folder", "transformers"])
def test_round_trip_is_bit_equal(kind, through, request, tmp_path):
    path, ours, values = request.getfixturevalue(kind)
    folder = exported(path, tmp_path / "hf")
    if through == "transformers":
        transformers = pytest.importorskip("transformers")
        loader = transformers.VideoMAEForPreTraining if kind == "pretraining" \
            else transformers.VideoMAEForVideoClassification
        loader.from_pretrained(folder).save_pretrained(tmp_path / "again")
        folder = tmp_path / "again"
    import_main([str(folder), str(tmp_path / "back.pth")])
    checkpoint = read_checkpoint(tmp_path / "back.pth")
    assert set(checkpoint["model"]) == set(ours.state_dict())
    for name, value in ours.state_dict().items():
        assert torch.equal(checkpoint["model"][name], value), name
    again = build(checkpoint)[0]
    inputs = (values["video"], values["mask"]) if kind == "pretraining" else (values["video"],)
    assert torch.equal(again(*inputs), ours(*inputs))


def test_weights_that_transformers_made_come_in(tmp_path):
    """A network that never was ours, written by today's save_pretrained."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.VideoMAEConfig(
        image_size=[16, 24], patch_size=8, num_frames=4, hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
        intermediate_size=72, decoder_hidden_size=12, decoder_num_hidden_layers=1, decoder_num_attention_heads=2,
        decoder_intermediate_size=36, use_mean_pooling=False)
    theirs = transformers.VideoMAEForPreTraining(config).eval()
    for value in theirs.parameters():
        if value.ndim == 1:
            torch.nn.init.normal_(value, std=0.5)
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1    # in shards
    model = build(import_folder(tmp_path))[0]
    video, mask = torch.randn(2, 3, 4, 16, 24), torch.stack([torch.randperm(12) < 8 for _ in range(2)])
    with torch.no_grad():
        expected = theirs(video.transpose(1, 2), bool_masked_pos=mask).logits
    torch.testing.assert_close(model(video, mask), expected, **TOLERANCE)


def test_an_encoder_folder_feeds_fine_tuning(pretraining, tmp_path):
    path, ours, _ = pretraining
    checkpoint = import_folder(exported(path, tmp_path / "hf", "--encoder"))
    model = create_model(CLASSIFIER["name"], **CLASSIFIER["kwargs"])
    report = load_encoder(model, checkpoint)
    assert report.missing == ("fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias")
    assert torch.equal(model.blocks[2].attn.qkv.weight, ours.encoder.blocks[2].attn.qkv.weight)


def test_pickled_weights_come_in(pretraining, tmp_path):
    _, ours, _ = pretraining
    config, weights = hf_model(ours)
    torch.save(weights, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert build(import_folder(tmp_path))[1]["kwargs"]["decoder_depth"] == 2


def test_both_spellings_of_the_biases_come_in(pretraining):
    _, ours, _ = pretraining
    config, weights = hf_model(ours)
    renamed = {name.replace("q_bias", "query.bias").replace("v_bias", "value.bias"): value
               for name, value in weights.items()}
    assert set(renamed) != set(weights)
    assert from_hf(config, renamed)[1].keys() == from_hf(config, weights)[1].keys()


def test_images_are_prepared_as_here(pretraining, tmp_path):
    transformers = pytest.importorskip("transformers")
    processor = transformers.VideoMAEImageProcessor.from_pretrained(exported(pretraining[0], tmp_path / "hf"))
    frames = list(np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8))
    pixels = processor(frames, return_tensors="pt").pixel_values
    expected = (torch.from_numpy(np.stack(frames)) / 255 - torch.tensor([0.485, 0.456, 0.406])) \
        / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(pixels[0].permute(0, 2, 3, 1), expected, **TOLERANCE)


def test_target_normalisation_follows_the_run(tmp_path):
    state, _ = golden("videomae_pretrain")
    torch.save({"model": state, "config": MAE, "settings": {"loss": {"normlize_target": False}}}, tmp_path / "c.pth")
    config = json.loads((exported(tmp_path / "c.pth", tmp_path / "hf") / "config.json").read_text())
    assert config["norm_pix_loss"] is False and config["architectures"] == ["VideoMAEForPreTraining"]


def test_safetensors_under_our_names(pretraining, tmp_path):
    path, ours, values = pretraining
    out = exported(path, tmp_path / "w.safetensors", "--format", "safetensors")
    model, config = build(read_checkpoint(out))
    assert config == MAE and torch.equal(model(values["video"], values["mask"]), ours(values["video"], values["mask"]))
    fresh = create_model(MAE["name"], **MAE["kwargs"])
    assert load_pretraining(fresh, out)[0].whole


@pytest.mark.parametrize(("name", "file", "architecture"), [
    ("pretrain_tats_tiny", "videomae_pretrain", None),
    ("pretrain_videomae_small_patch16_224", None, "VideoMAEForPreTraining"),
    ("vit_small_patch16_224", None, "VideoMAEForVideoClassification")])
def test_files_without_a_config_need_the_name(name, file, architecture, tmp_path, capsys):
    options = {"num_frames": 4, "decoder_depth": 1} if "pretrain" in name else {"all_frames": 4, "num_classes": 3}
    options |= {} if file else {"img_size": 32}
    state = golden(file)[0] if file else create_model(name, **options).state_dict()
    torch.save({"model": state}, tmp_path / "theirs.pth")
    with pytest.raises(SystemExit) as ended:
        exported(tmp_path / "theirs.pth", tmp_path / "hf")
    assert ended.value.code == 2 and "name it with --model" in capsys.readouterr().err
    said = ["--model", name, "--num_frames", "4", "--input_size", "32"]
    if file:
        with pytest.raises(SystemExit) as ended:
            exported(tmp_path / "theirs.pth", tmp_path / "hf", *said)
        assert ended.value.code == 2 and "weights of another network" in capsys.readouterr().err
    else:
        config = json.loads((exported(tmp_path / "theirs.pth", tmp_path / "hf", *said) / "config.json").read_text())
        assert config["architectures"] == [architecture] and config["num_frames"] == 4


@pytest.mark.parametrize(("options", "match"), [
    ({"pos_embed": "sincos3d"}, "positions only"), ({"pos_base": 2.0}, "positions only"),
    ({"init_values": 0.1}, "no layer scale")])
def test_what_theirs_cannot_be_is_refused(options, match):
    with pytest.raises(ValueError, match=match):
        hf_model(PretrainVisionTransformer(**MAE["kwargs"], **options))


def test_other_folders_are_refused_in_one_line(pretraining, tmp_path, capsys):
    config, weights = hf_model(pretraining[1])
    with pytest.raises(ValueError, match="decoder.extra.bias"):
        from_hf(config, weights | {"decoder.extra.bias": torch.zeros(1)})
    with pytest.raises(ValueError, match="model_type .*'vit'"):
        from_hf({"model_type": "vit"}, {})
    lost = dict(weights)
    del lost["videomae.encoder.layer.1.attention.attention.key.weight"]
    with pytest.raises(ValueError, match="key .*encoder.blocks.1.attn.qkv.weight"):
        from_hf(config, lost)
    for files, match in (((), "no config.json"), (("config.json",), "holds no weights")):
        folder = tmp_path / f"folder{len(files)}"
        folder.mkdir()
        for name in files:
            (folder / name).write_text(json.dumps(config))
        with pytest.raises(SystemExit) as ended:
            import_main([str(folder), str(tmp_path / "out.pth")])
        error = capsys.readouterr().err
        assert ended.value.code == 2 and match in error and error.count("\n") == 1
    (tmp_path / "folder0" / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json"):
        import_folder(tmp_path / "folder0")


def test_a_checkpoint_of_another_network_is_not_exported(tmp_path):
    state, _ = golden("videomae_pretrain")
    lost = {name: value for name, value in state.items() if name != "decoder.head.bias"}
    with pytest.raises(ValueError, match="decoder.head.bias"):
        build({"model": lost, "config": MAE})
    with pytest.raises(ValueError, match="vit_base"):
        build({"model": state, "config": CLASSIFIER})


def test_folders_are_written_whole(pretraining, tmp_path):
    write_folder(tmp_path / "a" / "b", pretraining[1])
    names = {path.name for path in (tmp_path / "a" / "b").iterdir()}
    assert names == {"config.json", "model.safetensors", "preprocessor_config.json"}
    save_safetensors(tmp_path / "c" / "w.safetensors", {"a": torch.zeros(3, 2).T})
    assert read_checkpoint(tmp_path / "c" / "w.safetensors")["a"].shape == (2, 3)
