"""From a loader's batch to what the networks take, on the device."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor


class ClipBatch(NamedTuple):
    """A batch on the device.

    videos: (B, 3, T, H, W) float32, normalised with ImageNet's mean and std. pixels: the same in [0, 1], for targets.
    mask: bool (B, N), True = masked, made in the loader. keys: int64 (B,), names each clip's random draws, or None.
    """

    videos: Tensor
    pixels: Tensor
    mask: Tensor
    keys: Tensor | None


def grouped(loader: Iterable, update_freq: int) -> Iterator[tuple[int, bool, Sequence[Tensor]]]:
    """(step, more, batch): the optimiser step from 1, and whether more micro-batches of it follow.

    What is left over at the end of the loader and does not fill a step is not trained on.
    """
    full = len(loader) // update_freq * update_freq
    for index, batch in enumerate(loader):
        if index < full:
            step, place = divmod(index, update_freq)
            yield step + 1, place + 1 < update_freq, batch


class OnDevice:
    """A loader whose batches are on the device. To a GPU they are copied on a stream of their own: the host is ahead of
    the GPU, which is still at the step before, so that copy and step run at the same time.

    Nothing is read ahead: what the loop has asked for is what it has taken. On the CPU batches pass as they are.

    Args:
        loader: yields sequences of tensors, in pinned memory.
    """

    def __init__(self, loader: Iterable, device: torch.device):
        self.loader, self.device = loader, device

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Sequence[Tensor]]:
        if self.device.type != "cuda":
            yield from self.loader
            return
        stream = torch.cuda.Stream(self.device)
        for batch in self.loader:
            with torch.cuda.stream(stream):
                moved = [one.to(self.device, non_blocking=True) for one in batch]
            if hasattr(batch, "_fields"):
                moved = type(batch)(*moved)   # keeps the names: a batch's keys are known by theirs
            current = torch.cuda.current_stream(self.device)
            current.wait_stream(stream)
            for one in moved:
                one.record_stream(current)   # else its memory could be given away while the step still reads it
            yield moved


class Normalizer:
    """A data set's mean and std on one device, made once and not in every step; ImageNet's, unless others are given.

    Args:
        mean, std: a number a channel, of pixels in [0, 1].
    """

    def __init__(self, device: torch.device, mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
                 std: Sequence[float] = IMAGENET_DEFAULT_STD):
        self.mean = torch.tensor(mean, device=device).view(1, -1, 1, 1, 1)
        self.std = torch.tensor(std, device=device).view(1, -1, 1, 1, 1)

    def normalize(self, pixels: Tensor) -> Tensor:
        """Pixels in [0, 1] (B, 3, T, H, W) -> what VideoMAE's networks see."""
        return (pixels - self.mean) / self.std

    def clips(self, videos: Tensor) -> Tensor:
        """uint8 (B, 3, T, H, W) on any device -> normalised float32 on this one."""
        return self.normalize(videos.to(self.mean.device, non_blocking=True).float() / 255)

    def denormalize(self, videos: Tensor) -> Tensor:
        """The inverse of `normalize`."""
        return videos * self.std + self.mean

    def prepare(self, batch: Sequence[Tensor], device: torch.device) -> ClipBatch:
        """A loader's (videos, mask, ...) -> `ClipBatch`.

        Args:
            batch: videos (B, C, T, H, W), or images (B, C, H, W), which become clips of one frame. uint8 is normalised
                here, on the device (a quarter of the bytes over the bus); floats are taken as already normalised, as
                VideoMAE's own loader yields them. The keys of the random draws are the field `key` of a
                `PretrainSample`. No other element is ever taken for them: a third one may be a label or a second mask.

        Raises:
            ValueError: the mask is no tensor, or the videos have another shape or number of channels.
        """
        videos, mask, *_ = batch
        keys = getattr(batch, "key", None)
        if not isinstance(mask, Tensor):
            raise ValueError(f"the loader's mask is a {type(mask).__name__} and no tensor (B, N): it must yield "
                             "(videos, mask); tats.engines.fork.loader_mask makes masks")
        videos = self.checked(videos).to(device, non_blocking=True)
        mask = mask.to(device, non_blocking=True).flatten(1).bool()
        if videos.dtype == torch.uint8:
            pixels = videos.float() / 255
            videos = self.normalize(pixels)
        else:
            pixels = self.denormalize(videos.float())
        return ClipBatch(videos, pixels, mask, None if keys is None else keys.to(device, non_blocking=True))

    def checked(self, videos: Tensor) -> Tensor:
        """The videos, images as clips of one frame. Raises ValueError: another shape or number of channels."""
        if videos.ndim == 4:
            videos = videos.unsqueeze(2)
        channels = self.mean.shape[1]
        if videos.ndim != 5 or videos.shape[1] != channels:
            raise ValueError(f"videos of shape {tuple(videos.shape)}: wanted are (B, {channels}, T, H, W), or images "
                             f"(B, {channels}, H, W), for a mean and std of {channels} channels")
        return videos
