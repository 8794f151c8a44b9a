"""How much each token of a real clip moves, by optical flow and by plainer measures, and how textured it is.

V: clips, N: tokens. Optical flow is OpenCV's DIS, an optional dependency (extra `flow`).
"""

from types import ModuleType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...datasets.transforms.pretraining import resize
from ...masking import TokenGrid
from ..pretrain.diagnostics import frame_difference


class TokenMotion(NamedTuple):
    """Means over each token's pixels and frames, (V, N).

    flow: length of the optical flow, in shares of the frame's side per frame step. own_flow: the same after each
    frame's median flow is taken away, which is the camera's where the background fills most of the frame.
    difference: absolute difference to the frame before. texture: length of the brightness gradient.
    """

    flow: Tensor
    own_flow: Tensor
    difference: Tensor
    texture: Tensor


def opencv() -> ModuleType:
    """The library that measures flow, imported only where it is used.

    Raises:
        ValueError: not installed.
    """
    try:
        import cv2
    except ImportError:
        raise ValueError("optical flow needs OpenCV: pip install opencv-python-headless") from None
    return cv2


def flow_fields(clip: Tensor) -> Tensor:
    """Dense optical flow of uint8 (3, T, H, W), float32 (T, 2, H, W): (x, y) in pixels, where each pixel came from.

    From each frame to the one before, so that a vector stands where the frame shows the thing that moved; of the first
    frame to the one after, as in `frame_difference`.
    """
    cv2 = opencv()
    estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip.permute(1, 2, 3, 0).contiguous().numpy()]
    others = [grey[1], *grey[:-1]]
    fields = [estimator.calc(frame, other, None) for frame, other in zip(grey, others, strict=True)]
    return torch.stack([torch.from_numpy(field) for field in fields]).permute(0, 3, 1, 2)


def without_camera(fields: Tensor) -> Tensor:
    """Flow (T, 2, H, W) less each frame's median vector."""
    return fields - fields.flatten(2).median(dim=2).values[..., None, None]


def token_means(values: Tensor, grid: TokenGrid) -> Tensor:
    """(V, T, H, W) -> means over each token, (V, N)."""
    return F.adaptive_avg_pool3d(values, tuple(grid)).flatten(1)


def brightness_gradient(pixels: Tensor) -> Tensor:
    """(V, 3, T, H, W) -> length of the spatial gradient, (V, T, H, W), in brightness per pixel."""
    down, right = torch.gradient(pixels.mean(dim=1), dim=(-2, -1))
    return torch.hypot(down, right)


def token_motion(clips: Tensor, grid: TokenGrid, size: int) -> tuple[Tensor, TokenMotion]:
    """(uint8 (V, 3, T, size, size) as a model sees the clips, how its tokens move).

    Flow is measured in the clips as they are; differences and texture in what the model sees, which is all that a
    policy could react to.

    Args:
        clips: uint8 (V, 3, T, S, S).
        size: side of the model's clips.
    """
    seen = torch.stack([resize(clip.transpose(0, 1), size, size).transpose(0, 1) for clip in clips])
    fields = [flow_fields(clip) / clip.shape[-1] for clip in clips]
    flow, own_flow = (token_means(torch.stack([field.norm(dim=1) for field in kind]), grid)
                      for kind in (fields, [without_camera(field) for field in fields]))
    pixels = seen.float() / 255
    return seen, TokenMotion(flow, own_flow, frame_difference(pixels, grid),
                             token_means(brightness_gradient(pixels), grid))
