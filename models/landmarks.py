"""Orthoformer's landmarks: a few queries that stand for all (Motionformer, arXiv 2106.05392, Sec. 3.3)."""

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def select_landmarks(queries: Tensor, count: int, first: int = 0) -> Tensor:
    """Greedily pick the queries that are most orthogonal to those already picked: whose largest |cosine| is smallest.

    The first is fixed. Motionformer draws it at random in every forward: the same weights then give probabilities a
    third apart, and the ratio of two policies is noise.

    Args:
        queries: (B, N, d). count: L. first: index of the first landmark.

    Returns:
        int64 (B, L), ascending; all N of them where count is larger.
    """
    directions = F.normalize(queries.float(), dim=-1)
    batch, num_tokens, _ = directions.shape
    rows = torch.arange(batch, device=queries.device)
    picked = torch.full((batch,), first, device=queries.device)
    chosen = [picked]
    # The largest |cosine| to any landmark so far, updated by one column a round: O(N L) and no N x L table.
    likeness = torch.zeros(batch, num_tokens, device=queries.device)
    with torch.autocast(queries.device.type, enabled=False):  # in bfloat16 many cosines would tie
        for _ in range(min(count, num_tokens) - 1):
            cosines = (directions @ directions[rows, picked, :, None]).squeeze(-1).abs_()
            torch.maximum(likeness, cosines, out=likeness)
            likeness[rows, picked] = torch.inf  # never the same twice
            picked = likeness.argmin(dim=1)
            chosen.append(picked)
    return torch.stack(chosen, dim=1).sort(dim=1).values


def landmark_attention(queries: Tensor, keys: Tensor, landmarks: Tensor) -> Tensor:
    """Weights of a softmax over keys, through the landmarks: softmax(q m / sqrt d) softmax(m k / sqrt d).

    For figures and as the plain form of `landmark_trajectories`: it makes all N x P of them.

    Args:
        queries: (..., N, d). keys: (..., P, d), those of one frame. landmarks: (..., L, d).

    Returns:
        (..., N, P); every row sums to 1.
    """
    scale = queries.shape[-1] ** -0.5
    to_landmarks = (queries @ landmarks.transpose(-1, -2) * scale).softmax(dim=-1)
    return to_landmarks @ (landmarks @ keys.transpose(-1, -2) * scale).softmax(dim=-1)


def landmark_trajectories(queries: Tensor, keys: Tensor, values: Tensor, landmarks: Tensor) -> Tensor:
    """`landmark_attention(...) @ values` of every frame, multiplied from the right: L values a frame, then N, and
    never the N x P weights.

    Args:
        queries: (B, h, N, d). keys, values: (B, h, F, P, d). landmarks: (B, h, L, d).

    Returns:
        (B, h, F, N, d).
    """
    scale = queries.shape[-1] ** -0.5
    over_frames = landmarks.flatten(0, 1)[:, None].expand(-1, keys.shape[2], -1, -1)
    at_landmarks = F.scaled_dot_product_attention(over_frames, keys.flatten(0, 1), values.flatten(0, 1))
    to_landmarks = (queries @ landmarks.transpose(-1, -2) * scale).softmax(dim=-1)
    return torch.einsum("bhnl,bhfld->bhfnd", to_landmarks, at_landmarks.unflatten(0, queries.shape[:2]))
