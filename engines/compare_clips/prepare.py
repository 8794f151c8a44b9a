"""Clips as a comparison reads them: the same number of frames a second in each, small, written once; and their lists.

Below the folder of the data: videos/ROW.mp4; all/train.csv, every clip, to pre-train on; without-foldK/train.csv,
every clip but those that are tested in fold K and others of their groups; foldK/train.csv and foldK/test.csv, with
labels; evaluated.csv, all with labels, and clips.csv, the same clips with all that is known about them.
"""

import json
import logging
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ...datasets.files import read_json, recorded_otherwise, write_whole
from ...datasets.processes.parallel import for_each
from ...datasets.reencode import Encoding, Job, encode
from ..core.records import file_hash, write_csv
from .manifest import Manifest

logger = logging.getLogger(__name__)

# Small pictures: little is lost, little is saved.
_QUALITY = {"gop": 12, "crf": 12, "preset": "veryfast", "same_bytes": True}


class ClipSize(NamedTuple):
    """fps: frames a second. short_side: in pixels; the model's clips are cut out of it."""

    fps: float = 10.0
    short_side: int = 80


def prepare(manifest: Manifest, data: Path, size: ClipSize, jobs: int) -> None:
    """Write what is not there yet.

    Raises:
        ValueError: a clip cannot be read or has been replaced, or `data` was made of others or in another size.
    """
    settings = {"manifest": file_hash(manifest.folder / "manifest.csv"), "set": manifest.name, **size._asdict()}
    record = data / "settings.json"
    if recorded_otherwise(record, settings):
        raise ValueError(f"{data} was made of another manifest, set, --fps or --short_side: take another --out")
    _keep_sources(manifest, data)
    write_whole(record, json.dumps(settings) + "\n")
    encoding = Encoding(size.short_side, **_QUALITY, fps=size.fps)
    waiting = [Job(str((manifest.folder / row.path).resolve()), video_of(data, number))
               for number, row in enumerate(manifest.rows) if not Path(video_of(data, number)).is_file()]
    failed = []
    for position, cause in for_each(partial(encode, encoding=encoding), waiting, jobs, "encoding"):
        if cause:
            failed.append(f"{waiting[position].source}: {cause}")
    if failed:
        raise ValueError(f"{len(failed)} clip(s) cannot be prepared; those that cannot be read are to be taken out of "
                         f"the manifest. The first: {failed[0]}")
    _write_lists(manifest, data)


def _keep_sources(manifest: Manifest, data: Path) -> None:
    """Write down what the clips are that `data` is made of: size, time of change and hash of each.

    Raises:
        ValueError: one of them has been replaced since. What was prepared from it would stand beside a new one's flow.
    """
    record = data / "sources.json"
    known = read_json(record) if record.is_file() else {}
    found = {}
    for row in manifest.rows:
        path, before = manifest.folder / row.path, known.get(row.path)
        state = path.stat()
        if before is None or before[:2] != [state.st_size, state.st_mtime_ns]:
            content = file_hash(path) if path.is_file() else ""   # folders of pictures are refused later
            if before is not None and before[2] != content:
                raise ValueError(f"{path} is another clip than the one that {data} was made of: take another --out")
            before = [state.st_size, state.st_mtime_ns, content]
        found[row.path] = before
    if found != known:
        write_whole(record, json.dumps(found) + "\n")


def video_of(data: Path, number: int) -> str:
    """The prepared video of a row of the manifest."""
    return str(data / "videos" / f"{number:05d}.mp4")


def _write_lists(manifest: Manifest, data: Path) -> None:
    rows, classes = manifest.rows, {name: number for number, name in enumerate(manifest.classes)}

    def write(path: Path, numbers: list[int], labelled: bool) -> None:
        lines = (f"{video_of(data, number)} {classes[rows[number].label]}" if labelled else video_of(data, number)
                 for number in numbers)
        text = "".join(f"{line}\n" for line in lines)
        if not path.is_file() or path.read_text() != text:
            write_whole(path, text)

    everything, tested = list(range(len(rows))), {fold: [number for number in manifest.tested
                                                          if rows[number].fold == fold] for fold in manifest.folds}
    write(data / "all" / "train.csv", everything, False)
    write(data / "evaluated.csv", list(manifest.evaluated), True)
    write_csv(data / "clips.csv", [
        {"row": number, "video": video_of(data, number), **rows[number]._asdict(), "label": classes[rows[number].label],
         "class": rows[number].label} for number in manifest.evaluated])
    for fold, own in tested.items():
        groups = {rows[number].group for number in own}
        write(data / f"without-fold{fold}" / "train.csv", [number for number in everything
                                                           if rows[number].group not in groups], False)
        write(data / f"fold{fold}" / "train.csv", [number for number in manifest.evaluated if number not in own], True)
        write(data / f"fold{fold}" / "test.csv", own, True)
