"""Weights of VideoMAE, AdaMAE, VideoMAEv2 and our own into our networks, with nothing left out in silence."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from .files import find_weights, read_checkpoint

__all__ = ["LoadReport", "WeightsMismatch", "compare", "find_weights", "load_encoder", "load_pretraining",
           "read_checkpoint"]

logger = logging.getLogger(__name__)

MIN_SHARE = 0.95  # of the tensors that the network and the file should have in common

# AdaMAE's sampler lives inside its encoder; these are the names that masking/adamae.py uses.
_ADAMAE_SAMPLER = ("pos_embed_probs", "get_token_probs.")
_POSITIONS = "position tables (ours are fixed by the grid)"
# What a pre-training file holds beside the encoder.
_BESIDE_ENCODER = {
    "decoder.": "decoder", "encoder_to_decoder.": "decoder", "mask_token": "decoder", "sampler.": "sampler",
    **dict.fromkeys(_ADAMAE_SAMPLER, "sampler"), "pos_embed": _POSITIONS, "decoder.pos_embed": _POSITIONS,
}


class LoadReport(NamedTuple):
    """What became of every tensor of a network and of a file, by name; `str()` of it is a table.

    matched: loaded. missing: in the network only, they keep their fresh values. unexpected: in the file only, and
    nobody knows what they are. misshaped: in both, name -> (shape in the file, shape in the network); not loaded.
    dropped: name in the file -> why it has no place in this network.
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshaped: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    dropped: dict[str, str]
    source: str = "the checkpoint"

    @property
    def whole(self) -> bool:
        """Every tensor of the network came from the file, and nothing in it is unknown."""
        return not (self.missing or self.unexpected or self.misshaped)

    def share(self, without: tuple[str, ...] = ()) -> float:
        """Matched tensors over all that are in the network or unexpected; `without`: prefixes that do not count."""
        matched, others = (sum(not name.startswith(without) for name in names) for names in
                           (self.matched, (*self.missing, *self.misshaped, *self.unexpected)))
        return matched / max(1, matched + others)

    def faults(self, without: tuple[str, ...] = (), most: int = 4) -> str:
        """The missing, unexpected and mis-shaped names in one line, at most `most` of each."""
        kinds = (("missing", self.missing), ("unexpected", self.unexpected), ("of another shape", self._shapes()))
        kept = {kind: [name for name in names if not name.startswith(without)] for kind, names in kinds}
        return "; ".join(f"{kind}: {', '.join(names[:most])}" + f" and {len(names) - most} more" * (len(names) > most)
                         for kind, names in kept.items() if names)

    def _shapes(self) -> list[str]:
        return [f"{name} (file {file}, model {own})" for name, (file, own) in self.misshaped.items()]

    def __str__(self) -> str:
        reasons = {why: sum(other == why for other in self.dropped.values()) for why in self.dropped.values()}
        rows = [("matched", len(self.matched), ""), ("missing", len(self.missing), ", ".join(self.missing)),
                ("unexpected", len(self.unexpected), ", ".join(self.unexpected)),
                ("misshaped", len(self.misshaped), ", ".join(self._shapes())),
                ("dropped", len(self.dropped), ", ".join(f"{count} {why}" for why, count in reasons.items()))]
        return "\n".join([f"weights from {self.source}",
                          *(f"  {kind:<10} {count:>5}  {names}".rstrip() for kind, count, names in rows)])


class WeightsMismatch(ValueError):
    """The weights are those of another network; `report` names every tensor."""

    def __init__(self, message: str, report: LoadReport):
        super().__init__(message)
        self.report = report


def compare(model: nn.Module, weights: Mapping[str, Tensor], source: str = "the checkpoint",
            dropped: Mapping[str, str] | None = None) -> LoadReport:
    """Names and shapes of `weights` against those of the model; nothing is loaded."""
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    return LoadReport(
        matched=tuple(name for name in own if shapes.get(name) == own[name]),
        missing=tuple(name for name in own if name not in shapes),
        unexpected=tuple(name for name in shapes if name not in own),
        misshaped={name: (shapes[name], own[name]) for name in own if name in shapes and shapes[name] != own[name]},
        dropped=dict(dropped or {}), source=source)


def load_exactly(net: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Put weights that were written for this very network into it.

    Raises:
        WeightsMismatch (a ValueError): names or shapes differ, as from another version of the code; nothing is loaded.
    """
    report = compare(net, weights, source)
    if not report.whole:
        raise WeightsMismatch(f"{source} does not fit the network that it should be ({report.faults()})", report)
    net.load_state_dict(weights)


def load_encoder(classifier: nn.Module, checkpoint: str | Path | Mapping[str, Any], *, model_key: str = "model|module",
                 allow_partial: bool = False, trust: bool = False) -> LoadReport:
    """Put a pre-trained encoder, or a whole fine-tuned classifier, into a `VisionTransformer`.

    From a pre-training file comes the encoder without its last norm: `fc_norm` and `head` start fresh, as in VideoMAE.
    From a fine-tuned one everything, its head only where the number of classes is the same.

    Args:
        checkpoint: a file, or what `read_checkpoint` returned.
        model_key, trust: see `find_weights` and `read_checkpoint`.
        allow_partial: load what fits, however little, instead of refusing.

    Raises:
        FileNotFoundError: no such file.
        WeightsMismatch (a ValueError): a tensor of the encoder has another shape, or under 95 % of them match.
        ValueError: the file cannot be read, or holds no weights.
    """
    weights, source = _weights_of(checkpoint, model_key, trust)
    weights = {name.removeprefix("backbone.").removeprefix("encoder."): value for name, value in weights.items()}
    weights, dropped = _drop(weights, _BESIDE_ENCODER)
    own = {name: value.shape for name, value in classifier.state_dict().items()}
    if not any(name.startswith("norm.") for name in own):
        weights, norm = _drop(weights, {"norm.": "encoder norm (fc_norm takes its place)"})
        dropped |= norm
    head = {name: value.shape for name, value in weights.items() if name.startswith("head.")}
    if any(own.get(name) != shape for name, shape in head.items()):
        classes = head["head.weight"][0] if "head.weight" in head else "other"
        weights, fresh = _drop(weights, {"head.": f"head (of {classes} classes)"})
        dropped |= fresh
    report = compare(classifier, weights, source, dropped)
    _load(classifier, weights, report, beside=("fc_norm.", "head."), allow_partial=allow_partial)
    return report


def load_pretraining(mae: nn.Module, checkpoint: str | Path | Mapping[str, Any], *, model_key: str = "model|module",
                     allow_partial: bool = False, trust: bool = False) -> tuple[LoadReport, dict[str, Tensor]]:
    """Put a pre-training checkpoint into a `PretrainVisionTransformer`.

    Args:
        As for `load_encoder`.

    Returns:
        The report, and the weights of the token sampler that the file holds (empty: none), under the names of our
        samplers: of our "sampler", else of AdaMAE's `encoder.get_token_probs.*` and `encoder.pos_embed_probs`.

    Raises:
        As `load_encoder`.
    """
    if not isinstance(checkpoint, Mapping):
        source, checkpoint = str(checkpoint), read_checkpoint(checkpoint, trust)
    else:
        source = "the checkpoint"
    weights = find_weights(checkpoint, model_key)
    sampler, others = _sampler_of(checkpoint), {}
    for prefix, starts in (("sampler.", ("sampler.",)), ("encoder.", tuple("encoder." + n for n in _ADAMAE_SAMPLER))):
        found = {name: weights.pop(name) for name in list(weights) if name.startswith(starts)}
        if sampler:   # never merged: AdaMAE's model keeps its own, which nothing trains where a fork has ours
            others |= dict.fromkeys(found, "another sampler, beside the one that was trained")
        else:
            sampler = {name.removeprefix(prefix): value for name, value in found.items()}
    tables = ("pos_embed", "encoder.pos_embed", "decoder.pos_embed")
    weights, dropped = _drop(weights, dict.fromkeys(tables, _POSITIONS))
    dropped |= others
    report = compare(mae, weights, source, dropped)
    _load(mae, weights, report, beside=(), allow_partial=allow_partial)
    return report, sampler


def _weights_of(checkpoint: str | Path | Mapping[str, Any], model_key: str, trust: bool) -> tuple[dict, str]:
    if isinstance(checkpoint, Mapping):
        return find_weights(checkpoint, model_key), "the checkpoint"
    return find_weights(read_checkpoint(checkpoint, trust), model_key), str(checkpoint)


def _sampler_of(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Where our programs keep it, or a fork of VideoMAE, in whose checkpoints it travels with the loss scaler."""
    in_fork = checkpoint.get("scaler")
    if isinstance(in_fork, Mapping) and isinstance(in_fork.get("sampling"), Mapping):
        checkpoint = in_fork["sampling"]
    return dict(checkpoint["sampler"]) if isinstance(checkpoint.get("sampler"), Mapping) else {}


def _drop(weights: dict[str, Tensor], reasons: Mapping[str, str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(those that stay, name -> reason of those that begin with one of the prefixes; the longest prefix counts)."""
    dropped = {}
    for name in weights:
        prefixes = [prefix for prefix in reasons if name.startswith(prefix)]
        if prefixes:
            dropped[name] = reasons[max(prefixes, key=len)]
    return {name: value for name, value in weights.items() if name not in dropped}, dropped


def _load(model: nn.Module, weights: dict[str, Tensor], report: LoadReport, beside: tuple[str, ...],
          allow_partial: bool) -> None:
    """Load what matches; `beside`: prefixes of what need not be in the file."""
    misshaped = [name for name in report.misshaped if not name.startswith(beside)]
    share = report.share(beside)
    if not report.matched or not allow_partial and (misshaped or share < MIN_SHARE):
        raise WeightsMismatch(f"{report.source} holds the weights of another network, {share:.0%} of the tensors match "
                              f"({report.faults(beside)}); {_advice(weights)}", report)
    model.load_state_dict({name: weights[name] for name in report.matched}, strict=False)
    faults = report.faults(beside)
    if faults:
        logger.warning("loaded in part from %s: %s", report.source, faults)


def _advice(names: Iterable[str]) -> str:
    if any(name.startswith(("videomae.", "embeddings.patch_embeddings.")) for name in names):
        return "it is a Hugging Face file, which python -m tats.models.import_hf converts"
    return "build the model with the sizes it was trained with, or load what fits with --allow_partial"
