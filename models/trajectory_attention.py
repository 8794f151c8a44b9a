"""Trajectory attention (Motionformer, arXiv 2106.05392; Eqs. 1-2 of the TATS paper), exact and cheap.

B: clips, N = F * P: tokens of F frames with P places each, D: width, h: heads, d = D / h.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from . import fused, kernels
from .landmarks import landmark_attention, landmark_trajectories, select_landmarks
from .temporal_pooling import pool_over_time
from .temporal_pooling_large import pool_over_time_large

KERNELS = ("plain", "triton")


class TrajectoryAttention(nn.Module):
    """Where does each token's content go in every frame (Eq. 1), and which frames matter to it (Eq. 2)?

    Eq. 1 is one softmax a frame, so the frames are a batch dimension of scaled_dot_product_attention and no N x N
    matrix is kept. Eq. 2 needs q~ . (W_k y~) and sum a (W_v y~); both projections are moved out of the sum over
    frames, (W_k^T q~) . y~ and W_v (sum a y~), so that no (B, N, F, 2D) tensor exists. The key bias adds the same to
    all frames and falls out of the softmax. The same numbers as the plain form, to rounding.

    Args:
        dim, num_heads, qkv_bias: as in any attention.
        approx: "orthoformer" sends Eq. 1 through `num_landmarks` landmarks.
        project_values: False takes y~ itself for v~ in Eq. 2, Motionformer's historical behaviour.

    Raises:
        ValueError: a width that the heads do not divide, or an unknown approx.
    """

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool = False, approx: str = "none",
                 num_landmarks: int = 128, project_values: bool = True):
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"{num_heads} attention heads do not divide the width {dim}")
        if approx not in ("none", "orthoformer"):
            raise ValueError(f"approx must be 'none' or 'orthoformer', got {approx!r}")
        self.num_heads, self.approx, self.num_landmarks = num_heads, approx, num_landmarks
        self.project_values = project_values
        self.kernel = "plain"   # see use_kernel
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj_q = nn.Linear(dim, dim, bias=qkv_bias)
        self.proj_kv = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, num_frames: int, norm: nn.LayerNorm | None = None) -> Tensor:
        """(B, N, D) -> (B, N, D); tokens in the order (frame, place), no class token.

        Args:
            norm: is applied to the tokens first.

        Raises:
            ValueError: N is no multiple of num_frames.
        """
        queries, keys, values = self._project(tokens, num_frames, norm)
        if self.kernel == "triton":
            return self.proj(self._pool_over_time(fused.fused_trajectories(queries, keys, values), large=True))
        large = kernels.wants_large(tokens) and self.project_values
        if self.approx == "orthoformer":
            trajectories = landmark_trajectories(queries, keys, values, self._landmarks(queries))   # Eq. 1
            trajectories = rearrange(trajectories, "b h f n d -> b n f (h d)" if large else "b h f n d -> b f n (h d)")
        elif large:
            trajectories = _trajectories_of_tokens(queries, keys, values)
        else:
            # Frames where the kernels have clips: given more than four dimensions they all fall back to plain
            # softmax(q k), which keeps the N x N weights. Their output is then y~ in the order that Eq. 2 reads.
            # Repeated with the heads behind the tokens: the kernels write their output in the order of the queries,
            # so that merging the heads copies nothing.
            over_frames = queries.transpose(1, 2)[:, None].expand(-1, num_frames, -1, -1, -1).flatten(0, 1)
            over_frames = over_frames.transpose(1, 2)
            keys, values = (rearrange(one, "b h f p d -> (b f) h p d") for one in (keys, values))
            trajectories = F.scaled_dot_product_attention(over_frames, keys, values)
            trajectories = rearrange(trajectories, "(b f) h n d -> b f n (h d)", f=num_frames)      # y~_stt'
        return self.proj(self._pool_over_time(trajectories, large))

    def _project(self, tokens: Tensor, num_frames: int,
                 norm: nn.LayerNorm | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """q (B, h, N, d), and k, v (B, h, F, P, d)."""
        if tokens.shape[1] % num_frames:
            raise ValueError(f"{tokens.shape[1]} tokens cannot be {num_frames} frames")
        queries, keys, values = (rearrange(one, "b n (h d) -> b h n d", h=self.num_heads)
                                 for one in self._qkv(tokens, norm).chunk(3, dim=-1))
        split = "b h (f p) d -> b h f p d"
        return queries, rearrange(keys, split, f=num_frames), rearrange(values, split, f=num_frames)

    def _qkv(self, tokens: Tensor, norm: nn.LayerNorm | None) -> Tensor:
        if norm is None or tokens.requires_grad:
            return self.qkv(tokens if norm is None else norm(tokens))
        # A first block's tokens need no gradient. With the norm's scale and shift moved into the weights, the backward
        # pass ends at these, and the product with W that would only serve the norm falls away.
        return kernels.linear_after_norm(tokens, norm, self.qkv)

    def _landmarks(self, queries: Tensor) -> Tensor:
        """(B, h, L, d): the queries of the most orthogonal tokens of each head."""
        flat = queries.flatten(0, 1)
        indices = select_landmarks(flat, self.num_landmarks)
        return flat.gather(1, indices[..., None].expand(-1, -1, flat.shape[-1])).view(*queries.shape[:2], -1,
                                                                                     flat.shape[-1])

    def _pool_over_time(self, trajectories: Tensor, large: bool = False) -> Tensor:
        """Eq. 2: y~ (B, F, N, D), the frame looked at first -> y (B, N, D). large: y~ is (B, N, F, D)."""
        if not self.project_values:
            return self._pool_unprojected(trajectories)
        if self.kernel == "triton":
            pool = fused.pool_over_time_fused
        else:
            pool = pool_over_time_large if large else pool_over_time
        mixed = pool(trajectories, self.proj_q, self.proj_kv.weight, self.num_heads)
        return mixed if self.proj_kv.bias is None else mixed + self.proj_kv.bias[mixed.shape[-1]:].to(mixed.dtype)

    def _pool_unprojected(self, trajectories: Tensor) -> Tensor:
        heads, dim = self.num_heads, trajectories.shape[-1]
        own = rearrange(trajectories, "b f (t p) c -> b p c t f", f=trajectories.shape[1], t=trajectories.shape[1])
        own = rearrange(own.diagonal(dim1=-2, dim2=-1), "b p c t -> b (t p) c")
        queries = rearrange(self.proj_q(own), "b n (h d) -> b n h d", h=heads) * (dim // heads) ** -0.5
        along = trajectories.transpose(1, 2)                                          # (B, N, F, D)
        key_weight = self.proj_kv.weight[:dim].view(heads, -1, dim)
        absorbed = torch.einsum("bnhd,hdc->bnhc", queries, key_weight.to(queries.dtype))   # W_k^T q~
        scores = absorbed @ along.transpose(-1, -2)                                   # (B, N, h, F)
        if self.proj_kv.bias is not None:   # the same for all frames; DistributedDataParallel wants a gradient of it
            key_bias = self.proj_kv.bias[:dim].view(heads, -1).to(queries.dtype)
            scores = scores + torch.einsum("bnhd,hd->bnh", queries, key_bias)[..., None]
        weights = scores.softmax(dim=-1)
        return (weights[..., None, :] @ rearrange(along, "b n f (h d) -> b n h f d", h=heads)).flatten(2)

    @torch.no_grad()
    def trajectory_maps(self, tokens: Tensor, num_frames: int, query_index: Tensor) -> Tensor:
        """Eq. 1's weights of chosen query tokens, for figures (Fig. 3).

        Args:
            query_index: int64 (Q,), tokens whose trajectories are wanted.

        Returns:
            (B, h, Q, F, P): where in every frame each of them is, a distribution over the places of each frame.
        """
        queries, keys, _ = self._project(tokens, num_frames)
        chosen = queries[:, :, query_index][:, :, None]                               # (B, h, 1, Q, d)
        if self.approx == "orthoformer":
            weights = landmark_attention(chosen, keys, self._landmarks(queries)[:, :, None])
        else:
            weights = (chosen @ keys.transpose(-1, -2) * chosen.shape[-1] ** -0.5).softmax(dim=-1)
        return weights.transpose(2, 3)


def use_kernel(net: nn.Module | None, kernel: str, device: torch.device | None = None) -> None:
    """Choose how every trajectory attention of `net` computes from now on: "plain", operations of torch, or "triton".

    Args:
        net: None has none.
        device: where the net will run; None: where it is.

    Raises:
        ValueError: "triton" where no kernel serves: no trajectory attention, one that is approximate or whose values
            are not projected, or a device that cannot.
    """
    found = [] if net is None else [one for one in net.modules() if isinstance(one, TrajectoryAttention)]
    if kernel not in KERNELS:
        raise ValueError(f"the trajectory kernel must be one of {', '.join(KERNELS)}, got {kernel!r}")
    if kernel == "triton" and not found:
        raise ValueError("trajectory kernel triton: there is no trajectory attention here; leave it at plain")
    for one in found:
        if kernel == "triton" and (one.approx != "none" or not one.project_values):
            raise ValueError("trajectory kernel triton: it computes exact attention with projected values, not "
                             f"{'Orthoformer' if one.approx != 'none' else 'values as they are'}; leave it at plain")
        if kernel == "triton" and (fault := fused.kernel_fault(device or one.qkv.weight.device,
                                                               one.qkv.in_features // one.num_heads)):
            raise ValueError(f"trajectory kernel triton: {fault}; leave it at plain")
        one.kernel = kernel


def _trajectories_of_tokens(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Eq. 1 with a head for each frame and head: the kernels write their output in the order of the queries, which is
    then that of `pool_over_time_large`, and neither pass copies it.

    Args:
        queries: (B, h, N, d). keys, values: (B, h, F, P, d).

    Returns:
        y~ (B, N, F, D).
    """
    frames = keys.shape[2]
    keys, values = (rearrange(one, "b h f p d -> b p (f h) d").transpose(1, 2) for one in (keys, values))
    found = _with_repeated(queries, frames, lambda repeated: F.scaled_dot_product_attention(repeated, keys, values))
    return found.transpose(1, 2).unflatten(2, (frames, -1)).flatten(3)


def _with_repeated(queries: Tensor, frames: int, attend: Callable[[Tensor], Tensor]) -> Tensor:
    """attend(queries (B, h, N, d) repeated for every frame, (B, F h, N, d)); of these the backward pass keeps those of
    one frame, and repeats them again."""
    def repeat(one: Tensor) -> Tensor:
        return one.transpose(1, 2)[:, :, None].expand(-1, -1, frames, -1, -1).flatten(2, 3).transpose(1, 2)

    repeated, once = repeat(queries), queries.detach()
    if torch.compiler.is_compiling():   # the compiler chooses what is kept
        return attend(repeated)
    place = repeated.untyped_storage()._cdata
    if place == queries.untyped_storage()._cdata:   # a single head: nothing was copied
        return attend(repeated)
    with torch.autograd.graph.saved_tensors_hooks(
            lambda kept: None if kept.untyped_storage()._cdata == place else kept,
            lambda kept: repeat(once) if kept is None else kept):
        return attend(repeated)
