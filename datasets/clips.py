"""Pre-training clips: decode, crop, mask; everything random comes from the sample's key."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .lists.bad_videos import BadVideos, first_readable
from .lists.list_file import ClipList
from .lists.seeding import mix, seeded
from .transforms.pretraining import Transform
from .video.decode import AS_INSTALLED, Decoding
from .video.frame_numbers import pretrain_indices


class ClipShape(NamedTuple):
    """num_frames frames, every sampling_rate-th of the video."""

    num_frames: int = 16
    sampling_rate: int = 4


class PretrainSample(NamedTuple):
    """One clip (in a batch each field has a leading B).

    Fields:
        video: uint8 (3, T, H, W).
        mask: bool (N,), True = hidden, order (t h w).
        key: int64, what the clip was drawn from.
    """

    video: Tensor
    mask: Tensor
    key: int


class PretrainClips(Dataset):
    """Clips of a list. `clips[row, key]` depends on nothing but the two: no state, any worker, any order.

    Args:
        clip_list: the videos.
        shape: frames and stride.
        transform: uint8 (T, H, W, 3) -> uint8 (3, T, S, S), from `pretrain_transform`.
        masking: () -> bool (N,), the per-clip half of a row of the masking registry.
        decoding: how the videos are read.
        bad_videos: where unreadable videos are noted; such a row then gives another video, drawn from the key. None:
            the first one raises.

    Raises:
        VideoError: from `[]`, a video that cannot be read.
        TooManyBadVideos: from `[]`, more of them than `bad_videos` allows.
    """

    def __init__(self, clip_list: ClipList, shape: ClipShape, transform: Transform, masking,
                 decoding: Decoding = AS_INSTALLED, bad_videos: BadVideos | None = None):
        self.clip_list, self.shape, self.transform, self.masking = clip_list, shape, transform, masking
        self.decoding, self.bad_videos = decoding.resolved(), bad_videos

    def __len__(self) -> int:
        return len(self.clip_list)

    def __getitem__(self, row_and_key: tuple[int, int]) -> PretrainSample:
        row, key = row_and_key
        sample, = self.samples(row, [key])
        return sample

    def samples(self, row: int, keys: Sequence[int]) -> list[PretrainSample]:
        """A clip of each key, all of one opened video; each is what `clips[row, key]` would give, as long as the video
        can be read. The first key also draws the videos that stand in for it."""
        masks = []
        for key in keys:
            # The mask has a key of its own: clips are then the same under every masking strategy.
            with seeded(mix(key, 1)):
                masks.append(self.masking())
        videos = first_readable(lambda row: self._read(row, keys), row, keys[0], len(self), self.bad_videos)
        return [PretrainSample(*sample) for sample in zip(videos, masks, keys, strict=True)]

    def _read(self, row: int, keys: Sequence[int]) -> list[Tensor]:
        with self.clip_list.opened(row, self.decoding.open) as video:
            available, indices = video.num_frames, []
            for key in keys:
                with seeded(key):
                    indices.append(pretrain_indices(available, *self.shape))
            frames = video.read(np.concatenate(indices))
        clips = []
        for key, own in zip(keys, np.split(frames, len(keys)), strict=True):
            with seeded(key):
                pretrain_indices(available, *self.shape)   # drawn again: the crop's draws come behind the start's
                clips.append(self.transform(torch.from_numpy(own)))
        return clips


class RepeatedClips(PretrainClips):
    """Several clips of each opened video, each with its own start, crop, flip and mask: `clips[row, key]` is a
    `PretrainSample` whose fields have a leading `repeats`. The first of them is the one clip of `PretrainClips`.

    Args:
        repeats: R. The others: as `PretrainClips`.
    """

    def __init__(self, *args, repeats: int, **kwargs):
        super().__init__(*args, **kwargs)
        self.repeats = repeats

    def __getitem__(self, row_and_key: tuple[int, int]) -> PretrainSample:
        row, key = row_and_key
        samples = self.samples(row, [key, *(mix(key, 4, repeat) for repeat in range(1, self.repeats))])
        videos, masks, keys = zip(*samples, strict=True)
        return PretrainSample(torch.stack(videos), torch.stack(masks), torch.tensor(keys))


def joined_clips(samples: Sequence[PretrainSample]) -> PretrainSample:
    """A loader's collate: B samples of R clips -> one of B R; a video's clips together."""
    return PretrainSample(*map(torch.cat, zip(*samples, strict=True)))
