"""Write a checkpoint as a Hugging Face VideoMAE folder, or as one .safetensors file under our own names.

    python -m tats.models.export_hf out/checkpoint-799.pth hf_folder
    python -m tats.models.export_hf out/checkpoint-799.pth weights.safetensors --format safetensors

The kind follows from the checkpoint: VideoMAEForPreTraining, VideoMAEForVideoClassification, or, with --encoder,
VideoMAEModel. Neither transformers nor the network is needed.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from .convert.checkpoints import WeightsMismatch, load_encoder, load_pretraining
from .convert.class_names import class_names_of
from .convert.files import find_weights, read_checkpoint
from .convert.huggingface import hf_model
from .mae import PretrainVisionTransformer
from .registry import create_model

_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def build(checkpoint: Mapping[str, Any], config: Mapping[str, Any] | None = None,
          model_key: str = "model|module") -> tuple[nn.Module, dict[str, Any]]:
    """(the network of a checkpoint with all its weights, in eval mode; its {"name", "kwargs"}).

    Args:
        checkpoint: what `read_checkpoint` returned. config: {"name", "kwargs"} for checkpoints that hold none.

    Raises:
        ValueError: no config anywhere, or the weights are not exactly those of that network.
    """
    config = config or checkpoint.get("config")
    if not isinstance(config, Mapping) or not {"name", "kwargs"} <= set(config):
        raise ValueError("the checkpoint does not say which model it is; name it with --model (and --num_frames, "
                         "--input_size)")
    model = create_model(config["name"], **config["kwargs"])
    if isinstance(model, PretrainVisionTransformer):
        report, _ = load_pretraining(model, checkpoint, model_key=model_key)
    else:
        report = load_encoder(model, checkpoint, model_key=model_key)
    if not report.whole or "decoder" in report.dropped.values():
        raise WeightsMismatch(f"the checkpoint is not one of {config['name']}: "
                              f"{report.faults() or 'it holds a decoder'}", report)
    return model.eval(), dict(config)


def config_of(name: str, weights: Mapping[str, Tensor], num_frames: int, input_size: int) -> dict[str, Any]:
    """{"name", "kwargs"} of a file that holds none: frames and size as said, the rest as the weights have it."""
    kwargs: dict[str, Any] = {"img_size": input_size}
    if name.startswith("pretrain"):
        blocks = {key.split(".")[2] for key in weights if key.startswith("decoder.blocks.")}
        return {"name": name, "kwargs": kwargs | {"num_frames": num_frames, "decoder_depth": len(blocks)}}
    head = weights.get("head.weight")
    kwargs |= {"all_frames": num_frames, "num_classes": 0 if head is None else len(head)}
    return {"name": name, "kwargs": kwargs}


def save_safetensors(path: Path, weights: Mapping[str, Tensor], config: Mapping[str, Any] | None = None) -> None:
    """Write weights, and our config into the file's header, where `read_checkpoint` finds it.

    Raises:
        ValueError: safetensors is not installed.
    """
    try:
        from safetensors.torch import save_file
    except ImportError:
        raise ValueError("this needs safetensors: pip install safetensors") from None
    header = {"format": "pt"} | ({} if config is None else {"config": json.dumps(config)})
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in weights.items()}, path, metadata=header)


def write_folder(folder: Path, model: nn.Module, encoder_only: bool = False, norm_pix_loss: bool = True,
                 class_names: Sequence[str] | None = None) -> None:
    """config.json, model.safetensors and preprocessor_config.json: what `from_pretrained` reads.

    Args:
        class_names: of a classifier, the name of label 0 first: id2label and label2id. None: LABEL_0, ...

    Raises:
        ValueError: the model is one that Hugging Face's VideoMAE cannot be.
    """
    config, weights = hf_model(model, encoder_only)
    if "norm_pix_loss" in config:
        config["norm_pix_loss"] = norm_pix_loss
    if class_names is not None and "id2label" in config:
        config |= {"id2label": dict(enumerate(class_names)),
                   "label2id": {name: label for label, name in enumerate(class_names)}}
    save_safetensors(folder / "model.safetensors", weights)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    size = config["image_size"]
    height, width = (size, size) if isinstance(size, int) else size
    processor = {
        "image_processor_type": "VideoMAEImageProcessor", "do_resize": True,
        "size": {"shortest_edge": min(height, width)}, "do_center_crop": True,
        "crop_size": {"height": height, "width": width}, "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": _MEAN, "image_std": _STD, "resample": 2,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")


def exporting_parser(program: str, purpose: str, out: str) -> argparse.ArgumentParser:
    """A command line with what every export asks for. purpose: its description. out: what is written."""
    parser = argparse.ArgumentParser(program, description=purpose)
    parser.add_argument("checkpoint", type=Path, help="a checkpoint of ours, or of VideoMAE with --model")
    parser.add_argument("out", type=Path, help=out)
    parser.add_argument("--model_key", default="model|module", help="where the weights are (model_ema: their average)")
    parser.add_argument("--model", default="", help="name in the model table, for files that do not say")
    parser.add_argument("--num_frames", type=int, default=16, help="with --model: frames of a clip")
    parser.add_argument("--input_size", type=int, default=224, help="with --model: height and width in pixels")
    parser.add_argument("--trust_checkpoint", action="store_true",
                        help="read pickled objects too (old VideoMAE files); runs their code")
    return parser


class Exported(NamedTuple):
    """What leaves: checkpoint: the file as read. network: with its weights. config: of `create_model`. class_names:
    in the order of its labels, None where the file holds none."""

    checkpoint: dict[str, Any]
    network: nn.Module
    config: dict[str, Any]
    class_names: list[str] | None


def read_network(args: argparse.Namespace) -> Exported:
    """The network that the flags of `exporting_parser` name.

    Raises:
        OSError, ValueError: the checkpoint cannot be read or built.
    """
    checkpoint, config = read_checkpoint(args.checkpoint, args.trust_checkpoint), None
    if args.model:
        config = config_of(args.model, find_weights(checkpoint, args.model_key), args.num_frames, args.input_size)
    network, config = build(checkpoint, config, args.model_key)
    return Exported(checkpoint, network, config, class_names_of(checkpoint, getattr(network, "num_classes", 0)))


def get_parser() -> argparse.ArgumentParser:
    """The program's command line."""
    parser = exporting_parser("export_hf", __doc__.splitlines()[0], "folder to write (--format safetensors: file)")
    parser.add_argument("--format", choices=("hf", "safetensors"), default="hf")
    parser.add_argument("--encoder", action="store_true", help="a VideoMAEModel: no decoder, no head")
    return parser


def export(args: argparse.Namespace) -> None:
    """Do what the command line says.

    Raises:
        OSError, ValueError: the checkpoint cannot be read, built or written in that form.
    """
    checkpoint, model, config, names = read_network(args)
    if args.format == "safetensors":
        if args.encoder:
            raise ValueError("--encoder goes with --format hf")
        save_safetensors(args.out, model.state_dict(), config if names is None else config | {"class_names": names})
    else:
        settings = checkpoint.get("settings", {}).get("loss", {})
        write_folder(args.out, model, args.encoder, settings.get("normlize_target", True), names)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; bad input ends with one line and exit code 2."""
    parser = get_parser()
    try:
        export(parser.parse_args(argv))
    except (OSError, ValueError) as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
