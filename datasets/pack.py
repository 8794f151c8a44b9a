"""Put the videos of a list into tar shards, from which training reads them in place, here or from an object store.

    python -m tats.datasets.pack lists/train.csv --out shards/ [--prefix s3://bucket/shards]
    python -m tats.datasets.pack theirs/*.tar --out lists/ [--prefix ...]     shards that are there: index and list

The layout is webdataset's: the files KEY.mp4, KEY.cls (the label) and KEY.json (the path it came from) are one sample.
Beside each shard lies SHARD.tar.index, which says where each member is. The list in --out has the rows of the one that
was packed, in its order, as `SHARD.tar::KEY.mp4 label`: runs over both are the same.
"""

import argparse
import io
import json
import logging
import os
import re
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from .build_lists import VIDEO_ENDINGS
from .files import write_whole, written_whole
from .lists.class_names import FILE_NAME
from .lists.list_file import ClipList, read_list
from .program import run_program
from .sources.addresses import is_elsewhere
from .sources.opening import SourceError, open_source
from .sources.tar_index import ENDING, Member, members_of, write_index

logger = logging.getLogger(__name__)

_LABEL = re.compile(rb"\s*(\d{1,18})\s*")


class ShardWriter:
    """Tar files NAME-000000.tar, ... of about `limit` bytes, each with its index. A file takes its name when done.

    Args:
        folder: where they go. name: what they begin with.
    """

    def __init__(self, folder: Path, name: str, limit: int):
        self.folder, self.name, self.limit, self.number = folder, name, limit, 0
        self._archive: tarfile.TarFile | None = None

    def add(self, files: Sequence[tuple[str, bytes]], path: str, ending: str, key: str) -> str:
        """Put a video and its small files (ending, content) into a shard; the shard's name.

        Raises:
            SourceError, OSError: the video cannot be read.
        """
        with _opened(path) as video:
            size = video.seek(0, os.SEEK_END)
            if size == 0:
                raise SourceError("the file is empty")
            video.seek(0)
            if self._archive is not None and self._archive.offset + size > self.limit:
                self.close()
            if self._archive is None:
                self._archive = tarfile.open(self._unfinished, "w", format=tarfile.PAX_FORMAT)
            self._archive.addfile(_entry(key + ending, size), video)
        for other, content in files:
            self._archive.addfile(_entry(key + other, len(content)), io.BytesIO(content))
        return self._path.name

    @property
    def _path(self) -> Path:
        return self.folder / f"{self.name}-{self.number:06d}.tar"

    @property
    def _unfinished(self) -> Path:
        return self._path.with_name(f"{self._path.name}.{os.getpid()}.writing")

    def close(self) -> None:
        """Finish the shard that is being written, and its index."""
        if self._archive is None:
            return
        self._archive.close()
        self._archive = None
        index_shard(self._unfinished, self._path)
        os.replace(self._unfinished, self._path)
        self.number += 1

    def drop(self) -> None:
        """Give up the shard that is being written."""
        if self._archive is not None:
            self._archive.close()
            self._unfinished.unlink(missing_ok=True)


def other_shards(folder: Path, name: str, written: int) -> list[str]:
    """Shards NAME-000000.tar, ... of an earlier and larger pack, which one that `written` shards has not replaced."""
    numbered = re.compile(rf"{re.escape(name)}-(\d{{6}})\.tar")
    return sorted(found[0] for entry in os.listdir(folder)
                  if (found := numbered.fullmatch(entry)) and int(found[1]) >= written)


def _entry(name: str, size: int) -> tarfile.TarInfo:
    """The same bytes for the same content, whoever packs and whenever."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    return entry


def _opened(path: str):
    return open_source(path) if is_elsewhere(path) else open(path, "rb")


def index_shard(shard: Path, named: Path | None = None) -> list[Member]:
    """Write the index of a shard (that will be called `named`) and return what is in it.

    Raises:
        SourceError: it is no plain tar file.
    """
    named = named or shard
    with open(shard, "rb") as file:
        members = members_of(file)
        index = write_index(members, file.seek(0, os.SEEK_END))
    with written_whole(named.with_name(named.name + ENDING), "wb") as file:
        file.write(index)
    return members


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
            label, (stem, ending) = int(clips.labels[row]), os.path.splitext(os.path.basename(path))
            # webdataset takes what stands before the first dot for the key.
            key = f"{row:09d}-{re.sub(r'[^A-Za-z0-9_-]+', '_', stem)[:80]}"
            ending = ending.lower() if ending.lower() in VIDEO_ENDINGS else ".mp4"
            files = [(".cls", b"%d" % label)] if label >= 0 else []
            files.append((".json", json.dumps({"path": path, "line": int(clips.lines[row])}).encode()))
            try:
                rows.append((f"{writer.add(files, path, ending, key)}::{key}{ending}", label))
            except OSError as error:
                cause = "a folder of pictures: make a video of it first" if os.path.isdir(path) else \
                    error.strerror or str(error)
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
