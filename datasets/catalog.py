"""The data sets that the programs know by name: what `--data_set` stands for."""

from typing import NamedTuple

from .lists.split_files import HMDB51, K400, SSV2, UCF101, SplitFormat


class DataSet(NamedTuple):
    """What a data set fixes.

    Fields:
        classes: number of labels.
        style: how clips are sampled in fine-tuning and testing, see `sampling`.
        stride: frames from one sampled frame to the next, pre-training and the dense style.
        test_segments, test_crops: clips x crops of a test video.
        flip: may a clip be mirrored (not where left and right are part of the class).
        split_files: how the data set is published, for `build_lists`; None: it has no official split files.
        made_up: its videos are drawn by a program: a number on them says nothing of the paper's.
    """

    classes: int
    style: str
    stride: int
    test_segments: int
    test_crops: int
    flip: bool
    split_files: SplitFormat | None = None
    made_up: bool = False


# Strides and views of the paper (Sec. 8.1, Table 7). VideoMAE itself takes stride 4 and 5 x 3 views for UCF101.
DATA_SETS = {
    "Kinetics-400": DataSet(400, "dense", 4, 5, 3, True, K400),
    "SSV2": DataSet(174, "segments", 2, 2, 3, False, SSV2),
    "UCF101": DataSet(101, "dense", 2, 2, 3, True, UCF101),
    "HMDB51": DataSet(51, "dense", 2, 2, 3, True, HMDB51),
    "moving-shapes": DataSet(8, "dense", 1, 1, 1, False, made_up=True),
    "moving-shapes-appearance": DataSet(4, "dense", 1, 1, 1, False, made_up=True),
}


def register_data_set(name: str, row: DataSet) -> DataSet:
    """Add a data set to the table under `name`; `--data_set` of every program then takes it.

    Raises:
        ValueError: the name is taken.
    """
    if name in DATA_SETS:
        raise ValueError(f"data set {name!r} is taken; the table holds {', '.join(DATA_SETS)}")
    DATA_SETS[name] = row
    return row


def published() -> dict[str, DataSet]:
    """The data sets with official split files, by the short names that `build_lists` takes."""
    return {row.split_files.name: row for row in DATA_SETS.values() if row.split_files is not None}


def data_set(name: str) -> DataSet:
    """The row of that name.

    Raises:
        ValueError: unknown; the known ones are listed.
    """
    if name not in DATA_SETS:
        raise ValueError(f"unknown data set {name!r}: use one of {', '.join(DATA_SETS)}, or bring the "
                         "module that registers it in with --plugin MODULE")
    return DATA_SETS[name]


def stride_of(name: str, sampling_rate: int | None = None) -> int:
    """Frames from one sampled frame to the next: `sampling_rate`, else that of the data set `name`, else 4."""
    return sampling_rate or (data_set(name).stride if name else 4)
