"""Put the videos of a list into tar shards, from which training reads them in place, here or from an object store.

    python -m tats.datasets.pack lists/train.csv --out shards/ [--prefix s3://bucket/shards]
    python -m tats.datasets.pack theirs/*.tar --out lists/ [--prefix ...]     shards that are there: index and list

The layout is webdataset's: the files KEY.mp4, KEY.cls (the label) and KEY.json (the path it came from) are one sample.
Beside each shard lies SHARD.tar.index, which says where each member is. The list in --out has the rows of the one that
was packed, in its order, as `SHARD.tar::KEY.mp4 label`: runs over both are the same.
"""

import argparse
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from .build_lists import VIDEO_ENDINGS
from .files import write_whole
from .lists.class_names import FILE_NAME
from .lists.list_file import ClipList, read_list
from .program import run_program
from .shard_writer import ShardWriter, Unreadable, index_shard, other_shards
from .sources.opening import SourceError

logger = logging.getLogger(__name__)

_LABEL = re.compile(rb"\s*(\d{1,18})\s*")


def pack(clips: ClipList, out: Path, limit: int, allow_missing: bool = False) -> list[tuple[str, int]]:
    """Write the shards; (`SHARD.tar::MEMBER`, label) of each row that was packed, in the order of the list.

    Raises:
        ValueError: rows that are parts of videos; videos that cannot be packed, unless `allow_missing` leaves them out.
    """
    if clips.spans is not None:
        raise ValueError(f"{clips.source} names parts of videos, shards hold whole ones: cut the parts out first")
    writer, rows, missing = ShardWriter(out, Path(clips.source).stem, limit), [], []
    try:
        for row, path in enumerate(clips.paths):
            label, (key, ending) = int(clips.labels[row]), _key(row, path)
            files = [(".cls", b"%d" % label)] if label >= 0 else []
            files.append((".json", json.dumps({"path": path, "line": int(clips.lines[row])}).encode()))
            try:
                rows.append((f"{writer.add(files, path, ending, key)}::{key}{ending}", label))
            except Unreadable as error:
                cause = "a folder of pictures: make a video of it first" if os.path.isdir(path) else error
                missing.append(f"line {clips.lines[row]}: {path}: {cause}")
                if not allow_missing:
                    raise ValueError(f"{clips.source} {missing[0]} (--allow_missing leaves such videos out)") from None
        writer.close()
    finally:
        writer.drop()
    for line in missing:
        logger.warning("left out: %s", line)
    if others := other_shards(out, writer.name, writer.number):
        logger.warning("%s also holds %d shard(s) of an earlier pack, which the list does not name: delete %s and what "
                       "follows, or a program that reads all shards sees them too", out, len(others), others[0])
    if not rows:
        raise ValueError(f"none of the {len(clips)} videos of {clips.source} can be packed")
    return rows


def _key(row: int, path: str) -> tuple[str, str]:
    """webdataset's key of a row's files, which is what stands before the first dot, and the video's ending."""
    stem, ending = os.path.splitext(os.path.basename(path))
    return (f"{row:09d}-{re.sub(r'[^A-Za-z0-9_-]+', '_', stem)[:80]}",
            ending.lower() if ending.lower() in VIDEO_ENDINGS else ".mp4")


def must_be_of(clips: ClipList, packed: Path) -> None:
    """Raises ValueError: the list `packed`, which that of `clips` would replace with its shards, is of other videos."""
    if packed.is_file():
        own = {"".join(_key(row, path)) for row, path in enumerate(clips.paths)}
        names = {path.rpartition("::")[2] for path in read_list(packed, need_label=False).paths}
        if not names <= own:
            raise ValueError(f"{packed} and its shards are of other videos than {clips.source}: name another --out, or "
                             "delete them")


def rows_of_shard(shard: Path) -> Iterator[tuple[str, int | None]]:
    """Index a shard of webdataset's layout; (`SHARD.tar::MEMBER`, label) of its videos. None: no label is there.

    The label is what KEY.cls holds, or "label" or "cls" in KEY.json.

    Raises:
        SourceError: it is no plain tar file.
    """
    members, labels = index_shard(shard), {}
    with open(shard, "rb") as file:
        for one in members:
            key, _, ending = _parted(one.name)
            if ending in (".cls", ".json") and one.size < 1 << 16:
                file.seek(one.offset)
                label = _label_in(file.read(one.size), ending)
                if label is not None and (ending == ".cls" or key not in labels):
                    labels[key] = label
    for one in members:
        key, _, ending = _parted(one.name)
        if ending in VIDEO_ENDINGS:
            yield f"{shard.name}::{one.name}", labels.get(key)


def _parted(name: str) -> tuple[str, str, str]:
    """webdataset's key (all before the first dot of the file's name), what follows, and the last ending."""
    folder, slash, file = name.rpartition("/")
    stem, dot, rest = file.partition(".")
    return folder + slash + stem, dot + rest, "." + file.rpartition(".")[2].lower() if dot else ""


def _label_in(content: bytes, ending: str) -> int | None:
    if ending == ".cls":
        match = _LABEL.fullmatch(content)
        return int(match[1]) if match else None
    try:
        found = json.loads(content)
    except ValueError:
        return None
    values = [found.get(name) for name in ("label", "cls")] if isinstance(found, dict) else []
    return next((value for value in values if isinstance(value, int) and not isinstance(value, bool)), None)


def get_parser() -> argparse.ArgumentParser:
    """The program's command line."""
    parser = argparse.ArgumentParser("pack", description=__doc__.splitlines()[0])
    parser.add_argument("inputs", nargs="+", metavar="LIST|SHARD.tar", help="one list to pack, or shards to index")
    parser.add_argument("--out", required=True, help="folder for the shards and the list; of shards that are there: "
                                                     "for the list alone")
    parser.add_argument("--prefix", help="what stands before the shards' names in the list, e.g. s3://bucket/shards; "
                                         "none: the folder they are in")
    parser.add_argument("--shard_mb", type=float, default=1000, help="size of a shard")
    parser.add_argument("--allow_missing", action="store_true", help="leave out videos that cannot be read")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point.

    Raises:
        OSError, ValueError: a list or a shard that cannot be read; no list is written then.
    """
    args = get_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    out, first = Path(args.out), Path(args.inputs[0])
    if args.shard_mb <= 0:
        raise ValueError(f"--shard_mb must be above 0, got {args.shard_mb:g}")
    if all(name.endswith(".tar") for name in args.inputs):
        rows = [(f"{args.prefix or os.path.abspath(Path(name).parent)}/{member}", label)
                for name in args.inputs for member, label in _rows_or_error(Path(name))]
        if not rows:
            raise ValueError(f"no videos in the shards ({' '.join(sorted(VIDEO_ENDINGS))})")
        out_list = out / "shards.csv"
    elif len(args.inputs) == 1:
        clips, out_list = read_list(first, need_label=False), out / f"{first.stem}.csv"
        if out_list.resolve() == first.resolve():
            raise ValueError(f"--out {out} holds the list that is packed: name another folder")
        must_be_of(clips, out_list)
        out.mkdir(parents=True, exist_ok=True)
        prefix = (args.prefix or os.path.abspath(out)).rstrip("/")
        rows = [(f"{prefix}/{member}", label) for member, label in
                pack(clips, out, int(args.shard_mb * 1e6), args.allow_missing)]
        if (first.parent / FILE_NAME).is_file() and first.parent.resolve() != out.resolve():
            shutil.copyfile(first.parent / FILE_NAME, out / FILE_NAME)
    else:
        raise ValueError("give one list to pack, or .tar files alone to index")
    write_whole(out_list, "".join(f"{path}\n" if label is None or label < 0 else f"{path} {label}\n"
                                  for path, label in rows))
    logger.info("%s: %d videos", out_list, len(rows))


def _rows_or_error(shard: Path) -> list[tuple[str, int | None]]:
    try:
        return list(rows_of_shard(shard))
    except SourceError as error:
        raise ValueError(f"{shard}: {error}") from None


if __name__ == "__main__":
    run_program(main)
