"""Turn a Hugging Face VideoMAE folder into a checkpoint for this project and for VideoMAE's own programs.

    python -m tats.models.import_hf hf_folder weights.pth

The folder is one that `save_pretrained` or a download wrote: config.json beside model.safetensors or
pytorch_model.bin, in one piece or in shards. Nothing is downloaded, and transformers is not needed.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .convert.files import read_checkpoint
from .convert.huggingface import from_hf

_FILES = ("model.safetensors", "pytorch_model.bin")


def import_folder(folder: str | Path) -> dict[str, Any]:
    """{"model": weights under VideoMAE's names, "config": {"name", "kwargs"} for `create_model`}.

    Raises:
        FileNotFoundError: no configuration or no weights there.
        ValueError: another kind of model, damaged files, or a tensor with a name that nobody knows.
    """
    folder = Path(folder)
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no Hugging Face folder: it has no config.json")
    try:
        hf_config = json.loads(path.read_text())
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error})") from error
    config, weights = from_hf(hf_config, _weights(folder))
    names = _class_names(hf_config, config["kwargs"].get("num_classes", 0))
    return {"model": weights, "config": config} | ({} if names is None else {"class_names": names})


def _class_names(hf_config: dict, classes: int) -> list[str] | None:
    """id2label in the order of the labels; None where it holds no names, or not those of the head's classes."""
    found = hf_config.get("id2label")
    if not classes or not isinstance(found, dict) or set(map(str, found)) != set(map(str, range(classes))):
        return None
    names = [str({str(label): name for label, name in found.items()}[str(label)]) for label in range(classes)]
    if names == [f"LABEL_{label}" for label in range(classes)] or len(set(names)) < classes:
        return None
    return names


def _weights(folder: Path) -> dict[str, Tensor]:
    for name in _FILES:
        if (folder / name).is_file():
            return read_checkpoint(folder / name)
        index = folder / f"{name}.index.json"
        if index.is_file():
            try:
                shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            except (json.JSONDecodeError, RecursionError, LookupError, TypeError, AttributeError) as error:
                raise ValueError(f"{index} is no index of weights ({error})") from error
            if any(Path(str(shard)).name != shard for shard in shards):
                raise ValueError(f"{index} names files outside its folder")
            return {key: value for shard in shards for key, value in read_checkpoint(folder / shard).items()}
    raise FileNotFoundError(f"{folder} holds no weights: neither {' nor '.join(_FILES)}")


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; bad input ends with one line and exit code 2."""
    parser = argparse.ArgumentParser("import_hf", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="Hugging Face folder")
    parser.add_argument("out", type=Path, help="checkpoint to write (.pth)")
    args = parser.parse_args(argv)
    try:
        checkpoint = import_folder(args.folder)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        torch.save(checkpoint, args.out)
    except (OSError, ValueError) as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
