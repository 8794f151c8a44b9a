"""Which frames of a video are read: pure functions from a frame count to frame numbers (int64, from 0).

Two families, as in VideoMAE: `dense` reads a clip at a fixed stride (UCF101, HMDB51, Kinetics), `segments` one frame
out of each of num_frames equal parts of the whole video (Something-Something V2). Random ones take `pick(n)`, a whole
number below n; the default draws from torch's global generator.
"""

from collections.abc import Callable

import numpy as np
import torch

Pick = Callable[[int], int]
STYLES = ("dense", "segments")


def torch_pick(count: int) -> int:
    """A whole number in [0, count), from torch's global generator."""
    return int(torch.randint(count, ()))


def pretrain_indices(available: int, num_frames: int, stride: int, pick: Pick = torch_pick) -> np.ndarray:
    """(num_frames,) frames at `stride` from a random start in [0, available - num_frames * stride].

    A video that is too short is read from its start, and the last frame that whole strides reach is held, as
    VideoMAE's loader does (which, counting from one, stops a frame earlier).
    """
    _check(available, num_frames, stride)
    slack = available - num_frames * stride
    start = pick(slack + 1) if slack > 0 else 0
    steps = np.minimum(np.arange(num_frames), (available - 1 - start) // stride)
    return start + stride * steps


def train_indices(style: str, available: int, num_frames: int, stride: int = 1, pick: Pick = torch_pick) -> np.ndarray:
    """(num_frames,) frames of a random clip for fine-tuning, as VideoMAE draws them."""
    _check(available, num_frames, stride)
    if _is_segments(style):
        part = available // num_frames
        if part > 0:
            return np.arange(num_frames) * part + np.array([pick(part) for _ in range(num_frames)])
        return np.sort(np.array([pick(available) for _ in range(num_frames)]))
    slack = available - num_frames * stride
    return _dense_window(available, num_frames, stride, pick(slack) if slack > 0 else 0)


def center_indices(style: str, available: int, num_frames: int, stride: int = 1) -> np.ndarray:
    """(num_frames,) frames of the middle clip: validation, the same in every epoch (VideoMAE's is random)."""
    _check(available, num_frames, stride)
    if _is_segments(style):
        return _segment_points(available, num_frames, .5)
    return _dense_window(available, num_frames, stride, max(0, available - num_frames * stride) // 2)


def view_indices(style: str, available: int, num_frames: int, stride: int = 1, segments: int = 1) -> np.ndarray:
    """(segments, num_frames) frames of the test clips of a video.

    dense: every stride-th frame, the last one repeated up to num_frames, and `segments` windows of num_frames of them
    spread evenly from first to last. segments: the parts' points shifted by 1/segments of a part from clip to clip
    (at two clips: the parts' starts and middles, which interleave). One clip is the middle one in both.
    """
    _check(available, num_frames, stride)
    if segments < 1:
        raise ValueError(f"segments must be at least 1, got {segments}")
    if _is_segments(style):
        shifts = [.5] if segments == 1 else [view / segments for view in range(segments)]
        return np.stack([_segment_points(available, num_frames, shift) for shift in shifts])
    frames = np.arange(0, available, stride)
    frames = np.concatenate([frames, np.repeat(frames[-1], max(0, num_frames - len(frames)))])
    slack = len(frames) - num_frames
    starts = [slack // 2] if segments == 1 else [view * slack // (segments - 1) for view in range(segments)]
    return np.stack([frames[start:start + num_frames] for start in starts])


def frames_at_rate(times: np.ndarray, fps: float) -> np.ndarray:
    """(K,) frames that are shown at 0, 1/fps, 2/fps, ... seconds, up to the end of the video; a slow video's frames
    repeat, so that a second has as many in every video.

    Args:
        times: (frames + 1,) the start of each frame in seconds from the first one's, and the end of the last.
    """
    count = max(1, int((times[-1] - times[0]) * fps + 1e-6))
    at = times[0] + np.arange(count) / fps
    return np.clip(np.searchsorted(times[:-1], at + 1e-6, side="right") - 1, 0, len(times) - 2)


def _dense_window(available: int, num_frames: int, stride: int, start: int) -> np.ndarray:
    """VideoMAE's spacing: num_frames points from start to start + num_frames * stride, the end included, rounded down.

    A video that is too short gives available // stride points over its length, then its last frame.
    """
    length = num_frames * stride
    if available <= length:
        points = np.linspace(0, available, num=available // stride)
        points = np.concatenate([points, np.full(num_frames - len(points), available)])
        return np.clip(points, 0, available - 1).astype(np.int64)
    points = np.linspace(start, start + length, num=num_frames)
    return np.clip(points, start, start + length - 1).astype(np.int64)


def _segment_points(available: int, num_frames: int, shift: float) -> np.ndarray:
    """One frame in each of num_frames equal parts, `shift` of a part behind its start."""
    return (available / num_frames * (np.arange(num_frames) + shift)).astype(np.int64)


def _is_segments(style: str) -> bool:
    if style not in STYLES:
        raise ValueError(f"unknown sampling style {style!r}: use one of {', '.join(STYLES)}")
    return style == "segments"


def _check(available: int, num_frames: int, stride: int) -> None:
    if min(available, num_frames, stride) < 1:
        raise ValueError(f"frames of the video, frames of the clip and stride must be at least 1, "
                         f"got {available}, {num_frames}, {stride}")
