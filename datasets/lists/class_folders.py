"""Videos sorted into folders, one folder a class, as lists: with sub-folders for the parts, or divided by shares."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..video.read_folder import ENDINGS as PICTURE_ENDINGS
from .walking import walk

VIDEO_ENDINGS = frozenset(".avi .mp4 .mkv .webm .mov .m4v .mpg .mpeg .wmv .flv .3gp .ts .mts .m2ts .ogv .gif".split())
PART_NAMES = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}


class ClassFolders(NamedTuple):
    """What was found.

    Fields:
        classes: names, by label.
        parts: "train", "val" and "test" -> (path, label) of every video.
    """

    classes: list[str]
    parts: dict[str, list[tuple[str, int]]]


def read_class_folders(root: Path, val: float = .2, test: float = 0, seed: int = 0) -> ClassFolders:
    """The videos below `root`, their classes from the names of its folders, in alphabetical order.

    Where root holds folders train and val (or test), each of these holds the classes; a missing val is test, and the
    other way round. Else root holds the classes, and of each class `val` and `test` are drawn, rounded, the same for
    the same seed; without `test` it is val. A video is a file at any depth, or a folder of pictures.

    Raises:
        FileNotFoundError: no videos.
        ValueError: fewer than two classes, shares that leave nothing, or a class without a training video.
    """
    given = given_parts(root)
    if given:
        found = {part: _videos_by_class(folder) for part, folder in given.items()}
        classes = sorted(set().union(*found.values()))
        parts = {part: _rows(videos, classes) for part, videos in found.items()}
        parts.setdefault("val", parts.get("test", []))
    else:
        videos = _videos_by_class(root)
        classes = sorted(videos)
        parts = _divided(videos, val, test, seed)
    parts.setdefault("test", parts["val"])
    if len(classes) < 2:
        raise ValueError(f"{root} holds {len(classes)} class folder(s): at least two are needed, each with its videos")
    without = [name for label, name in enumerate(classes) if label not in {label for _, label in parts["train"]}]
    if without:
        raise ValueError(f"{len(without)} of {len(classes)} classes have no training video, the first is {without[0]}")
    return ClassFolders(classes, {part: parts[part] for part in PART_NAMES})


def given_parts(root: Path) -> dict[str, Path]:
    """The folders train, val and test below the root; {} where they are not the way it is sorted."""
    there = {path.name.lower(): path for path in root.iterdir() if path.is_dir()}
    found = {part: next((there[name] for name in names if name in there), None) for part, names in PART_NAMES.items()}
    found = {part: path for part, path in found.items() if path is not None}
    return found if "train" in found and len(found) > 1 else {}


def _videos_by_class(folder: Path) -> dict[str, list[str]]:
    """Class -> absolute paths of its videos, in the order of names. Raises FileNotFoundError: there are none."""
    found = {path.name: _videos(path) for path in sorted(folder.iterdir())
             if path.is_dir() and not path.name.startswith((".", "__"))}
    found = {name: videos for name, videos in found.items() if videos}
    if not found:
        raise FileNotFoundError(f"no folders with videos in {folder}: expected one folder a class, "
                                f"{folder}/CLASS/VIDEO.mp4")
    return found


def _videos(folder: Path) -> list[str]:
    found = []
    for parent, folders, files in walk(os.path.abspath(folder)):
        folders[:] = [name for name in folders if not name.startswith("__")]
        found += [os.path.join(parent, name) for name in files if os.path.splitext(name)[1].lower() in VIDEO_ENDINGS]
        if any(name.lower().endswith(PICTURE_ENDINGS) for name in files):
            found.append(parent)
            folders.clear()
    bad = next((path for path in found if "\n" in path or "\r" in path), None)
    if bad is not None:
        raise ValueError(f"a name with a line break cannot stand in a list: {bad!a}")
    return found


def _rows(videos: Mapping[str, list[str]], classes: list[str]) -> list[tuple[str, int]]:
    return [(path, classes.index(name)) for name in sorted(videos) for path in videos[name]]


def _divided(videos: Mapping[str, list[str]], val: float, test: float, seed: int) -> dict[str, list[tuple[str, int]]]:
    """Each class divided by itself, so that the parts have its share; with a share above 0 at least one video."""
    if not (0 <= test < 1 and 0 < val < 1 and val + test < 1):
        raise ValueError(f"--val must lie above 0 and --test not below, together below 1; got {val} and {test}")
    parts: dict[str, list[tuple[str, int]]] = {"train": [], "val": []} | ({"test": []} if test else {})
    for label, name in enumerate(sorted(videos)):
        paths = videos[name]
        counts = {"val": max(1, round(val * len(paths)))} | ({"test": max(1, round(test * len(paths)))} if test else {})
        if len(paths) <= sum(counts.values()):
            raise ValueError(f"class {name} has {len(paths)} video(s): too few for training, {' and '.join(counts)}")
        order = np.random.default_rng([seed, label]).permutation(len(paths)).tolist()
        for part, count in counts.items():
            parts[part] += [(paths[row], label) for row in sorted(order[:count])]
            del order[:count]
        parts["train"] += [(paths[row], label) for row in sorted(order)]
    return parts
