"""A few clips that stay the same for a whole run: the honest error curve, how far the policy moves, and pictures."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ...datasets.clips import ClipShape, PretrainClips, PretrainSample
from ...datasets.lists.list_file import read_list
from ...datasets.lists.seeding import clip_key, mix, seeded
from ...datasets.transforms.pretraining import pretrain_transform
from ...datasets.video.decode import VideoError
from ...masking import RandomMasking
from ..config.pretraining import Settings
from ..pretrain.interface import clip_size, grid_of
from ..pretrain.reconstruction import Reconstruction
from ..training.batches import ClipBatch, Normalizer
from .inference import look, probabilities_of
from .rows import TRUE_PATCHES, sheet_rows
from .sheet import Row, draw_sheet
from .text import shortened

logger = logging.getLogger(__name__)


def read_fixed_clips(settings: Settings, mae: nn.Module, stride: int) -> tuple[PretrainSample | None, list[str]]:
    """(videos uint8 (C, 3, T, H, W), random masks bool (C, N), keys) of the first readable rows of --vis_path, or of
    the training list, and their paths. The same in every epoch, run and process; the masks have the run's ratio,
    whatever its strategy.

    None with --vis_clips 0, or where none of the training list's first rows can be read, which a warning says.

    Raises:
        ValueError: none of the first rows of --vis_path can be read.
    """
    mask, wanted = settings.mask, settings.watch.vis_clips
    if wanted == 0:
        return None, []
    clips = read_list(settings.watch.vis_path or settings.data.data_path, need_label=False)
    dataset = PretrainClips(clips, ClipShape(settings.model.num_frames, stride),
                            pretrain_transform("center", clip_size(mae)),
                            RandomMasking(grid_of(mae), mask.mask_ratio, mask.num_visible), settings.data.decoding)
    read, names = [], []
    for row in range(min(2 * wanted, len(clips))):
        try:
            read.append(dataset[row, clip_key(0, 0, row)])
            names.append(clips.paths[row])
        except VideoError as error:
            logger.warning("not among the fixed clips: %s", error)
        if len(read) == wanted:
            break
    if not read:
        fault = f"none of the first {min(2 * wanted, len(clips))} videos of {clips.source} can be read"
        if settings.watch.vis_path:
            raise ValueError(f"{fault}: give another --vis_path, or --vis_clips 0")
        logger.warning("%s: there are no fixed clips, so log.txt has no train_fixed_error", fault)
        return None, []
    videos, masks, keys = zip(*read, strict=True)
    return PretrainSample(torch.stack(videos), torch.stack(masks), torch.tensor(keys)), names


class FixedClips:
    """Looks at the same clips after every epoch. Every process does, with the same result.

    Args:
        clips, names: from `read_fixed_clips`; the clips are kept on the CPU as uint8.

    Attributes:
        before: the policy's probabilities (C, N) of the last `measure`, None before the first.
    """

    def __init__(self, clips: PretrainSample, normalizer: Normalizer, reconstruction: Reconstruction,
                 names: Sequence[str]):
        self._clips, self._names = clips, names
        self._normalizer, self._reconstruction = normalizer, reconstruction
        self.before: Tensor | None = None

    def batches(self, size: int = 4) -> list[ClipBatch]:
        """The clips on the device."""
        device = self._normalizer.mean.device
        return [self._normalizer.prepare(PretrainSample(*part), device) for part in
                zip(*(values.split(size) for values in self._clips), strict=True)]

    def measure(self, mae: nn.Module, sampler: nn.Module | None) -> dict[str, float]:
        """fixed_error: L_R under the fixed masks, which no policy changes: runs can be compared by it, not by their
        training error. policy_moved: the share of pi's probability that moved since the last call."""
        _evaluating(mae, sampler)
        batches = self.batches()
        errors = [look(mae, None, batch, self._reconstruction).errors.mean(dim=1) for batch in batches]
        numbers = {"fixed_error": float(torch.cat(errors).mean())}
        if sampler is not None:
            policy = torch.cat([probabilities_of(mae, sampler, batch) for batch in batches])
            if self.before is not None:
                numbers["policy_moved"] = float((policy - self.before).abs().sum(dim=1).mean() / 2)
            self.before = policy
        return numbers

    def draw(self, mae: nn.Module, sampler: nn.Module | None, per_clip, folder: Path, epoch: int) -> list[Path]:
        """A sheet of each of the first four clips, with masks of the strategy: the policy's, or where there is none one
        that `per_clip`, its loader half, draws for the clip, the same in every epoch."""
        _evaluating(mae, sampler)
        visible, written = per_clip.num_visible, []
        for place, batch in enumerate(self.batches(1)[:4]):
            if sampler is None:
                with seeded(mix(int(batch.keys[0]), 8)):
                    batch = batch._replace(mask=per_clip()[None].to(batch.mask.device))
            rows = sheet_rows(mae, sampler, batch, self._reconstruction, visible, True)
            written.append(folder / f"epoch-{epoch:04d}-clip{place}.png")
            caption = (f"{shortened(self._names[place], 60)}, epoch {epoch}: {visible} of {batch.mask.shape[1]} tokens "
                       "visible")
            if self._reconstruction.normalize:
                caption += "\n" + TRUE_PATCHES
            draw_sheet(rows, caption, written[-1])
        return written


def _evaluating(mae: nn.Module, sampler: nn.Module | None) -> None:
    """No dropout; whoever trains next switches back."""
    mae.eval()
    if sampler is not None:
        sampler.eval()


def draw_coverage(coverage: Tensor, folder: Path, epoch: int) -> Path:
    """The heat map of `Diagnostics.read`: by time slice, and by place in the mean of all slices."""
    path = folder / f"epoch-{epoch:04d}-coverage.png"
    maps = torch.cat([coverage, coverage.mean(dim=0, keepdim=True)]).float().numpy()
    row = Row("coverage\n(1 = uniform)", maps, limits=(0.0, max(2.0, float(coverage.max()))), bar=True)
    columns = [*(f"slice {slice_}" for slice_ in range(len(coverage))), "mean"]
    draw_sheet([row], f"how often a token was visible in epoch {epoch}", path, frames=9, columns=columns)
    return path
