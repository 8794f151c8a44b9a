"""Measure masking policies on moving shapes, where the true motion is known, before and after training.

    python -m tats.engines.measure_masks --data data/moving_shapes --checkpoint out/tats/checkpoint-59.pth ...
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..datasets.clips import ClipShape, PretrainClips
from ..datasets.files import json_text, require_writable, write_whole
from ..datasets.lists.epoch_order import EpochSampler
from ..datasets.lists.list_file import read_list
from ..datasets.moving_shapes import require_frames, truth_for
from ..datasets.program import run_program
from ..datasets.transforms.pretraining import pretrain_transform
from ..masking import RandomMasking, TokenGrid, find_masking
from .config.flags import FlagParser
from .core import checkpointing
from .core.logs import set_up_logging
from .core.records import file_hash
from .figures.inference import error_map, look
from .machine.threads import use_threads
from .motion.foresight import foresight
from .motion.metrics import MotionMetrics, motion_metrics
from .pretrain.interface import clip_size, grid_of, mask_ratio_of, patch_size_of
from .pretrain.reconstruction import Reconstruction
from .runs.pretraining_build import as_begun, rebuild
from .training.batches import ClipBatch, Normalizer

BATCH = 64   # clips
# Three lines each, so that the table fits into 120 characters.
COLUMNS = pd.MultiIndex.from_tuples([
    ("", "", "AUROC"), ("", "", "AP"), ("", "moving", "AUROC"), ("", "enrich-", "ment"), ("texture", "enrich-", "ment"),
    ("error,", "fixed", "mask"), ("of", "moving", "tokens"), ("", "fore-", "seen"), ("", "filled", "in"),
    ("fine-", "tuned", "top-1")])


class Measured(NamedTuple):
    """One line of the table. fixed_error: reconstruction error under one random mask a clip, the same for all models
    (the training error rises as a policy gets better at finding hard tokens; this one does not). moving_error: the same
    of the moving tokens alone; foreseen, filled_in: `Foresight` of them. top1: in percent, of the classifier that was
    fine-tuned from these weights."""

    motion: MotionMetrics
    fixed_error: float | None = None
    moving_error: float | None = None
    foreseen: float | None = None
    filled_in: float | None = None
    top1: float | None = None


class Clips(NamedTuple):
    """Held-out clips on the device with a fixed random mask each, and their truth as bool (clips, N); `backgrounds`
    are the same batches without what moves."""

    batches: list[ClipBatch]
    moving: Tensor
    textured: Tensor
    backgrounds: list[ClipBatch]


def held_out_clips(data: Path, split: str, grid: TokenGrid, mask_ratio: float, mae: nn.Module) -> Clips:
    """Decode a split of moving shapes, unshuffled and uncropped, with masks that depend on the clip's row alone."""
    frames = grid.frames * mae.tubelet_size
    clips = read_list(data / f"{split}.csv")
    require_frames(clips, frames)
    whole = pretrain_transform("resize", clip_size(mae))
    dataset = PretrainClips(clips, ClipShape(frames, 1), whole, RandomMasking(grid, mask_ratio))
    loader = DataLoader(dataset, BATCH, sampler=EpochSampler(len(clips), shuffle=False, drop_last=False))
    device = next(mae.parameters()).device
    normalizer = Normalizer(device)
    truth = truth_for(data, split)
    numbers, rows = range(frames), [truth.row_of(path) for path in clips.paths]
    moving, textured = (torch.stack([torch.as_tensor(kind(row, numbers, grid)) for row in rows])
                        for kind in (truth.moving, truth.static_texture))
    # Drawn at twice the size and shrunk, as the videos are by default.
    still = torch.stack([whole(truth.background(row, numbers, 2 * clip_size(mae))) for row in rows])
    batches = [normalizer.prepare(batch, device) for batch in loader]
    backgrounds = [normalizer.prepare((videos, batch.mask), device)
                   for videos, batch in zip(still.split([len(batch.mask) for batch in batches]), batches, strict=True)]
    return Clips(batches, moving, textured, backgrounds)


def measure(mae: nn.Module, sampler: nn.Module | None, clips: Clips, reconstruction: Reconstruction,
            per_clip=None) -> Measured:
    """Motion metrics of the policy and the reconstruction error on the fixed masks.

    Args:
        per_clip: for a strategy without a sampler, its loader half; the enrichment is that of its masks.
    """
    probabilities, masks, fixed, of_moving, parts = [], [], [], [], []
    truth = clips.moving.split([len(batch.mask) for batch in clips.batches])
    for batch, background, moving in zip(clips.batches, clips.backgrounds, truth, strict=True):
        seen = look(mae, None, batch, reconstruction)
        hidden = moving[batch.mask.cpu()].view(seen.errors.shape).to(seen.errors.device)
        fixed.append(seen.errors.mean(dim=1))
        of_moving.append(seen.errors[hidden])
        targets = [reconstruction.target(clip, batch.mask, patch_size_of(mae)) for clip in (batch, background)]
        parts.append([values.float()[hidden] for values in (seen.prediction, *targets)])
        if sampler is None and per_clip is not None:
            drawn = torch.stack([per_clip() for _ in range(len(batch.mask))]).to(batch.mask.device)
            batch = batch._replace(mask=drawn)
        seen = look(mae, sampler, batch, reconstruction)
        probabilities.append(seen.probabilities)
        masks.append(seen.mask)
    return Measured(motion_metrics(torch.cat(probabilities), torch.cat(masks), clips.moving, clips.textured),
                    float(torch.cat(fixed).mean()), float(torch.cat(of_moving).mean()),
                    *foresight(*map(torch.cat, zip(*parts, strict=True))))


def measure_error_map(mae: nn.Module, clips: Clips, reconstruction: Reconstruction, masking: RandomMasking,
                      draws: int) -> MotionMetrics:
    """Motion metrics of the map that a policy is rewarded with, as if it were one; of the tokens of largest error."""
    errors = torch.cat([error_map(mae, batch, masking, reconstruction, draws).cpu() for batch in clips.batches])
    hardest = errors.topk(masking.num_visible, dim=1).indices
    return motion_metrics(errors, torch.ones_like(clips.moving).scatter_(1, hardest, False), clips.moving,
                          clips.textured)


def table(rows: list[tuple[str, Measured]]) -> str:
    """The table, aligned; the last column only where something was fine-tuned."""
    frame = pd.DataFrame([(*measured.motion, *measured[1:]) for _, measured in rows], [name for name, _ in rows],
                         COLUMNS, dtype=float).dropna(axis="columns", how="all")
    return frame.to_string(na_rep="", sparsify=False, col_space=6, float_format="{:.3f}".format,
                           formatters={COLUMNS[-1]: "{:.1f}".format})


def read_top1(path: Path, checkpoint: Path) -> float:
    """top1 of the result.json of a fine-tuning that began with `checkpoint`.

    Raises:
        ValueError: the file is none, or says that it began with another.
    """
    try:
        result = json.loads(path.read_text())
        top1, source = float(result["top1"]), result.get("source")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} is not the result.json of a fine-tuning: it has no top1") from None
    if source and source.get("sha256") not in (None, file_hash(checkpoint)):
        raise ValueError(f"{path} is of a fine-tuning that began with {source.get('path')}, and not with {checkpoint}")
    return top1


def get_parser() -> argparse.ArgumentParser:
    """The program's command line."""
    parser = FlagParser("measure_masks", description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", nargs="+", required=True, help="checkpoints of run_mae_pretraining; the "
                        "random masks of the error, and of --error_map, have the first one's mask ratio")
    parser.add_argument("--data", required=True, type=Path, help="folder written by tats.datasets.moving_shapes")
    parser.add_argument("--split", default="val", help="list to measure on")
    parser.add_argument("--fine_tuned", nargs="*", type=Path, default=[], help="result.json of a fine-tuning from each "
                        "checkpoint, in the same order: adds its top-1")
    parser.add_argument("--error_map", type=int, metavar="DRAWS", default=0, help="also measure the mean error of each "
                        "token over so many random masks, what a policy is rewarded with, as if it were a policy that "
                        "shows the tokens of largest error")
    parser.add_argument("--out", type=Path, help="write the numbers there as JSON, too")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table: each checkpoint before and after training."""
    args = get_parser().parse_args(argv)
    set_up_logging(True)
    torch.manual_seed(0)
    if args.fine_tuned and len(args.fine_tuned) != len(args.checkpoint):
        raise ValueError(f"--fine_tuned: {len(args.fine_tuned)} results for {len(args.checkpoint)} checkpoints")
    if args.error_map < 0:
        raise ValueError(f"--error_map must not be negative, got {args.error_map}")
    if args.out:
        require_writable(args.out, "--out", [*args.checkpoint, *args.fine_tuned])
    top1 = list(map(read_top1, args.fine_tuned, args.checkpoint)) or [None] * len(args.checkpoint)
    names = checkpointing.run_names(args.checkpoint) if len(args.checkpoint) > 1 else [""]
    rows: list[tuple[str, Measured]] = []
    clips, first = None, None
    for path, run, accuracy in zip(args.checkpoint, names, top1, strict=True):
        state = checkpointing.load(path)
        mae, sampler, name = rebuild(state, source=path)
        mask, loss = state["settings"]["mask"], state["settings"]["loss"]
        ratio = mask_ratio_of(mask, grid_of(mae))
        shape, aim = (grid_of(mae), clip_size(mae)), (loss["loss"], loss["normlize_target"])
        if clips is None:
            use_threads({mae.encoder: grid_of(mae).num_tokens, mae.decoder: grid_of(mae).num_tokens}, BATCH)
            clips, first = held_out_clips(args.data, args.split, grid_of(mae), ratio, mae), (shape, aim)
            fixed_masking = RandomMasking(grid_of(mae), ratio)
        if shape != first[0]:
            raise ValueError(f"{path} sees clips of another size or grid of tokens than {args.checkpoint[0]}: measure "
                             "them apart")
        if aim != first[1]:   # errors of other targets do not belong into one column
            raise ValueError(f"{path} has another --loss or --normlize_target than {args.checkpoint[0]}: measure them "
                             "apart")
        reconstruction = Reconstruction(loss["loss"], loss["normlize_target"])
        per_clip = find_masking(mask["mask_type"]).per_clip(grid_of(mae), mask["mask_ratio"], mask["num_visible"])
        name = f"{run}: {name}" if run else name
        if begun := as_begun(state, path):
            rows.append((f"{name}, before", measure(*begun, clips, reconstruction, per_clip)))
        after = measure(mae, sampler, clips, reconstruction, per_clip)._replace(top1=accuracy)
        rows.append((f"{name}, after {state['step']} steps", after))
        if args.error_map:
            rows.append((f"{name}, its error map", Measured(measure_error_map(
                mae, clips, reconstruction, fixed_masking, args.error_map))))
    sys.stdout.write(table(rows) + "\n")
    if args.out:
        record = [{"name": name, **measured.motion._asdict(),
                   **{key: value for key, value in measured._asdict().items() if key != "motion"}}
                  for name, measured in rows]
        write_whole(args.out, json_text(record, indent=1) + "\n")


if __name__ == "__main__":
    run_program(main)
