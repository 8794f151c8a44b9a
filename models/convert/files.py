"""Files of weights: read without running what they hold, find the weights inside, take wrappers' prefixes off."""

import json
import logging
import mmap
import pickle
import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .kinds import LOOKED_AT, kind_by_beginning

logger = logging.getLogger(__name__)

# What torch's unpickler says of an object that it will not build; its other messages are about damage.
_REFUSED = re.compile(r"GLOBAL (?P<name>[\w.]+)|Can only (create new object|build Tensor)|unrecognized function")

# What a damaged file makes torch.load raise, found by flipping and cutting bytes; a full memory is not among them.
_DAMAGED = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError, EOFError, ImportError,
            OverflowError, OSError, NotImplementedError, pickle.PickleError, struct.error, zipfile.BadZipFile)

_WANTED = "give the .pth, .pt, .bin or .safetensors file that holds the weights"
MODEL_KEY = "model|module"   # where VideoMAE's fine-tuning looks

# Of a file in memory: torch writes its checkpoints unpacked, and a packed file of zeros grows a thousandfold.
_MOST_GROWTH = 4


def read_checkpoint(path: str | Path, trust: bool = False) -> dict[str, Any]:
    """A `.pth`, `.pt`, `.bin` or `.safetensors` file as a dictionary on the CPU.

    A `.safetensors` file that we exported gives {"model": tensors, "config": ...}, any other one its tensors by name.

    Args:
        trust: also build pickled objects (argparse.Namespace, numpy scalars, ...). Building them can run any code, so
            only for files from people you trust.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is damaged, holds pickled objects and `trust` is False, asks for far more memory than its own
            size, or holds no dictionary.
    """
    path = Path(path)
    if path.is_dir():
        files = [file for file in path.glob("*.pth") if file.is_file()]
        newest = max(files, key=lambda file: file.stat().st_mtime, default=None)
        which = f"the newest is {newest}" if newest else \
            "of a Hugging Face folder: python -m tats.models.import_hf FOLDER OUT"
        raise ValueError(f"checkpoint {path} is a folder; give the file in it that holds the weights ({which})")
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path} does not exist")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if trust:
        logger.warning("reading %s with its pickled objects, which can run any code", path)
    try:
        if not trust:
            _refuse_growth(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=not trust)
    except _DAMAGED as error:
        if kind := _what_it_is(path):
            raise ValueError(f"checkpoint {path} is no checkpoint but {kind}: {_WANTED}") from error
        if not trust and (found := _REFUSED.search(str(error))):
            what = found["name"] or "one"
            raise ValueError(f"checkpoint {path} holds pickled objects ({what}), and loading those can run any code; "
                             "if you trust its source, say so with --trust_checkpoint") from error
        # Of torch's advice to load the file with weights_only=False nothing is handed on: that runs what it holds.
        said = re.search(r"WeightsUnpickler error: (.*)", str(error))
        reason = said[1] if said else (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"checkpoint {path} cannot be read: damaged or no checkpoint ({reason})") from error
    except MemoryError as error:
        raise ValueError(f"checkpoint {path} asks for more memory than there is") from error
    if not isinstance(checkpoint, dict):
        raise ValueError(f"checkpoint {path} holds a {type(checkpoint).__name__}, not a dictionary of weights")
    return checkpoint


def _what_it_is(path: Path) -> str:
    """What a file is that holds no weights; empty where it does not say."""
    with open(path, "rb") as file:
        start = file.read(LOOKED_AT)
    if not start:
        return "an empty file"
    if kind := kind_by_beginning(start):
        return kind
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError as error:
        text = start[:error.start].decode("utf-8") if error.start > len(start) - 4 else "\0"   # a cut letter
    if all(letter.isprintable() or letter in "\t\r\n\ufeff" for letter in text):
        return f"a text file, which begins with {text.strip()[:40]!r}"
    return ""


def _refuse_growth(path: Path) -> None:
    """A small file must not take the machine's memory: neither by packing, nor by asking for a bytearray of any size,
    the one object of a size of its own choice that torch's unpickler builds.

    Raises:
        ValueError, zipfile.BadZipFile.
    """
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content[:4] == b"PK\x03\x04":   # the list of what is in a zip file stands at its end
                raise zipfile.BadZipFile("its end is missing: it was not written or copied whole")
            has_bytearray = content.find(b"bytearray") >= 0
    else:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            unpacked = sum(record.file_size for record in records)
            if unpacked > _MOST_GROWTH * path.stat().st_size + (1 << 20):
                raise ValueError(f"{unpacked} bytes unpacked, in a file of {path.stat().st_size}")
            has_bytearray = any(b"bytearray" in archive.read(record) for record in records
                                if record.filename.endswith(".pkl"))
    if has_bytearray:
        raise ValueError("it holds a bytearray, whose size the file may choose freely")


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise ValueError(f"reading {path} needs safetensors: pip install safetensors") from None
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dictionary
            config = (file.metadata() or {}).get("config")
    except SafetensorError as error:
        if kind := _what_it_is(path):
            raise ValueError(f"checkpoint {path} is no checkpoint but {kind}: {_WANTED}") from error
        raise ValueError(f"checkpoint {path} cannot be read: damaged or no safetensors file ({error})") from error
    if config is None:
        return tensors
    try:
        return {"model": tensors, "config": json.loads(config)}
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"checkpoint {path}: the configuration in its metadata is not JSON ({error})") from error


def find_weights(checkpoint: Mapping[str, Any], model_key: str = MODEL_KEY) -> dict[str, Tensor]:
    """The weights in a checkpoint, by name, without the prefixes of DistributedDataParallel and torch.compile.

    Args:
        model_key: names under which they may stand, the first one present wins. Without any of the usual ones the
            checkpoint itself is taken for the weights; other names must be there.

    Raises:
        ValueError: no tensors there, or two names that differ in such a prefix only.
    """
    found = next((checkpoint[key] for key in model_key.split("|") if isinstance(checkpoint.get(key), Mapping)),
                 checkpoint if model_key == MODEL_KEY else {})
    tensors = _tensors(found)
    if not tensors:
        parts = [key for key, value in checkpoint.items() if isinstance(value, Mapping) and _tensors(value)]
        where = f"it has weights under {', '.join(parts)}: name the right one with --model_key" if parts else (
            "its weights have no such name above them: leave --model_key away" if _tensors(checkpoint) else
            f"it holds {', '.join(map(str, list(checkpoint)[:8])) or 'nothing'}, and none of it is weights by name")
        raise ValueError(f"no weights under {' or '.join(model_key.split('|'))} in the checkpoint; {where}")
    bare = {_without_wrappers(name): value for name, value in tensors.items()}
    if len(bare) < len(tensors):
        raise ValueError("the checkpoint holds two sets of weights, with and without the prefix module. or _orig_mod.")
    return bare


def _tensors(found: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def _without_wrappers(name: str) -> str:
    name = name.replace("_orig_mod.", "")  # torch.compile of a part puts it in the middle
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name
