"""Models by name: our own table with VideoMAE's names. Nothing is registered with timm, whose names stay its own."""

import inspect
from collections.abc import Iterable

from torch import nn

from .mae import PretrainVisionTransformer
from .vit import VisionTransformer

# (embedding dimension, blocks, heads), and the same of the decoder.
_SIZES = {"small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16), "huge": (1280, 32, 16)}
# VideoMAEv2's largest: patches of 14 pixels, an MLP of 6144 channels in the encoder and 2234 in the decoder.
_GIANT = {"img_size": 224, "patch_size": 14, "mlp_ratio": 48 / 11, "qkv_bias": True}
_DECODERS = {"small": (192, 4, 3), "base": (384, 4, 6), "large": (512, 4, 8), "huge": (640, 4, 8)}

# A model for CPUs and tests: 16 x 24 x 24 pixels, 288 tokens. Its positions and its first attention weights are such
# that it learns something within a hundred steps; the named sizes keep VideoMAE's.
_TINY = {"img_size": 24, "patch_size": 4, "pos_embed": "sincos3d", "pos_base": 2.0, "tied_qk_init": 2.0,
         "qkv_bias": True}
# A larger one for real clips on one core: 16 x 64 x 64 pixels, 512 tokens. A training step on 16 clips takes about a
# third of a second.
_MINI = {**_TINY, "img_size": 64, "patch_size": 8}


def _pretraining(size: str) -> dict:
    (dim, depth, heads), (decoder_dim, decoder_depth, decoder_heads) = _SIZES[size], _DECODERS[size]
    return {"img_size": 224, "patch_size": 16, "encoder_embed_dim": dim, "encoder_depth": depth,
            "encoder_num_heads": heads, "decoder_embed_dim": decoder_dim, "decoder_depth": decoder_depth,
            "decoder_num_heads": decoder_heads, "qkv_bias": True}


def _classifier(size: str) -> dict:
    dim, depth, heads = _SIZES[size]
    return {"img_size": 224, "patch_size": 16, "embed_dim": dim, "depth": depth, "num_heads": heads, "qkv_bias": True}


_TABLE: dict[str, tuple[type[nn.Module], dict]] = {
    **{f"pretrain_videomae_{size}_patch16_224": (PretrainVisionTransformer, _pretraining(size)) for size in _SIZES},
    **{f"vit_{size}_patch16_224": (VisionTransformer, _classifier(size)) for size in _SIZES},
    "pretrain_videomae_giant_patch14_224": (PretrainVisionTransformer, {
        **_GIANT, "encoder_embed_dim": 1408, "encoder_depth": 40, "encoder_num_heads": 16, "decoder_embed_dim": 512,
        "decoder_depth": 4, "decoder_num_heads": 8}),
    "vit_giant_patch14_224": (VisionTransformer, {**_GIANT, "embed_dim": 1408, "depth": 40, "num_heads": 16}),
    "pretrain_tats_tiny": (PretrainVisionTransformer, {
        **_TINY, "encoder_embed_dim": 96, "encoder_depth": 2, "encoder_num_heads": 4, "decoder_embed_dim": 64,
        "decoder_depth": 1, "decoder_num_heads": 2, "zero_head": True}),
    "vit_tats_tiny": (VisionTransformer, {**_TINY, "embed_dim": 96, "depth": 2, "num_heads": 4}),
    "pretrain_tats_mini": (PretrainVisionTransformer, {
        **_MINI, "encoder_embed_dim": 128, "encoder_depth": 3, "encoder_num_heads": 4, "decoder_embed_dim": 64,
        "decoder_depth": 1, "decoder_num_heads": 2, "zero_head": True}),
    "vit_tats_mini": (VisionTransformer, {**_MINI, "embed_dim": 128, "depth": 3, "num_heads": 4}),
}

# Keywords of timm's create_model in VideoMAE's programs that say nothing here while they are off.
_FROM_TIMM = ("pretrained", "drop_block_rate")
_MOST = 1 << 16   # of any size: a checkpoint that says which model it holds must not take the machine's memory
_ADDED_BY_TIMM = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")


def model_names() -> list[str]:
    """The names that `create_model` knows."""
    return sorted(_TABLE)


def counterpart(name: str, kind: type[nn.Module]) -> str | None:
    """The name of the model of this class with the encoder of the model `name`; None where the table has none."""
    stem = name.removeprefix("pretrain_videomae_").removeprefix("pretrain_").removeprefix("vit_")
    ours = (f"pretrain_videomae_{stem}", f"pretrain_{stem}", f"vit_{stem}")
    return next((one for one in ours if one in _TABLE and _TABLE[one][0] is kind), None) if name in _TABLE else None


def _names_for(keywords: Iterable[str]) -> list[str]:
    """The models that take these keywords, those for pre-training or the classifiers; all where no class takes them."""
    fit = {kind for kind, _ in _TABLE.values() if set(keywords) <= set(inspect.signature(kind).parameters)}
    return [name for name in model_names() if _TABLE[name][0] in fit] or model_names()


def sized_like(kind: type[nn.Module], dim: int, depth: int, num_heads: int) -> str:
    """The name of a model of this class and size; where there is none that of ViT-B, whose sizes keywords override."""
    size = next((size for size, sizes in _SIZES.items() if sizes == (dim, depth, num_heads)), "base")
    return f"{'pretrain_videomae' if kind is PretrainVisionTransformer else 'vit'}_{size}_patch16_224"


def create_model(name: str, **kwargs) -> nn.Module:
    """Build a model of the table; keywords override its defaults (frames, input size, depth, classes, ...).

    Raises:
        ValueError: an unknown name, keywords of the other kind of model, a keyword that the model does not take, or a
            size that no model has.
    """
    if name not in _TABLE:
        raise ValueError(f"unknown model {name!r}; choose one of {', '.join(_names_for(kwargs))}")
    build, defaults = _TABLE[name]
    kwargs = {key: value for key, value in kwargs.items()
              if key not in _ADDED_BY_TIMM and (value or key not in _FROM_TIMM)}
    if "pretrained" in kwargs:
        raise ValueError(f"model {name}: no weights come with a name; use load_encoder or load_pretraining")
    for key, value in kwargs.items():
        if any(isinstance(size, int) and abs(size) > _MOST for size in (value if isinstance(value, tuple | list) else
                                                                        (value,))):
            raise ValueError(f"model {name}: {key} {value} is more than {_MOST}")
    if name not in (names := _names_for(kwargs)):
        kinds = "a classifier", "one for pre-training"
        is_one, wanted = kinds if build is VisionTransformer else reversed(kinds)
        raise ValueError(f"model {name} is {is_one}, and {wanted} is wanted here: choose one of {', '.join(names)}")
    try:
        return build(**{**defaults, **kwargs})
    except TypeError as error:
        raise ValueError(f"model {name}: {error}") from error
