"""Labelled clips for fine-tuning, and the clips x crops of a video for evaluation, each video decoded once."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .lists.bad_videos import BadVideos, first_readable
from .lists.list_file import ClipList
from .lists.seeding import mix, seeded
from .transforms.pretraining import Transform, crop_views
from .video.decode import AS_INSTALLED, Decoding, VideoError
from .video.frame_numbers import center_indices, train_indices, view_indices
from .windows import frames_by_time


class Sampling(NamedTuple):
    """How clips are cut out of videos.

    Fields:
        style: "dense" or "segments", see `sampling`.
        num_frames: T.
        stride: frames from one sampled frame to the next (dense).
    """

    style: str = "dense"
    num_frames: int = 16
    stride: int = 4


class Views(NamedTuple):
    """Which clips of a video are evaluated.

    Fields:
        segments: clips in time. 0: the centre clip of validation.
        crops: squares along the longer side.
        size: S, their side in pixels.
        short_side: the frame's shorter side is resized to this first; None: S.
    """

    segments: int
    crops: int
    size: int
    short_side: int | None = None

    @property
    def count(self) -> int:
        """V, clips of a video."""
        return max(1, self.segments) * self.crops


class LabelledSample(NamedTuple):
    """num_sample clips of one decode.

    Fields:
        videos: uint8 (R, 3, T, S, S).
        label: class.
    """

    videos: Tensor
    label: int


class EvaluationSample(NamedTuple):
    """All views of a video.

    Fields:
        row: of the list.
        label: class.
        videos: uint8 (V, 3, T, S, S), zeros where the video cannot be read.
        fault: why it cannot be read; "" where it can.
    """

    row: int
    label: int
    videos: Tensor
    fault: str


class LabelledClips(Dataset):
    """Training clips. `clips[row, key]` depends on nothing but the two.

    Args:
        clip_list: the videos with their labels.
        sampling: how the clip is cut out.
        transform: uint8 (T, H, W, 3) -> uint8 (3, T, S, S), drawn anew for each of the `repeats`.
        repeats: R, clips of one decode, which see the same frames.
        decoding, bad_videos: as `PretrainClips`; a replaced video brings its own label.

    Raises:
        VideoError, TooManyBadVideos: from `[]`.
    """

    def __init__(self, clip_list: ClipList, sampling: Sampling, transform: Transform, repeats: int = 1, *,
                 decoding: Decoding = AS_INSTALLED, bad_videos: BadVideos | None = None):
        if repeats < 1:
            raise ValueError(f"--num_sample must be at least 1, got {repeats}")
        self.clip_list, self.sampling, self.transform, self.repeats = clip_list, sampling, transform, repeats
        self.decoding, self.bad_videos = decoding.resolved(), bad_videos

    def __len__(self) -> int:
        return len(self.clip_list)

    def __getitem__(self, row_and_key: tuple[int, int]) -> LabelledSample:
        row, key = row_and_key

        def read(row: int) -> LabelledSample:
            with seeded(key):
                return LabelledSample(self._clips(row, key), int(self.clip_list.labels[row]))

        return first_readable(read, row, key, len(self), self.bad_videos)

    def _clips(self, row: int, key: int) -> Tensor:
        with self.clip_list.opened(row, self.decoding.open) as video:
            frames = video.read(train_indices(self.sampling.style, video.num_frames, *self.sampling[1:]))
        clips = []
        for repeat in range(self.repeats):
            with seeded(mix(key, 3, repeat)):   # one clip is then the same whatever number of others there is
                clips.append(self.transform(frames))
        return torch.stack(clips)


def flatten_repeats(samples: Sequence[LabelledSample]) -> tuple[Tensor, Tensor]:
    """A loader's collate: B samples of R clips -> uint8 (B R, 3, T, S, S), labels (B R,); a video's clips together."""
    videos = torch.cat([sample.videos for sample in samples])
    labels = torch.tensor([sample.label for sample in samples for _ in sample.videos])
    return videos, labels


class TestViews(Dataset):
    """All views of each video, from one decode of it; deterministic. An unreadable video is flagged, not raised.

    Args:
        clip_list: the videos with their labels (-1: none).
        sampling: how clips are cut out.
        views: which.
        decoding: as `PretrainClips`.
        fps: clips are cut out of the frames that are shown at this rate, see `frames_at_rate`; None: out of all.
    """

    __test__ = False   # pytest: not a test class

    def __init__(self, clip_list: ClipList, sampling: Sampling, views: Views,
                 decoding: Decoding = AS_INSTALLED, fps: float | None = None):
        if views.crops < 1 or views.segments < 0:
            raise ValueError(f"at least one crop and one segment of a test video, got {views.segments} x {views.crops}")
        if views.short_side is not None and views.short_side < views.size:
            raise ValueError(f"--short_side_size {views.short_side} is smaller than the crop of {views.size} pixels")
        self.clip_list, self.sampling, self.views, self.fps = clip_list, sampling, views, fps
        self.decoding = decoding.resolved()
        style, num_frames, stride = sampling
        self._indices = partial(view_indices, style, num_frames=num_frames, stride=stride, segments=views.segments) \
            if views.segments else partial(center_indices, style, num_frames=num_frames, stride=stride)

    def __len__(self) -> int:
        return len(self.clip_list)

    def __getitem__(self, row: int) -> EvaluationSample:
        label, size = int(self.clip_list.labels[row]), self.views.size
        try:
            return EvaluationSample(row, label, self._read(row), "")
        except VideoError as error:
            empty = torch.zeros(self.views.count, 3, self.sampling.num_frames, size, size, dtype=torch.uint8)
            return EvaluationSample(row, label, empty, str(error))

    def _read(self, row: int) -> Tensor:
        with self.clip_list.opened(row, self.decoding.open) as video:
            shown = np.arange(video.num_frames) if self.fps is None else frames_by_time(
                self.clip_list.paths[row], video, self.fps)
            indices = shown[np.atleast_2d(self._indices(len(shown)))]   # (segments, T)
            frames = video.read(indices.reshape(-1))
        clips = frames.reshape(*indices.shape, *frames.shape[1:])
        return torch.stack([view for clip in clips
                            for view in crop_views(clip, self.views.size, self.views.crops, self.views.short_side)])
