"""Pre-training clips: decode, crop, mask; everything random comes from the sample's key."""

from typing import NamedTuple

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
        # The mask has a key of its own: clips are then the same under every masking strategy.
        with seeded(mix(key, 1)):
            mask = self.masking()

        def read(row: int) -> PretrainSample:
            with seeded(key):
                return PretrainSample(self._read(row), mask, key)

        return first_readable(read, row, key, len(self), self.bad_videos)

    def _read(self, row: int) -> Tensor:
        with self.clip_list.opened(row, self.decoding.open) as video:
            frames = video.read(pretrain_indices(video.num_frames, *self.shape))
        return self.transform(torch.from_numpy(frames))
