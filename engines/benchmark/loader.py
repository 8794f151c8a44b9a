"""Seconds a clip of the loaders: ours, and VideoMAE's on the same files; one process, one thread, no workers."""

import argparse
import contextlib
import io
import itertools
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from ...datasets.clips import ClipShape, RepeatedClips
from ...datasets.labelled import Sampling, TestViews, Views
from ...datasets.lists.list_file import read_list
from ...datasets.transforms.pretraining import pretrain_transform
from ...datasets.video.decode import Decoding
from ...masking import TokenGrid, TubeMasking
from .originals import Clone
from .timing import entered

FRAMES, STRIDE, SIZE = 16, 4, 224
SEGMENTS, CROPS = 5, 3


def loaders(videos: Sequence[str], decoding: Decoding, clone: Clone | None,
            repeats: int = 1) -> dict[str, Callable[[], object]]:
    """Contestants that read pre-training clips of each video: one, or `repeats`, which is ours alone."""
    ours = RepeatedClips(_list_of(videos), ClipShape(FRAMES, STRIDE), pretrain_transform("multiscale", SIZE),
                         TubeMasking(TokenGrid(FRAMES // 2, SIZE // 16, SIZE // 16), 0.95), decoding, repeats=repeats)
    keys = itertools.count()
    found = {"ours": lambda: [ours[row, next(keys)] for row in range(len(ours))]}
    if clone is not None:
        np.random.seed(0)
        found["videomae"] = entered(partial(_Theirs, clone, partial(_their_clips, clone, videos)))
    return found


def _their_clips(clone: Clone, videos: Sequence[str]) -> Dataset:
    options = {"mask_type": "tube", "mask_ratio": 0.95, "num_frames": FRAMES, "sampling_rate": STRIDE,
               "input_size": SIZE, "window_size": (FRAMES // 2, SIZE // 16, SIZE // 16)}
    with _list_file(videos) as file:
        return clone.load("datasets").build_pretraining_dataset(argparse.Namespace(data_path=file.name, **options))


def test_views(videos: Sequence[str], decoding: Decoding, clone: Clone | None) -> dict[str, Callable[[], object]]:
    """Contestants that read all 5 x 3 views of each video."""
    ours = TestViews(_list_of(videos), Sampling("dense", FRAMES, STRIDE), Views(SEGMENTS, CROPS, SIZE), decoding)
    found = {"ours": partial(_read_all, ours)}
    if clone is not None:
        found["videomae"] = entered(partial(_Theirs, clone, partial(_their_views, clone, videos)))
    return found


def _their_views(clone: Clone, videos: Sequence[str]) -> Dataset:
    with _list_file(videos) as file:
        return clone.load("kinetics").VideoClsDataset(
            file.name, "/", "test", FRAMES, STRIDE, SIZE, SIZE, 256, 320, num_crop=CROPS, test_num_segment=SEGMENTS,
            test_num_crop=CROPS)


test_views.__test__ = False   # pytest: not a test


class _Theirs:
    """Reads a data set of a clone, whose parts import packages when they are first used."""

    def __init__(self, clone: Clone, build: Callable[[], Dataset]):
        self.clone = clone
        with clone.code(), contextlib.redirect_stdout(io.StringIO()):
            self.dataset = build()

    def __call__(self) -> None:
        with self.clone.code():
            _read_all(self.dataset)


def _read_all(dataset: Dataset) -> None:
    for row in range(len(dataset)):
        dataset[row]


def _list_of(videos: Sequence[str]):
    with _list_file(videos) as file:
        return read_list(file.name)


def _list_file(videos: Sequence[str]):
    """An open list file; gone when its block is left."""
    file = tempfile.NamedTemporaryFile("w", suffix=".csv")   # noqa: SIM115 - the caller's block closes it
    file.writelines(f"{Path(video).resolve()} 0\n" for video in videos)
    file.flush()
    return file
