"""Our networks against outputs of the public implementations, at tiny sizes with their weights."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tats.engines.engine_for_pretraining import reinforce_loss
from tats.engines.pretrain.interface import tokenize
from tats.masking import AdaMAESampler, TokenGrid, masked_indices
from tats.models import PretrainVisionTransformer, VisionTransformer, create_model, reconstruction_targets
from torch import nn

DATA = Path(__file__).parent / "data"
MEAN, STD = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def golden(name):
    arrays = np.load(DATA / f"{name}.npz")
    values = {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays.files if key != "config"}
    state = {key.removeprefix("state/"): value for key, value in values.items() if key.startswith("state/")}
    return json.loads(str(arrays["config"])), values, state


def build(config, kind):
    config = dict(config)
    for unknown in ("mask_ratio", "sampler"):
        config.pop(unknown, None)
    return kind(norm_layer=partial(nn.LayerNorm, eps=config.pop("norm_eps")), **config)


def pixels_of(video):
    return video * torch.tensor(STD).view(1, 3, 1, 1, 1) + torch.tensor(MEAN).view(1, 3, 1, 1, 1)


def test_pretraining_outputs_targets_loss_and_gradients():
    config, values, state = golden("videomae_pretrain")
    model = build(config, PretrainVisionTransformer)
    model.load_state_dict(state)
    prediction = model(values["video"], values["mask"])
    torch.testing.assert_close(prediction, values["prediction"], atol=1e-5, rtol=0)
    for name, normalize in (("target_normalized", True), ("target_raw", False)):
        target = reconstruction_targets(pixels_of(values["video"]), values["mask"], 8, 2, normalize)
        torch.testing.assert_close(target, values[name], atol=1e-5, rtol=0)
    loss = (prediction - values["target_normalized"]).square().mean()
    torch.testing.assert_close(loss.detach(), values["loss"], atol=1e-5, rtol=0)
    loss.backward()
    norms = {name: parameter.grad.norm() for name, parameter in model.named_parameters()}
    expected = {key.removeprefix("grad_norm/"): value for key, value in values.items() if key.startswith("grad_norm/")}
    assert set(norms) == set(expected)
    for name, norm in norms.items():
        torch.testing.assert_close(norm, expected[name].float(), rtol=1e-4, atol=1e-9,
                                   msg=lambda m, n=name: f"{n}: {m}")


def test_classifier_outputs():
    config, values, state = golden("videomae_finetune")
    model = build(config, VisionTransformer).eval()
    model.load_state_dict(state)
    torch.testing.assert_close(model.forward_features(values["video"]), values["features"], atol=1e-5, rtol=0)
    torch.testing.assert_close(model(values["video"]), values["logits"], atol=1e-5, rtol=0)


def test_adamae_sampler_and_loss():
    config, values, state = golden("adamae_pretrain")
    model = build(config, PretrainVisionTransformer).eval()
    names = ("encoder.pos_embed_probs", "encoder.get_token_probs.")
    model.load_state_dict({key: value for key, value in state.items() if not key.startswith(names)})
    sampler = AdaMAESampler(TokenGrid(*model.encoder.grid), config["encoder_embed_dim"]).eval()
    sampler.load_state_dict({key.removeprefix("encoder."): value for key, value in state.items()
                             if key.startswith(names)})
    tokens = tokenize(model, values["video"], positions=not sampler.own_positions)
    log_pi, _ = sampler(tokens, log=True)
    torch.testing.assert_close(log_pi.exp(), values["probabilities"], atol=1e-5, rtol=0)
    prediction = model(values["video"], values["mask"])
    torch.testing.assert_close(prediction, values["prediction"], atol=1e-5, rtol=0)
    target = reconstruction_targets(pixels_of(values["video"]), values["mask"], 8, 2)
    errors = (prediction - target).square().mean(dim=-1)
    torch.testing.assert_close(errors, values["token_reconstruction_error"], atol=1e-5, rtol=0)
    torch.testing.assert_close(reinforce_loss(log_pi, masked_indices(values["mask"], errors.shape[1]), errors),
                               values["sampling_loss_before_coefficient"], atol=1e-5, rtol=0)
    assert (~values["mask"]).sum(1).tolist() == [int(values["num_visible"])] * 2


@pytest.mark.parametrize(("name", "tensors", "options"), [
    ("pretrain_videomae_base_patch16_224", 218, {}), ("vit_base_patch16_224", 162, {"num_classes": 101}),
])
def test_key_counts_of_vit_b(name, tensors, options):
    with torch.device("meta"):
        keys = create_model(name, **options).state_dict()
    assert len(keys) == tensors
    assert not any("qkv.bias" in key or "pos_embed" in key or "k_bias" in key for key in keys)
