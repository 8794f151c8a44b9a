"""Draw what a pre-trained model sees, predicts and hides: the paper's sheets (Figs. 2, 4-15) for any clip.

    python -m tats.engines.run_mask_visualization --checkpoint out/checkpoint-799.pth --video clip.mp4 --out sheets
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..datasets.decode import open_video
from ..datasets.lists import read_list
from ..datasets.program import run_program
from ..datasets.sampling import center_indices
from ..datasets.transforms import pretrain_transform
from ..masking import find_masking, num_visible
from . import checkpointing
from .batches import ClipBatch, Normalizer
from .flags import FlagParser
from .logs import set_up_logging
from .pictures import error_map, reconstructed_frames, token_map
from .policies import look
from .pretraining import clip_size, grid_of, rebuild
from .reconstruction import Reconstruction, patch_size_of
from .sheet import Row, draw_sheet

logger = logging.getLogger(__name__)


def get_parser() -> argparse.ArgumentParser:
    """The program's command line."""
    parser = FlagParser("run_mask_visualization", description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", required=True, type=Path, help="checkpoint of run_mae_pretraining")
    parser.add_argument("--compare", nargs="*", default=[], help="masks of these strategies beside it, at the same "
                        "ratio: names without a sampler (random, tube, frame), or further checkpoints")
    parser.add_argument("--video", nargs="*", default=[], help="video files")
    parser.add_argument("--data_path", help="or a list file")
    parser.add_argument("--rows", nargs="*", type=int, default=[0, 1, 2, 3], help="rows of the list, from 0")
    parser.add_argument("--mask_ratio", nargs="*", type=float, default=[], help="ratios to draw; none: the trained one")
    parser.add_argument("--sampling_rate", type=int, help="stride between frames; none: that of the training")
    parser.add_argument("--frames", type=int, default=8, help="frames of a sheet")
    parser.add_argument("--no_leak", action="store_true", help="denormalise predictions with the visible pixels' mean "
                        "and deviation, not with the true patch's")
    parser.add_argument("--out", required=True, type=Path, help="folder for the PNG files")
    return parser


def read_clip(path: str, frames: int, stride: int, size) -> Tensor:
    """The middle clip of a video, uint8 (1, 3, T, H, W)."""
    with open_video(path) as video:
        numbers = center_indices("dense", video.num_frames, frames, stride)
        return pretrain_transform("center", size)(torch.from_numpy(video.read(numbers)))[None]


def sheet_rows(mae: nn.Module, sampler: nn.Module | None, batch: ClipBatch, normalized: bool, visible: int,
               leak: bool) -> list[Row]:
    """The rows of the paper's sheet for one clip; the sampling probability is drawn as a multiple of uniform."""
    patch, grid = patch_size_of(mae), grid_of(mae)
    seen = look(mae, sampler, batch, Reconstruction(normalize=normalized), visible)
    frames = _images(batch.pixels)
    shown = _images(reconstructed_frames(batch.pixels, seen.mask, seen.prediction, patch, normalized, leak))
    errors = token_map(error_map(seen.errors, seen.mask), grid, patch)[0].numpy()
    rows = [Row("frames", frames), Row("reconstruction", shown),
            Row("error", errors, "magma", (0.0, float(np.quantile(errors, 0.99))), bar=True)]
    if sampler is not None:
        share = token_map(seen.probabilities * grid.num_tokens, grid, patch)[0].numpy()
        rows.append(Row("probability\n(1 = uniform)", share, "viridis", (0.0, float(share.max())), bar=True))
    return [*rows, mask_row("mask", batch.pixels, seen.mask, mae)]


def mask_row(title: str, pixels: Tensor, mask: Tensor, mae: nn.Module) -> Row:
    """The visible tokens as they are, the masked ones dark."""
    patch = patch_size_of(mae)
    hidden = token_map(mask.float(), grid_of(mae), patch)
    hidden = hidden.repeat_interleave(patch.patch_size, 2).repeat_interleave(patch.patch_size, 3)
    return Row(title, _images(pixels * (1 - hidden[:, None]) + 0.12 * hidden[:, None]))


def _images(pixels: Tensor) -> np.ndarray:
    return pixels[0].permute(1, 2, 3, 0).clamp(0, 1).cpu().numpy()


def compared_mask(name: str, ratio: float, batch: ClipBatch, mae: nn.Module) -> tuple[str, Tensor]:
    """(title, mask bool (1, N)) of another strategy: its loader half, or the policy of another checkpoint."""
    if not Path(name).is_file():
        return name, find_masking(name).per_clip(grid_of(mae), ratio)()[None]
    other, sampler, title = rebuild(checkpointing.load(name))
    if grid_of(other) != grid_of(mae):
        raise ValueError(f"{name} has the token grid {grid_of(other)}, --checkpoint has {grid_of(mae)}")
    if sampler is None:
        return title, find_masking(title).per_clip(grid_of(mae), ratio)()[None]
    return title, look(other, sampler, batch, Reconstruction(), num_visible(grid_of(mae), ratio)).mask


def main(argv: Sequence[str] | None = None) -> None:
    """Write one PNG a video and ratio."""
    args = get_parser().parse_args(argv)
    set_up_logging(True)
    torch.manual_seed(0)
    state = checkpointing.load(args.checkpoint)
    mae, sampler, name = rebuild(state)
    settings = state["settings"]
    videos = list(args.video)
    if args.data_path:
        clips = read_list(args.data_path, need_label=False)
        if any(not 0 <= row < len(clips) for row in args.rows):
            raise ValueError(f"--rows {args.rows}: {args.data_path} has the rows 0 to {len(clips) - 1}")
        videos += [clips.paths[row] for row in args.rows]
    if not videos:
        raise ValueError("nothing to draw: give --video FILE... or --data_path LIST")
    normalizer, grid = Normalizer(torch.device("cpu")), grid_of(mae)
    stride = args.sampling_rate or settings["data"]["sampling_rate"] or 4
    normalized = settings["loss"]["normlize_target"]
    for path in videos:
        clip = read_clip(path, grid.frames * mae.tubelet_size, stride, clip_size(mae))
        for ratio in args.mask_ratio or [settings["mask"]["mask_ratio"]]:
            per_clip = find_masking(name).per_clip(grid, ratio)
            batch = normalizer.prepare((clip, per_clip()[None]), torch.device("cpu"))
            visible = per_clip.num_visible
            rows = sheet_rows(mae, sampler, batch, normalized, visible, not args.no_leak)
            for other in args.compare:
                title, mask = compared_mask(other, ratio, batch, mae)
                rows.append(mask_row(title, batch.pixels, mask, mae))
            caption = f"{Path(path).name}: {name}, mask ratio {ratio:g}, {visible} of {grid.num_tokens} tokens visible"
            if normalized:
                caption += ("\npatch mean and deviation from the visible pixels" if args.no_leak else
                            "\npatch mean and deviation of the reconstruction are the true ones")
            target = args.out / f"{Path(path).stem}-{name}-r{ratio:g}.png"
            draw_sheet(rows, caption, target, args.frames)
            logger.info("%s", target)


if __name__ == "__main__":
    run_program(main)
