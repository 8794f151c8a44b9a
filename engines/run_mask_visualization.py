"""Draw what a pre-trained model sees, predicts, hides and follows: the paper's figures (2-15) for any clip.

    python -m tats.engines.run_mask_visualization --checkpoint out/checkpoint-799.pth --video clip.mp4 --out sheets
"""

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..datasets.catalog import stride_of
from ..datasets.lists.list_file import read_list
from ..datasets.program import run_program
from ..datasets.transforms.pretraining import pretrain_transform
from ..datasets.video.decode import open_video
from ..datasets.video.frame_numbers import center_indices
from ..masking import TokenGrid, find_masking
from .config.flags import FlagParser
from .core import checkpointing
from .core.logs import set_up_logging
from .figures.inference import look, probabilities_of
from .figures.rows import TRUE_PATCHES, all_patches_row, frames_row, mask_row, sheet_rows, token_at, trajectory_rows
from .figures.sheet import Row, draw_film, draw_sheet
from .machine.threads import use_threads
from .pretrain.interface import clip_size, grid_of, mask_ratio_of
from .pretrain.reconstruction import Reconstruction
from .runs.pretraining_build import rebuild
from .training.batches import ClipBatch, Normalizer

logger = logging.getLogger(__name__)


def get_parser() -> argparse.ArgumentParser:
    """The program's command line."""
    parser = FlagParser("run_mask_visualization", description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", required=True, type=Path, help="checkpoint of run_mae_pretraining")
    parser.add_argument("--compare", nargs="*", default=[], help="masks of these strategies beside it, at the same "
                        "ratio: names without a sampler (random, tube, frame), or further checkpoints")
    parser.add_argument("--video", nargs="*", default=[], help="video files")
    parser.add_argument("--data_path", help="or a list file")
    parser.add_argument("--rows", nargs="*", type=int, help="rows of the list, from 0; none: the first four")
    parser.add_argument("--mask_ratio", nargs="*", type=float, default=[], help="ratios to draw; none: the trained one")
    parser.add_argument("--sampling_rate", type=int, help="stride between frames; none: that of the training")
    parser.add_argument("--frames", type=int, default=8, help="frames of a sheet")
    parser.add_argument("--no_leak", action="store_true", help="denormalise predictions with the visible pixels' mean "
                        "and deviation, not with the true patch's")
    parser.add_argument("--trajectories", nargs="*", metavar="T,H,W", help="also draw where the sampler's trajectory "
                        "attention follows these tokens (Fig. 3); without any: the three most probable ones; "
                        "all: the mean over all tokens")
    parser.add_argument("--without", nargs="*", default=[], choices=("reconstruction", "error", "probability"),
                        help="rows of the sheet that are left out (Fig. 2 has no error)")
    parser.add_argument("--format", nargs="+", default=["png"], choices=("png", "gif", "mp4"),
                        help="a sheet, moving pictures, or several")
    parser.add_argument("--data_set", default="", help="name of the videos' data set, for the captions")
    parser.add_argument("--out", required=True, type=Path, help="folder for the files")
    return parser


def read_clip(path: str, frames: int, stride: int, size) -> Tensor:
    """The middle clip of a video, uint8 (1, 3, T, H, W)."""
    with open_video(path) as video:
        numbers = center_indices("dense", video.num_frames, frames, stride)
        return pretrain_transform("center", size)(torch.from_numpy(video.read(numbers)))[None]


def compared_mask(name: str, ratio: float, visible: int, batch: ClipBatch, mae: nn.Module) -> tuple[str, Tensor]:
    """(title, mask bool (1, N)) of another strategy: its loader half, which rounds the ratio in its own way, or the
    policy of another checkpoint, with so many visible tokens."""
    if not Path(name).is_file():
        if name.endswith(".pth") or os.sep in name:
            raise ValueError(f"--compare {name}: there is no such file")
        return f"{name} mask", find_masking(name).per_clip(grid_of(mae), ratio)()[None]
    other, sampler, mask_type = rebuild(checkpointing.load(name), source=name)
    title = f"{mask_type} mask\n{shortened(Path(name).resolve().parent.name)}"
    if grid_of(other) != grid_of(mae):
        raise ValueError(f"{name} has the token grid {grid_of(other)}, --checkpoint has {grid_of(mae)}")
    if sampler is None:
        return title, find_masking(mask_type).per_clip(grid_of(mae), ratio)()[None]
    return title, look(other, sampler, batch, Reconstruction(), visible).mask


def trained_share(mask: dict, grid: TokenGrid) -> tuple[float, int | None]:
    """The mask ratio of a checkpoint's settings, and its number of visible tokens where that was given instead."""
    return mask_ratio_of(mask, grid), mask["num_visible"] or None


def shortened(name: str, length: int = 20) -> str:
    """The end of a name that is too long for the margin of a sheet."""
    return name if len(name) <= length else "..." + name[3 - length:]


def stems_of(paths: Sequence[str]) -> list[str]:
    """File names without their endings; those that occur twice are numbered."""
    stems = [Path(path).stem for path in paths]
    return [f"{stem}-{place}" if stems.count(stem) > 1 else stem for place, stem in enumerate(stems)]


def query_tokens(places: list[str], mae: nn.Module, sampler: nn.Module | None, batch: ClipBatch) -> list[int]:
    """The tokens of --trajectories; the three most probable ones where none is named.

    Raises:
        ValueError: there is no sampler, or no such token.
    """
    if sampler is None:
        raise ValueError("--trajectories: this checkpoint has no sampler whose attention could be drawn")
    if places:
        return [token_at(place, grid_of(mae)) for place in places]
    return probabilities_of(mae, sampler, batch)[0].topk(3).indices.tolist()


def trajectory_sheet(places: list[str], mae: nn.Module, sampler: nn.Module | None, batch: ClipBatch,
                     ) -> tuple[list[Row], str]:
    """Fig. 3's rows and the second line of its caption. Raises ValueError, as `query_tokens`."""
    chosen = [place for place in places if place != "all"]
    tokens = query_tokens(chosen, mae, sampler, batch)
    rows, lines = [frames_row(batch.pixels)], []
    if "all" in places:
        rows.append(all_patches_row(mae, sampler, batch))
        lines.append("all patches: the mean of all queries")
    if chosen or not places:
        rows += trajectory_rows(mae, sampler, batch, tokens)
        lines.append("queries (t,h,w) are outlined")
    return rows, "; ".join(lines)


def attention_of(sampler: nn.Module) -> str:
    """Which of the two attentions the sampler runs, for captions."""
    return "exact" if sampler.blocks[-1].attn.approx == "none" else sampler.blocks[-1].attn.approx


def save_figure(rows: list[Row], caption: str, stem: Path, formats: Sequence[str], frames: int) -> None:
    """The rows as STEM.png, STEM.gif, STEM.mp4."""
    if "png" in formats:
        draw_sheet(rows, caption, stem.with_name(f"{stem.name}.png"), frames)
    if films := [stem.with_name(f"{stem.name}.{kind}") for kind in formats if kind != "png"]:
        draw_film(rows, caption, films)
    logger.info("%s.%s", stem, ", .".join(formats))


def video_files(args: argparse.Namespace) -> list[str]:
    """--video and the --rows of --data_path.

    Raises:
        ValueError: neither is given, or no such row.
    """
    videos = list(args.video)
    if args.data_path:
        clips = read_list(args.data_path, need_label=False)
        rows = list(range(len(clips))[:4]) if args.rows is None else args.rows
        if any(not 0 <= row < len(clips) for row in rows):
            raise ValueError(f"--rows {rows}: {args.data_path} has the rows 0 to {len(clips) - 1}")
        videos += [clips.paths[row] for row in rows]
    if not videos:
        raise ValueError("nothing to draw: give --video FILE... or --data_path LIST")
    return videos


def main(argv: Sequence[str] | None = None) -> None:
    """Write one figure a video and ratio, and one of trajectories a video."""
    args = get_parser().parse_args(argv)
    if args.frames < 1:
        raise ValueError(f"--frames must be at least 1, got {args.frames}")
    set_up_logging(True)
    state = checkpointing.load(args.checkpoint)
    mae, sampler, name = rebuild(state, source=args.checkpoint)
    use_threads({mae.encoder: grid_of(mae).num_tokens, mae.decoder: grid_of(mae).num_tokens}, clips=1)
    settings = state["settings"]
    videos = video_files(args)
    normalizer, grid = Normalizer(torch.device("cpu")), grid_of(mae)
    data = settings["data"]
    stride = args.sampling_rate or stride_of(data["data_set"], data["sampling_rate"])
    reconstruction = Reconstruction(settings["loss"]["loss"], settings["loss"]["normlize_target"])
    trained = f"{name} trained on {data['data_set']}" if data["data_set"] else name
    for path, file_stem in zip(videos, stems_of(videos), strict=True):
        clip = read_clip(path, grid.frames * mae.tubelet_size, stride, clip_size(mae))
        title = f"{args.data_set}, {Path(path).name}" if args.data_set else Path(path).name
        stem = args.out / f"{file_stem}-{name}"
        for ratio, count in [(ratio, None) for ratio in args.mask_ratio] or [trained_share(settings["mask"], grid)]:
            torch.manual_seed(0)   # a clip's masks do not depend on what else is drawn
            per_clip = find_masking(name).per_clip(grid, ratio, count)
            batch = normalizer.prepare((clip, per_clip()[None]), torch.device("cpu"))
            visible = per_clip.num_visible
            rows = sheet_rows(mae, sampler, batch, reconstruction, visible, not args.no_leak, f"{name} mask")
            rows = [row for row in rows if row.title.split("\n")[0] not in args.without]
            for other in args.compare:
                label, mask = compared_mask(other, ratio, visible, batch, mae)
                rows.append(mask_row(label, batch.pixels, mask, mae))
            caption = f"{title}: {trained}, mask ratio {ratio:g}, {visible} of {grid.num_tokens} tokens visible"
            if reconstruction.normalize:
                caption += "\n" + ("patch mean and deviation from the visible pixels" if args.no_leak else TRUE_PATCHES)
            save_figure(rows, caption, stem.with_name(f"{stem.name}-r{ratio:g}"), args.format, args.frames)
        if args.trajectories is not None:
            rows, caption = trajectory_sheet(args.trajectories, mae, sampler, batch)
            caption = f"{title}: trajectory attention of {trained} ({attention_of(sampler)}), mean of heads\n{caption}"
            save_figure(rows, caption, stem.with_name(f"{stem.name}-trajectories"), args.format, args.frames)


if __name__ == "__main__":
    run_program(main)
