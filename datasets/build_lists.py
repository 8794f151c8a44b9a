"""Make train.csv, val.csv and test.csv of a dataset from its official split files, or of videos in class folders.

    python -m tats.datasets.build_lists ucf101 --root UCF101 --out lists/ucf101 --split 1
    python -m tats.datasets.build_lists ssv2 --root SSv2 --out lists/ssv2 --fraction 0.15 --seed 0
    python -m tats.datasets.build_lists folders --root DIR --out lists/own --val 0.2     # DIR/CLASS/VIDEO.mp4

Of the official data sets the test list equals the validation list, on which results are reported for all four datasets.
"""

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .catalog import published
from .files import must_not_replace, write_whole
from .lists.class_folders import VIDEO_ENDINGS, given_parts, read_class_folders
from .lists.split_files import Entry, SplitFormat
from .lists.walking import walk
from .program import run_program

logger = logging.getLogger(__name__)

Row = tuple[str, int]  # path, label


def stratified_subset(labels: Sequence[int] | np.ndarray, size: int, seed: int) -> np.ndarray:
    """Rows of a subset of `size` whose classes have the shares of the whole: ascending, (size,) int64.

    Each class gets its proportional number rounded down; the rows still missing go to the largest remainders (ties: the
    smaller label). So no class is a whole video away from proportional. The same seed gives the same rows.

    Raises:
        ValueError: size is not in [1, len(labels)].
    """
    labels = np.asarray(labels)
    if not 1 <= size <= len(labels):
        raise ValueError(f"a subset of {size} of {len(labels)} videos is not possible")
    classes, counts = np.unique(labels, return_counts=True)
    quotas, remainders = np.divmod(counts * size, len(labels))   # whole numbers: no rounding error decides
    largest = np.lexsort((classes, -remainders))[:size - quotas.sum()]
    quotas[largest] += 1
    random = np.random.default_rng(seed)
    chosen = [random.permutation(np.flatnonzero(labels == label))[:quota]
              for label, quota in zip(classes, quotas, strict=True)]
    return np.sort(np.concatenate(chosen))


def index_videos(folder: Path) -> dict[str, str]:
    """Every video below `folder` under "STEM" and "PARENT/STEM" -> absolute path; the first in order of names wins.

    Raises:
        FileNotFoundError: no video there.
    """
    index = {}
    for parent, _, files in walk(os.path.abspath(folder)):
        for name in files:
            stem, ending = os.path.splitext(name)
            if ending.lower() in VIDEO_ENDINGS:
                for key in (stem, f"{os.path.basename(parent)}/{stem}"):
                    index.setdefault(key, os.path.join(parent, name))
    if not index:
        raise FileNotFoundError(f"no videos below {folder}: set --root to the dataset's folder, or --videos")
    return index


def find_rows(entries: Sequence[Entry], index: dict[str, str]) -> tuple[list[Row], list[str]]:
    """(rows of the videos that are there, names of those that are not)."""
    rows, missing = [], []
    for entry in entries:
        path = next((index[name] for name in entry.names if name in index), None)
        if path is None:
            missing.append(entry.names[0])
        else:
            rows.append((path, entry.label))
    return rows, missing


def write_list(path: Path, rows: Sequence[Row]) -> None:
    """Write `path label` lines; the file appears whole or not at all."""
    write_whole(path, "".join(f"{video} {label}\n" for video, label in rows))


def _existing(root: Path, given: str | None, names: Sequence[str]) -> Path:
    """The folder named on the command line, else the first of `names` below the root, else the root."""
    folders = [Path(given)] if given else [root / name for name in names if (root / name).is_dir()] + [root]
    if not folders[0].is_dir():
        raise FileNotFoundError(f"no such folder: {folders[0]}")
    return folders[0]


def _present(name: str, entries: Sequence[Entry], index: dict[str, str], may_miss: bool) -> list[Row]:
    rows, missing = find_rows(entries, index)
    if missing and not (may_miss and rows):
        advice = "are --root and --videos right?" if may_miss or not rows else "--allow_missing leaves them out"
        raise ValueError(f"{len(missing)} of {len(entries)} videos of {name} are not there, the first is "
                         f"{missing[0]}: {advice}")
    if missing:
        logger.warning("%s: %d of %d videos are not there and left out, the first is %s", name, len(missing),
                       len(entries), missing[0])
    return rows


def _subset_size(fraction: str, train: int, val: int) -> int:
    if fraction == "val":
        return val
    try:
        share = float(fraction)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise ValueError(f"--fraction must lie in (0, 1] or be 'val', got {fraction!r}")
    return max(1, round(share * train))


def _check_split(dataset: str, form: SplitFormat, split: int) -> None:
    if not 1 <= split <= form.splits:
        raise ValueError(f"--split {split}: {dataset} has {form.splits} split{'s' if form.splits > 1 else ''}")


def get_parser() -> argparse.ArgumentParser:
    """The program's command line."""
    parser = argparse.ArgumentParser("build_lists", description=__doc__.splitlines()[0])
    parser.add_argument("dataset", choices=[*sorted(published()), "folders"])
    parser.add_argument("--root", required=True, help="the dataset's folder")
    parser.add_argument("--out", required=True, help="where the lists go")
    parser.add_argument("--annotations", help="folder of the split files, if not in the root's usual places")
    parser.add_argument("--videos", help="folder of the videos, if not in the root's usual places")
    parser.add_argument("--split", type=int, default=1, help="official split of UCF101 and HMDB51, 1 to 3")
    parser.add_argument("--fraction", help="keep this share of the training set, evenly over classes; 'val': as many "
                                           "videos as the validation set has (the paper says both: 15 %% and equal)")
    parser.add_argument("--seed", type=int, default=0, help="of the subset, and of what folders are divided by")
    parser.add_argument("--val", type=float, help="folders: the share of each class for val.csv, where there are no "
                                                  "folders train and val (.2 if not given)")
    parser.add_argument("--test", type=float, help="folders: likewise for test.csv; 0: the same as val.csv")
    parser.add_argument("--allow_missing", action="store_true",
                        help="leave out videos that are not there (always done for k400)")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point.

    Raises:
        FileNotFoundError, ValueError: split files or videos are missing or not as published; nothing is written then.
    """
    args = get_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    classes, lists = (_from_folders if args.dataset == "folders" else _from_split_files)(args)
    if args.fraction is not None:
        train, val = lists["train"], lists["val"]
        size = _subset_size(args.fraction, len(train), len(val))
        chosen = stratified_subset([label for _, label in train], size, args.seed)
        lists["train"] = [train[row] for row in chosen]
        logger.info("subset: %d of %d training videos (%.1f %%); the validation set has %d", size, len(train),
                    100 * size / len(train), len(val))
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in lists.items():
        write_list(out / f"{name}.csv", rows)
        logger.info("%s: %d videos of %d classes", out / f"{name}.csv", len(rows), len({label for _, label in rows}))
    write_whole(out / "classes.txt", "".join(f"{name}\n" for name in classes))


def _from_folders(args: argparse.Namespace) -> tuple[list[str], dict[str, list[Row]]]:
    """(classes, rows of each list) of class folders."""
    others = [name for name in ("annotations", "videos") if getattr(args, name)]
    if others or args.split != 1 or args.allow_missing:
        raise ValueError("folders have no split files: leave out --annotations, --videos, --split, --allow_missing")
    root = _existing(Path(args.root), args.root, ())
    if given_parts(root) and not (args.val is args.test is None):
        raise ValueError(f"{args.root} is divided into {' and '.join(given_parts(root))} as it is: leave out --val and "
                         "--test")
    classes, parts = read_class_folders(root, .2 if args.val is None else args.val, args.test or 0, args.seed)
    if parts["test"] == parts["val"]:
        logger.info("test.csv is val.csv: --test divides off a part of its own")
    return classes, parts


def _from_split_files(args: argparse.Namespace) -> tuple[list[str], dict[str, list[Row]]]:
    """(classes, rows of each list) of an official data set."""
    if args.val is not None or args.test is not None:
        raise ValueError(f"--val and --test divide class folders; {args.dataset} has official splits")
    known = published()[args.dataset]
    form = known.split_files
    _check_split(args.dataset, form, args.split)
    root = _existing(Path(args.root), args.root, ())
    folder = _existing(root, args.annotations, form.annotations)
    for name in form.like_lists:
        must_not_replace(Path(args.out) / name, [folder / name], "--out")
    splits = form.read(folder, args.split)
    if len(splits.classes) != known.classes:
        logger.warning("%d classes in the split files; %s has %d", len(splits.classes), args.dataset, known.classes)
    index = index_videos(_existing(root, args.videos, form.videos))
    may_miss = form.videos_vanish or args.allow_missing
    train = _present("train", splits.train, index, may_miss)
    val = _present("val", splits.val, index, may_miss)
    lists = {"train": train, "val": val, "test": val}
    if splits.official_test:
        lists["official_test"] = _present("official_test", splits.official_test, index, may_miss)
    return splits.classes, lists


if __name__ == "__main__":
    run_program(main)
