"""What a user names on a command line: videos, folders of videos, folders of pictures, and list files."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..models.convert.kinds import LOOKED_AT, kind_of_no_text
from .build_lists import VIDEO_ENDINGS
from .lists.columns import WHOLE
from .lists.list_file import ClipList, Paths, read_list
from .lists.walking import walk
from .video.read_folder import ENDINGS as PICTURE_ENDINGS

LIST_ENDINGS = (".csv", ".txt", ".tsv", ".list")
_NO_FILES = ("://", "::")   # in addresses and members of shards: always a video, never a list


def videos_named(inputs: Sequence[str], need_label: bool = False) -> ClipList:
    """The videos that the inputs stand for, in their order.

    A folder stands for the videos below it in the order of their names, and for the folders of pictures below it that
    hold no video; a list file (.csv, .txt, .tsv, .list, or another file of text) for its rows; everything else for a
    video, there or not.

    Raises:
        FileNotFoundError: no such list.
        ValueError: a folder without videos, or a list with bad rows.
    """
    paths, labels, lines, spans = [], [], [], []
    for name in inputs:
        if _is_list(name):
            rows = read_list(name, need_label)
            paths += rows.paths
            labels += rows.labels.tolist()
            lines += rows.lines.tolist()
            spans += [rows.span(row) for row in range(len(rows))]
        else:
            found = videos_below(name) if os.path.isdir(name) else [name]
            paths += found
            labels += [-1] * len(found)
            lines += range(1, len(found) + 1)
            spans += [WHOLE] * len(found)
    parts = np.array(spans, np.int64) if any(span != WHOLE for span in spans) else None
    return ClipList(Paths(paths), np.array(labels, np.int64), np.array(lines, np.int64), ", ".join(inputs), parts)


def videos_below(folder: str) -> list[str]:
    """Videos below a folder in the order of their names, and folders of pictures; the folder itself may be one.

    Raises:
        ValueError: there are neither.
    """
    found = []
    for parent, _, files in walk(folder):
        videos = [name for name in files if os.path.splitext(name)[1].lower() in VIDEO_ENDINGS]
        if videos:
            found += [os.path.join(parent, name) for name in videos]
        elif any(name.lower().endswith(PICTURE_ENDINGS) for name in files):
            found.append(parent)
    if not found:
        raise ValueError(f"{folder} holds no videos ({' '.join(sorted(VIDEO_ENDINGS))}) and no folders of pictures")
    return found


def _is_list(name: str) -> bool:
    if any(sign in name for sign in _NO_FILES) or os.path.isdir(name):
        return False
    ending = Path(name).suffix.lower()
    if ending in LIST_ENDINGS:
        return True
    if ending in VIDEO_ENDINGS or not os.path.isfile(name):
        return False
    with open(name, "rb") as file:   # an ending that says nothing: text is a list
        start = file.read(LOOKED_AT)
    return bool(start) and not kind_of_no_text(start)
