"""The loader of one epoch's clips, as pre-training and fine-tuning both have it."""

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ...datasets.lists.bad_videos import BadVideos
from ...datasets.lists.epoch_order import EpochSampler
from ...datasets.lists.list_file import ClipList
from ...datasets.verify_decode import verify_decode
from ...datasets.video.cache import Tally
from ...datasets.video.decode import keep_videos
from ...models.registry import counterpart
from ...models.vit import PatchEmbed
from ..config import finetuning, pretraining
from ..config.common import LoaderConfig, TrainLoaderConfig
from ..core.interrupts import outlive_signals
from ..core.runtime import Runtime

logger = logging.getLogger(__name__)

Settings = pretraining.Settings | finetuning.Settings


def watched(clips: ClipList, settings: Settings, runtime: Runtime) -> BadVideos | None:
    """Where this run notes videos that cannot be read, after a second decoder has looked at some of them where asked.

    Raises:
        ValueError: --verify_decode, and the decoders see different pictures.
    """
    data, folder = settings.data, settings.run.output_dir
    if data.verify_decode and runtime.is_main:
        verify_decode(clips, data.decoding, data.verify_decode, settings.run.seed)
    if not folder:
        return None
    Path(folder).mkdir(parents=True, exist_ok=True)
    return BadVideos(Path(folder) / "bad_videos.txt", len(clips), data.max_bad_fraction)


def worker_options(data: LoaderConfig, runtime: Runtime) -> dict:
    """What every loader of a run has in common, for `DataLoader`."""
    return {"num_workers": data.num_workers, "pin_memory": data.pin_mem and runtime.device.type == "cuda",
            "worker_init_fn": outlive_signals,
            "persistent_workers": data.num_workers > 0}   # those of others wait for each other before an error is told


def clip_bytes(embed: PatchEmbed) -> int:
    """Of a clip as the loader hands it on, uint8 (3, T, H, W)."""
    return embed.proj.in_channels * embed.num_frames * embed.img_size[0] * embed.img_size[1]


def other_model(checkpoint: Mapping[str, Any], net: nn.Module, given: str) -> str:
    """What to add where the weights of one of our checkpoints do not fit: the --model that it was trained as.

    Args:
        net: what they were to go into; the name is of a model of its class.
        given: its own name.

    Returns:
        A sentence, or nothing where the checkpoint does not say, or names this very model.
    """
    config = checkpoint.get("config")
    trained = config.get("name") if isinstance(config, Mapping) else None
    name = counterpart(trained, type(net)) if isinstance(trained, str) else None
    return f". The file is of {trained}: give --model {name}" if name not in (None, given) else ""


def count_held(videos: Tensor) -> int:
    """How many of (B, 3, T, H, W) end with the frame before it once more, as clips do that are longer than their video.
    Of still images, none."""
    if videos.shape[2] == 1:
        return 0
    return int((videos[:, :, -1] == videos[:, :, -2]).flatten(1).all(1).sum())


class TrainingLoader(DataLoader):
    """A loader whose workers keep decoded frames, see --cache_decoded. It warns where most clips of its first batch end
    with a repeated frame: a stride too large for the videos leaves nothing that moves, and no number of a log shows it.
    """

    def __init__(self, dataset: Dataset, batch: int, data: TrainLoaderConfig, runtime: Runtime, **options):
        self.gigabytes, self.tally, self._said = data.cache_decoded, Tally() if data.cache_decoded else None, False
        options = worker_options(data, runtime) | options
        if self.gigabytes:
            options["worker_init_fn"] = partial(_begin_keeping, self.gigabytes / max(1, data.num_workers), self.tally)
            if not data.num_workers:
                keep_videos(self.gigabytes * 1e9 / 2**20, self.tally)
        super().__init__(dataset, batch, **options)
        self._looked = False

    def __iter__(self) -> Iterator:
        batches = super().__iter__()
        return batches if self._looked else self._looking(batches)

    def _looking(self, batches: Iterator) -> Iterator:
        for batch in batches:
            if not self._looked and 2 * (held := count_held(batch[0])) > len(batch[0]):
                logger.warning("%d of %d clips of the first batch end with a repeated frame: their videos stand still, "
                               "or are shorter than a clip, which a smaller --sampling_rate makes shorter", held,
                               len(batch[0]))
            self._looked = True
            yield batch

    def say_what_is_kept(self) -> None:
        """One line of the log, once: after an epoch its frames are there, or there was no room."""
        if self.tally is None or self._said:
            return
        self._said = True
        videos, size, without_room = self.tally.read()
        logger.info("--cache_decoded: frames of %d video(s) are kept, %.3g of %g GB, in %s%s", videos, size / 1e9,
                    self.gigabytes, f"{self.num_workers} worker(s)" if self.num_workers else "this process",
                    "; there was no room for others, which are decoded each time" if without_room else "")


def _begin_keeping(gigabytes: float, tally: Tally, worker: int) -> None:
    """A worker's first act. gigabytes: its share."""
    outlive_signals(worker)
    keep_videos(gigabytes * 1e9 / 2**20, tally)


def training_loader(dataset: Dataset, settings: Settings, runtime: Runtime,
                    collate: Callable | None = None, rows: int | None = None) -> tuple[TrainingLoader, EpochSampler]:
    """The loader of one epoch of `dataset`, which has a `clip_list`, and what orders its rows.

    Args:
        rows: of the list that make a batch; None: batch_size.

    Raises:
        ValueError: too few videos for a step.
    """
    optim, clips, rows = settings.optim, dataset.clip_list, rows or settings.optim.batch_size
    order = EpochSampler(len(clips), settings.run.seed, runtime.rank, runtime.world_size)
    loader = TrainingLoader(
        dataset, rows, settings.data, runtime, sampler=order, drop_last=True, collate_fn=collate,
        generator=torch.Generator())   # not torch's own: loading moves nothing that a resume restores
    if len(loader) < optim.update_freq:
        lower = "--update_freq" if len(loader) else "--batch_size"
        raise ValueError(f"{clips.source} holds too few clips ({len(clips)}) for one step of {rows} x "
                         f"{optim.update_freq} (--update_freq) x {runtime.world_size} (processes); lower {lower}")
    return loader, order
