"""Our networks and Hugging Face's VideoMAE: the same weights under other names, as plain dictionaries.

transformers is not needed. Their two norms outside the blocks (`decoder.norm`, `fc_norm`) have an eps of 1e-5 that no
setting changes, ours 1e-6 as in VideoMAE: outputs differ by about 5e-6 over the variance of what is normalised.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..mae import PretrainVisionTransformer
from ..positions import sincos_table
from ..registry import sized_like
from ..vit import VisionTransformer

PRETRAINING, CLASSIFIER, ENCODER = "VideoMAEForPreTraining", "VideoMAEForVideoClassification", "VideoMAEModel"

# Modules of a block, ours and theirs. Their key has no bias, as ours; q_bias and v_bias are the names of the published
# files, which every version of transformers reads (later ones rename them to query.bias and value.bias on loading).
_BLOCK = {
    "norm1": "layernorm_before", "attn": "attention.attention", "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after", "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense",
}
_QKV = ("query", "key", "value")


def hf_model(model: nn.Module, encoder_only: bool = False) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(config, weights) of the Hugging Face model that computes the same.

    Args:
        model: a `PretrainVisionTransformer` or a `VisionTransformer`.
        encoder_only: a `VideoMAEModel` instead of one with decoder or head.

    Raises:
        ValueError: it has something that theirs lacks: positions other than VideoMAE's, or layer scale (init_values).
    """
    pretraining = isinstance(model, PretrainVisionTransformer)
    encoder = model.encoder if pretraining else model
    kind = ENCODER if encoder_only else PRETRAINING if pretraining else CLASSIFIER
    config = {"architectures": [kind], "model_type": "videomae"} | _encoder_config(encoder, pretraining)
    weights = {}
    stems = _stems(kind, pretraining, len(encoder.blocks), len(model.decoder.blocks) if pretraining else 0)
    for name, value in model.state_dict().items():
        stem, _, leaf = name.rpartition(".")
        if stem.endswith(".attn.qkv") and stem.removesuffix(".qkv") in stems:
            for part, split in zip(_QKV, value.chunk(3), strict=True):
                weights[f"{stems[stem.removesuffix('.qkv')]}.{part}.weight"] = split.clone()
        elif name in stems:
            weights[stems[name]] = value.clone()
        elif stem in stems:
            weights[f"{stems[stem]}.{leaf}"] = value.clone()
        elif not encoder_only:
            raise ValueError(f"Hugging Face's VideoMAE has no place for {name}")
    if pretraining and not encoder_only:
        config |= _decoder_config(model.decoder)
    elif kind == CLASSIFIER:
        labels = {index: f"LABEL_{index}" for index in range(model.num_classes)}
        config |= {"id2label": labels, "label2id": {label: index for index, label in labels.items()}}
    return config, weights


def from_hf(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """({"name", "kwargs"} for `create_model`, weights under our names) of a Hugging Face VideoMAE.

    A `VideoMAEModel` becomes a classifier without classes (and, where it pools by the mean, without fc_norm: its
    weights are for `load_encoder`). `layer_norm_eps` is not taken over: the published configurations say 1e-12, the
    networks were trained with 1e-6, which is ours.

    Raises:
        ValueError: another kind of model, or a tensor with a name that nobody knows.
    """
    if config.get("model_type") != "videomae":
        raise ValueError(f"expected model_type videomae in the configuration, got {config.get('model_type')!r}")
    if config.get("hidden_act", "gelu") != "gelu":
        raise ValueError(f"expected hidden_act gelu, got {config['hidden_act']!r}")
    weights = {re.sub(r"\.(q)uery\.bias$|\.(v)alue\.bias$", lambda found: f".{found[1] or found[2]}_bias", name): value
               for name, value in weights.items()}
    pretraining = any(name.startswith("decoder.") for name in weights)
    kind = PRETRAINING if pretraining else CLASSIFIER if any(name.startswith("classifier.") for name in weights) \
        else ENCODER
    bare = not any(name.startswith("videomae.") for name in weights)
    stems = _stems(ENCODER if bare else kind, pretraining, config.get("num_hidden_layers", 12),
                   config.get("decoder_num_hidden_layers", 4))
    stems = {theirs: ours for ours, theirs in stems.items()}
    ours, parts = {}, {}
    for name, value in weights.items():
        stem, _, leaf = name.rpartition(".")
        outer, _, part = stem.rpartition(".")
        if outer in stems and part in _QKV and leaf == "weight":
            parts.setdefault(f"{stems[outer]}.qkv.weight", {})[part] = value
        elif name in stems:
            ours[stems[name]] = value
        elif stem in stems:
            ours[f"{stems[stem]}.{leaf}"] = value
        else:
            raise ValueError(f"unknown tensor {name} in a {kind}")
    for name, found in parts.items():
        if len(found) < len(_QKV):
            raise ValueError(f"{', '.join(sorted(set(_QKV) - set(found)))} missing beside {', '.join(found)} of {name}")
        ours[name] = torch.cat([found[part] for part in _QKV])
    return _own_config(config, kind, ours), ours


def _stems(kind: str, pretraining: bool, depth: int, decoder_depth: int) -> dict[str, str]:
    """Names of modules (and of the mask token), ours -> theirs."""
    encoder, base = "encoder." if pretraining else "", "" if kind == ENCODER else "videomae."
    stems = {f"{encoder}patch_embed.proj": f"{base}embeddings.patch_embeddings.projection",
             f"{encoder}norm": f"{base}layernorm"}
    blocks = {f"{encoder}blocks.{index}": f"{base}encoder.layer.{index}" for index in range(depth)}
    if kind == PRETRAINING:
        stems |= {name: name for name in ("decoder.norm", "decoder.head", "encoder_to_decoder", "mask_token")}
        blocks |= {f"decoder.blocks.{index}": f"decoder.decoder_layers.{index}" for index in range(decoder_depth)}
    elif kind == CLASSIFIER:
        stems |= {"fc_norm": "fc_norm", "head": "classifier"}
    return stems | {f"{mine}.{part}": f"{theirs}.{other}" for mine, theirs in blocks.items()
                    for part, other in _BLOCK.items()}


def _encoder_config(encoder: nn.Module, pretraining: bool) -> dict[str, Any]:
    block, embed = encoder.blocks[0], encoder.patch_embed
    dim = embed.proj.out_channels
    if not torch.equal(encoder.pos_embed.cpu(), sincos_table(embed.num_patches, dim)):
        raise ValueError("Hugging Face's VideoMAE knows VideoMAE's positions only; this model has other ones "
                         "(pos_embed, pos_base), as pretrain_tats_* and vit_tats_* do; export_hf --format safetensors "
                         "takes any")
    if block.gamma_1 is not None:
        raise ValueError("Hugging Face's VideoMAE has no layer scale; this model has (init_values)")
    height, width = embed.img_size
    return {
        "image_size": height if height == width else [height, width], "patch_size": embed.patch_size[0],
        "num_channels": embed.proj.in_channels, "num_frames": embed.num_frames, "tubelet_size": embed.tubelet_size,
        "hidden_size": dim, "num_hidden_layers": len(encoder.blocks), "num_attention_heads": block.attn.num_heads,
        "intermediate_size": block.mlp.fc1.out_features, "hidden_act": "gelu", "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0, "initializer_range": 0.02, "layer_norm_eps": block.norm1.eps,
        "qv_bias": block.attn.q_bias is not None,
        "use_mean_pooling": not pretraining and encoder.fc_norm is not None,
    }


def _decoder_config(decoder: nn.Module) -> dict[str, Any]:
    block = decoder.blocks[0]
    return {"decoder_hidden_size": decoder.head.in_features, "decoder_num_hidden_layers": len(decoder.blocks),
            "decoder_num_attention_heads": block.attn.num_heads,
            "decoder_intermediate_size": block.mlp.fc1.out_features, "norm_pix_loss": True}


def _own_config(config: Mapping[str, Any], kind: str, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """For `create_model`; what `config` leaves out are the defaults of Hugging Face."""
    get = {"image_size": 224, "patch_size": 16, "num_channels": 3, "num_frames": 16, "tubelet_size": 2,
           "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
           "qv_bias": True, "use_mean_pooling": True, "decoder_num_attention_heads": 6, "decoder_hidden_size": 384,
           "decoder_num_hidden_layers": 4, "decoder_intermediate_size": 1536} | dict(config)
    ratio = get["intermediate_size"] / get["hidden_size"]
    common = {"img_size": get["image_size"], "patch_size": get["patch_size"], "tubelet_size": get["tubelet_size"],
              "mlp_ratio": ratio, "qkv_bias": get["qv_bias"]}
    sizes = {"embed_dim": get["hidden_size"], "depth": get["num_hidden_layers"],
             "num_heads": get["num_attention_heads"]}
    if kind == PRETRAINING:
        if get["decoder_intermediate_size"] != int(ratio * get["decoder_hidden_size"]):
            raise ValueError("encoder and decoder have MLPs of different ratios, which this model has not")
        kwargs = common | {f"encoder_{name}": value for name, value in sizes.items()} | {
            "num_frames": get["num_frames"], "encoder_in_chans": get["num_channels"],
            "decoder_embed_dim": get["decoder_hidden_size"], "decoder_depth": get["decoder_num_hidden_layers"],
            "decoder_num_heads": get["decoder_num_attention_heads"]}
        return {"name": sized_like(PretrainVisionTransformer, *sizes.values()), "kwargs": kwargs}
    kwargs = common | sizes | {
        "all_frames": get["num_frames"], "in_chans": get["num_channels"],
        "num_classes": len(weights["head.weight"]) if "head.weight" in weights else 0,
        "use_mean_pooling": get["use_mean_pooling"]}
    return {"name": sized_like(VisionTransformer, *sizes.values()), "kwargs": kwargs}
