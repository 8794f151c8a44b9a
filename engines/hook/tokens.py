"""Where the policy's tokens come from: the model's own patch embedding, a function, or the pixels themselves.

B: clips, N: tokens, D: their width.
"""

import logging
from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor, nn

from ...masking import TokenGrid
from ...models.positions import sincos3d_table

logger = logging.getLogger(__name__)


def bare(model: nn.Module) -> nn.Module:
    """The model without what torch.compile, DistributedDataParallel, DataParallel, FSDP or DeepSpeed put around it."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and (isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel)
                              or type(model).__name__ in ("DeepSpeedEngine", "FullyShardedDataParallel")):
            inner = model.module
        if inner is None:
            return model
        model = inner


def time_first(model: nn.Module | None) -> bool:
    """Whether its videos are (B, T, C, H, W), as those of transformers' VideoMAE."""
    return model is not None and hasattr(bare(model), "videomae")


def _embedding(model: nn.Module) -> tuple[nn.Module, str] | None:
    """(the module that embeds patches and holds positions, its patch embedding's name), wherever it is known to be:
    VideoMAE and its forks, MAE and MAE-ST, transformers' VideoMAE and ViTMAE."""
    for place, name in (("encoder", "patch_embed"), ("", "patch_embed"), ("videomae.embeddings", "patch_embeddings"),
                        ("vit.embeddings", "patch_embeddings"), ("embeddings", "patch_embeddings")):
        found = model
        for part in filter(None, place.split(".")):
            found = getattr(found, part, None)
        if isinstance(getattr(found, name, None), nn.Module):
            return found, name
    return None


OTHERWISE = 'give tokens="pixels", or tokens=FUNCTION with width=D, FUNCTION(videos) -> (B, N, D)'
POSITIONS = ("pos_embed", "position_embeddings", "pos_embedding", "pos_emb", "positional_embedding")
EXTRA = 8   # at most so many positions of class, distillation and register tokens stand before those of the patches


class ModelTokens:
    """Patch embedding plus positions of a model, read anew in every step: the policy sees what the encoder sees.

    A model whose positions are not found as a table beside its patch embedding gets fixed ones, and the log says so.

    Args:
        model: of a class whose embedding is known, see `_embedding`.

    Attributes:
        width: D.

    Raises:
        ValueError: its patch embedding cannot be found, or its weights are shared out over processes.
    """

    def __init__(self, model: nn.Module, grid: TokenGrid):
        model, self.grid = bare(model), grid
        found = _embedding(model)
        self.kind = type(model).__name__
        if found is None:
            raise ValueError(f"{self.kind} has no patch embedding where one is known to be: {OTHERWISE}")
        embedding = getattr(*found)
        if any(type(one).__name__ == "DTensor" or not one.numel() or type(one).__name__ == "FlatParameter"
               for one in embedding.parameters()):
            raise ValueError(f"the patch embedding of {self.kind} is shared out over processes: {OTHERWISE}")
        proj = getattr(embedding, "proj", getattr(embedding, "projection", None))
        self.width = getattr(proj, "out_channels", None) or getattr(proj, "out_features", None)
        if self.width is None:
            raise ValueError(f"the patch embedding of {self.kind} has no convolution `proj`: {OTHERWISE}")
        self.images = getattr(proj, "kernel_size", (0, 0, 0))[2:] == ()   # of two sides: it takes (B, C, H, W)
        self._fixed: Tensor | None = None

    def __call__(self, model: nn.Module, videos: Tensor, positions: bool) -> Tensor:
        """(B, N, D), detached. videos: as the model's own forward takes them."""
        found = _embedding(bare(model))
        if found is None:
            raise ValueError(f"choose(model, ...) got a {type(model).__name__}, which has no patch embedding: give the "
                             f"{self.kind} that the hook was made for; or make the hook otherwise: {OTHERWISE}")
        holder, name = found
        batch = len(videos)
        with torch.no_grad():
            if self.images and videos.ndim == 5:
                videos = videos.transpose(1, 2).flatten(0, 1)   # frame by frame
            tokens = self._flat(getattr(holder, name)(videos), batch)
            if positions and tokens.shape[1] == self.grid.num_tokens:   # else the first batch is refused
                tokens = tokens + self._positions(holder, tokens)
        return tokens.detach()

    def _flat(self, tokens: Tensor, batch: int) -> Tensor:
        """(B, N, D) from that, (B, D, T', H', W'), or MAE-ST's (B, T', H'W', D). Raises ValueError: none of these."""
        if not isinstance(tokens, Tensor):
            raise ValueError(f"the patch embedding of {self.kind} returns a {type(tokens).__name__}: {OTHERWISE}")
        first, last = (tokens.shape[place] == self.width for place in (1, -1))
        if first == last and (not last or tokens.ndim > 3):
            raise ValueError(f"the patch embedding of {self.kind} returns {tuple(tokens.shape)}, in which the width "
                             f"{self.width} is not to be told from the rest: {OTHERWISE}")
        return (tokens if last else tokens.movedim(1, -1)).reshape(batch, -1, self.width)

    def _positions(self, holder: nn.Module, tokens: Tensor) -> Tensor:
        """(1, N, D), without those of class and register tokens."""
        number = tokens.shape[1]
        if hasattr(holder, "pos_embed_spatial"):   # MAE-ST with --sep_pos_embed
            frames, area = self.grid.frames, self.grid.tokens_per_frame
            return (holder.pos_embed_spatial.repeat(1, frames, 1)
                    + holder.pos_embed_temporal.repeat_interleave(area, dim=1))
        table = next((found for name in POSITIONS if (found := getattr(holder, name, None)) is not None), None)
        table = table.weight if isinstance(table, nn.Embedding) else table
        if isinstance(table, Tensor) and table.shape[-1] == self.width:
            table = table.reshape(1, -1, self.width)
            if 0 <= table.shape[1] - number <= EXTRA:
                return table[:, -number:].to(tokens.device).type_as(tokens)
        if self._fixed is None:
            logger.warning("the positions of %s are not found beside its patch embedding: the policy gets fixed ones",
                           self.kind)
            self._fixed = sincos3d_table(self.grid, self.width).type_as(tokens)
        return self._fixed


class CalledTokens:
    """Tokens of a function of the videos.

    Args:
        function: `function(videos) -> (B, N, D)`, positions included. width: D.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], width: int):
        self.function, self.width = function, width

    def __call__(self, model: nn.Module, videos: Tensor, positions: bool) -> Tensor:
        del model, positions
        with torch.no_grad():
            return self.function(videos).detach()


class PixelTokens:
    """A fixed random projection of each patch's pixels plus fixed positions: for models that cannot give tokens.

    Nothing trains it, and nothing needs to: a random linear map keeps the distances between patches nearly as they are
    (Johnson-Lindenstrauss), so that what the policy could read from the pixels it can read from these tokens; the
    policy's own layers learn the rest. It is made from a seed, alike on every process and after every resume, and does
    not drift as a patch embedding in training does. What it lacks is what the encoder has learned to see.

    Args:
        grid: (T', H', W'). width: D. seed: of the projection.
    """

    def __init__(self, grid: TokenGrid, width: int = 192, seed: int = 0):
        self.grid, self.width, self.seed = TokenGrid(*grid), width, seed
        self._weight: Tensor | None = None

    def __call__(self, model: nn.Module | None, videos: Tensor, positions: bool) -> Tensor:
        """videos: (B, C, T, H, W), or images (B, C, H, W). Raises ValueError: the grid does not divide them."""
        del model
        videos = videos.unsqueeze(2) if videos.ndim == 4 else videos
        if any(size % parts for size, parts in zip(videos.shape[2:], self.grid, strict=True)):
            raise ValueError(f"videos of shape {tuple(videos.shape)} cannot be cut into the grid "
                             f"{'x'.join(map(str, self.grid))}")
        t, h, w = self.grid
        patches = rearrange(videos, "b c (t p) (h q) (w r) -> b (t h w) (c p q r)", t=t, h=h, w=w)
        if self._weight is None or self._weight.device != patches.device:
            values = patches.shape[2]
            random = torch.Generator().manual_seed(self.seed)
            weight = torch.randn(values, self.width, generator=random) / values**0.5
            self._weight = weight.to(patches.device)
            self._table = sincos3d_table(self.grid, self.width).to(patches.device)
        tokens = patches.float() @ self._weight
        return (tokens + self._table if positions else tokens).detach()
