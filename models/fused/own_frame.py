"""A token's trajectory at the token's own frame, from which Eq. 2 takes its query; for trajectories of tokens first."""

from torch import Tensor


def in_own_frame(trajectories: Tensor) -> Tensor:
    """(B, N, F, D) -> a view of it, (B, F, P, D): y~ of each token in its own frame."""
    by_frame = trajectories.unflatten(1, (trajectories.shape[2], -1))                 # (B, F, P, F, D)
    return by_frame.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)
