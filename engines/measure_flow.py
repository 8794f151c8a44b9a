"""Measure masking policies on real videos: does pi rank the tokens as optical flow does?

    python -m tats.engines.measure_flow --checkpoint out/tats/checkpoint-799.pth ... --list videos.csv --out flow.csv
"""

import argparse
import logging
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import torch
from torch import Tensor

from ..datasets.catalog import stride_of
from ..datasets.files import require_writable
from ..datasets.labelled import Sampling, TestViews, Views
from ..datasets.lists.list_file import read_list
from ..datasets.program import run_program
from ..masking import RandomMasking, TokenGrid
from .config.flags import FlagParser
from .core import checkpointing
from .core.logs import set_up_logging
from .core.records import write_csv
from .figures.inference import error_map, probabilities_of
from .motion.optical_flow import TokenMotion, opencv, token_motion
from .motion.rank_correlation import partial_rank_correlation, rank_correlation
from .pretrain.interface import clip_size, grid_of, mask_ratio_of
from .pretrain.nearness import COMPARED_REACH, Around
from .pretrain.reconstruction import Reconstruction
from .runs.pretraining_build import as_begun, rebuild
from .training.batches import Normalizer

logger = logging.getLogger(__name__)

COLUMNS = {"flow": "flow", "own_flow": "own flow", "difference": "difference", "texture": "texture",
           "flow_given_texture": "flow | texture", "own_flow_given_texture": "own flow | texture"}
LEFT_OUT = ("(-n): n videos are left out of that mean, no rank correlation is defined there: nothing moves in them, "
            "they have no texture, or the map is the same everywhere.")


class Video(NamedTuple):
    """Windows of a video: uint8 (V, 3, T, S, S), and how their tokens move."""

    name: str
    clips: Tensor
    motion: TokenMotion


class Geometry(NamedTuple):
    """What a model sees of a video; models that share it share the measured flow. With fps, `stride` counts frames that
    are shown at this rate."""

    grid: TokenGrid
    frames: int
    stride: int
    size: int
    fps: float | None


def read_videos(path: Path, geometry: Geometry, windows: int, flow_size: int) -> list[Video]:
    """The middle square of `windows` clips of each video, spread from its start to its end. Unreadable ones are named.

    Raises:
        ValueError: none can be read.
    """
    grid, frames, stride, size, fps = geometry
    rows = read_list(path, need_label=False)
    side = size * max(1, round(flow_size / size))   # whole pixels of the one in a pixel of the other
    views = TestViews(rows, Sampling("dense", frames, stride), Views(windows, 1, side), fps=fps)
    videos, names = [], video_names(list(rows.paths))
    first = {(path, rows.span(row)): row for row, path in reversed(list(enumerate(rows.paths)))}
    if len(first) < len(rows):
        logger.warning("%d lines of %s name a video again: it is measured once", len(rows) - len(first), path)
    for sample in (views[row] for row in sorted(first.values())):
        if sample.fault:
            logger.warning("not measured: %s", sample.fault)
            continue
        videos.append(Video(names[sample.row], *token_motion(sample.videos, grid, size)))
    if not videos:
        raise ValueError(f"no video of {path} can be read")
    return videos


def video_names(paths: Sequence[str]) -> list[str]:
    """What the videos are called in the CSV: their files' names without the ending, where these differ; else their
    paths."""
    stems = [Path(path).stem for path in paths]
    return stems if len(set(stems)) == len(set(paths)) else list(paths)


def correlate(scores: Tensor, motion: TokenMotion) -> dict[str, float]:
    """Rank correlations of a map (V, N) with each kind of motion and with texture, means over a video's windows.

    NaN where no window has one: nothing moves, there is no texture, or the map is the same everywhere.
    """
    found = {kind: rank_correlation(scores, truth) for kind, truth in motion._asdict().items()}
    for kind in ("flow", "own_flow"):
        found[f"{kind}_given_texture"] = partial_rank_correlation(scores, getattr(motion, kind), motion.texture)
    return {kind: round(float(values.nanmean()), 4) for kind, values in found.items()}


def records_of(name: str, videos: Sequence[Video], scores: Sequence[Tensor]) -> list[dict]:
    """A record a video: the map's name, the video's, and the correlations. Empty for a map that is the same everywhere.
    """
    if all((score == score[:, :1]).all() for score in scores):
        return []
    return [{"map": name, "video": video.name, **correlate(score, video.motion)}
            for video, score in zip(videos, scores, strict=True)]


def measure(state: dict, name: str, videos: Sequence[Video], draws: int) -> Iterator[tuple[str, list[dict]]]:
    """(name, records) of a checkpoint's policy before and after training, and of its model's error map, as it is and
    averaged over the tokens around each."""
    mae, sampler, mask_type = rebuild(state)
    loss, mask_ratio = state["settings"]["loss"], mask_ratio_of(state["settings"]["mask"], grid_of(mae))
    reconstruction = Reconstruction(loss["loss"], loss["normlize_target"])
    masking = RandomMasking(grid_of(mae), mask_ratio)
    normalizer = Normalizer(torch.device("cpu"))
    hidden = torch.ones(1, grid_of(mae).num_tokens, dtype=torch.bool)
    batches = [normalizer.prepare((video.clips, hidden.expand(len(video.clips), -1)), torch.device("cpu"))
               for video in videos]
    after = f"{name}: {mask_type}, {state['step']} steps"
    if sampler is None:
        yield after, []
    else:
        begun = as_begun(state, name)
        for label, networks in ([(f"{name}: {mask_type}, before", begun)] if begun else []) + [(after, (mae, sampler))]:
            policy = [probabilities_of(*networks, batch) for batch in batches]
            yield label, records_of(label, videos, policy)
        # What the policy has learned of places alone: people film what moves in the middle.
        everywhere = torch.cat(policy).mean(dim=0)
        label = f"{after}, mean pi of all clips"
        yield label, records_of(label, videos, [everywhere.expand_as(pi) for pi in policy])
    errors = [error_map(mae, batch, masking, reconstruction, draws) for batch in batches]
    averaged = [Around(grid_of(mae), COMPARED_REACH).of_all(found) for found in errors]
    for label, maps in ((f"{after}, error map", errors), (f"{after}, error map averaged around", averaged)):
        yield label, records_of(label, videos, maps)


def table(rows: Sequence[tuple[str, list[dict]]]) -> Iterator[str]:
    """The lines of the table, aligned: mean ± standard error over the videos that have the correlation; how many have
    none stands behind it in brackets."""
    width = max(len(name) for name, _ in rows)
    yield " " * width + "".join(f"{column:>20}" for column in COLUMNS.values())
    for name, records in rows:
        cells = ([record[column] for record in records] for column in COLUMNS)
        yield f"{name:<{width}}" + ("".join(map("{:>20}".format, map(mean_and_error, cells))) if records
                                    else "  uniform: it ranks nothing")


def mean_and_error(values: Sequence[float]) -> str:
    """mean ± standard error of the mean; without the error for a single value. (-n): n are NaN. –: all are."""
    defined = [value for value in values if not math.isnan(value)]
    left_out = f" (-{len(values) - len(defined)})" if len(defined) < len(values) else ""
    if not defined:
        return "–"
    error = f" ± {stdev(defined) / math.sqrt(len(defined)):.3f}" if len(defined) > 1 else ""
    return f"{mean(defined):.3f}{error}{left_out}"


def get_parser() -> argparse.ArgumentParser:
    """The program's command line."""
    parser = FlagParser("measure_flow", description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", nargs="+", required=True, type=Path, help="of run_mae_pretraining")
    parser.add_argument("--list", required=True, type=Path, help="list file: a video a line")
    parser.add_argument("--windows", type=int, default=4, help="clips of each video")
    parser.add_argument("--sampling_rate", type=int, help="stride between frames; none: that of the training")
    parser.add_argument("--fps", type=float, help="frames a second at which the videos are seen, whatever their own "
                        "rate, such as that of the prepared videos of the training; none: every frame counts")
    parser.add_argument("--flow_size", type=int, default=224, help="side of the frames in which flow is measured, "
                        "rounded to a multiple of the model's")
    parser.add_argument("--draws", type=int, default=16, help="random masks of the error map")
    parser.add_argument("--out", type=Path, help="write the numbers of each video there, as CSV")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table: each checkpoint's policy before and after training and its error map, and two plain rankings."""
    args = get_parser().parse_args(argv)
    for name in ("windows", "flow_size", "draws", "sampling_rate"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(args, name)}")
    if args.fps is not None and not 0 < args.fps < 1000:
        raise ValueError(f"--fps must lie between 0 and 1000, got {args.fps:g}")
    set_up_logging(True)
    if args.out:
        require_writable(args.out, "--out", [args.list, *args.checkpoint])
    opencv()   # before anything is decoded
    rows: list[tuple[str, list[dict]]] = []
    read: dict[Geometry, list[Video]] = {}
    paths = list(dict.fromkeys(args.checkpoint))   # one that is named twice has one line
    for path, name in zip(paths, checkpointing.run_names(paths), strict=True):
        state = checkpointing.load(path)
        mae, _, _ = rebuild(state, source=path)
        grid, data = grid_of(mae), state["settings"]["data"]
        geometry = Geometry(grid, grid.frames * mae.tubelet_size,
                            args.sampling_rate or stride_of(data["data_set"], data["sampling_rate"]), clip_size(mae),
                            args.fps)
        if geometry not in read:
            videos = read[geometry] = read_videos(args.list, geometry, args.windows, args.flow_size)
            what = f"{geometry.frames} x {geometry.size} x {geometry.size} at stride {geometry.stride}" + (
                f", {geometry.fps:g} frames a second" if geometry.fps else "")
            for kind in ("difference", "texture"):
                alone = f"{kind} alone ({what})"
                rows.append((alone, records_of(alone, videos, [getattr(video.motion, kind) for video in videos])))
        rows += measure(state, name, read[geometry], args.draws)
    lines = list(table(rows))
    sys.stdout.write("\n".join([*lines, *[LEFT_OUT] * any("(-" in line for line in lines)]) + "\n")
    if args.out:
        write_csv(args.out, [record for _, records in rows for record in records])


if __name__ == "__main__":
    run_program(main)
