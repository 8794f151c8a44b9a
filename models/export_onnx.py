"""Write a fine-tuned classifier as an ONNX file, and compare the two on random clips.

    python -m tats.models.export_onnx out/checkpoint-99.pth classifier.onnx

Input `videos` float32 (B, 3, T, S, S), normalised as in training, output `logits` float32 (B, classes), B free. The
file's metadata has `class_names` (JSON) where the checkpoint knows them. Needs onnx, onnxscript and onnxruntime (the
extra 'onnx'). TorchScript: torch.jit.trace takes the network for one fixed clip shape; torch.jit.script does not, since
its shape checks unpack tuples of unknown length.
"""

import argparse
import importlib.util
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from .export_hf import exporting_parser, read_network
from .vit import VisionTransformer

_NEEDED = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-3   # of the largest logit: another order of additions gives about 1e-6 of it, another network 1


def export_classifier(net: nn.Module, out: Path, class_names: Sequence[str] | None = None) -> float:
    """Write the file; the largest difference between its logits and the network's, over the largest logit.

    Raises:
        ValueError: a package is missing, or the two differ by more than TOLERANCE; nothing is written then.
    """
    for name in _NEEDED:
        if importlib.util.find_spec(name) is None:
            raise ValueError(f"exporting to ONNX needs {name}: pip install {' '.join(_NEEDED)}")
    clips = _random_clips(net, 2)
    out.parent.mkdir(parents=True, exist_ok=True)
    # Weights above 2 GB stand in a second file, NAME.onnx.data, which the first one names: both move together.
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        written = Path(folder) / out.name
        program = torch.onnx.export(net, (clips,), dynamo=True, verbose=False, input_names=["videos"],
                                    output_names=["logits"], dynamic_shapes=({0: torch.export.Dim("batch")},))
        if class_names is not None:
            program.model.metadata_props["class_names"] = json.dumps(list(class_names))
        program.save(str(written), external_data=None)
        difference = max(_difference(net, written, _random_clips(net, count)) for count in (1, 3))
        if not difference <= TOLERANCE:
            raise ValueError(f"{out}: the exported network gives other logits, by {difference:.2g} of the largest; "
                             "nothing was written")
        for path in sorted(Path(folder).iterdir(), reverse=True):   # the data first
            os.replace(path, out.parent / path.name)
    return difference


def _random_clips(net: nn.Module, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, net.patch_embed.proj.in_channels, net.patch_embed.num_frames, *net.img_size,
                       generator=generator)


@torch.no_grad()
def _difference(net: nn.Module, path: Path, clips: Tensor) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found, expected = torch.from_numpy(session.run(None, {"videos": clips.numpy()})[0]), net(clips)
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-6))


def get_parser() -> argparse.ArgumentParser:
    """The program's command line."""
    return exporting_parser("export_onnx", __doc__.splitlines()[0], "file to write (.onnx)")


def export(args: argparse.Namespace) -> float:
    """Do what the command line says; see `export_classifier`.

    Raises:
        OSError, ValueError: the checkpoint cannot be read, is no classifier, or cannot be written in that form.
    """
    _, net, _, names = read_network(args)
    if not isinstance(net, VisionTransformer) or net.num_classes < 1:
        raise ValueError(f"{args.checkpoint} is no classifier; a pre-trained network goes out by export_hf")
    return export_classifier(net, args.out, names)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; bad input ends with one line and exit code 2."""
    parser = get_parser()
    try:
        difference = export(parser.parse_args(argv))
    except (OSError, ValueError) as error:
        parser.exit(2, f"error: {error}\n")
    parser.exit(0, f"largest difference of a logit: {difference:.1e} of the largest logit\n")


if __name__ == "__main__":
    main()
