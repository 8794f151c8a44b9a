"""What every learned choice of tokens is: one base class, with all that engines, figures and measurements ask of it.

B: clips, N: tokens, D: embedding dimension, N_v: visible tokens.
"""

import abc

import torch
from torch import Tensor, nn

from .grid import TokenGrid, checked_visible, num_visible
from .gumbel import Draw, gumbel_top_k


class TokenSampler(nn.Module, abc.ABC):
    """A policy pi over the N tokens of a clip. A subclass writes `policy`; everything else has a default.

    Args:
        grid: (T', H', W').
        mask_ratio: rho; `visible` gives N_v directly instead.

    Attributes:
        own_positions: False: the tokens that `policy` gets are the patch embedding plus the encoder's fixed positions.
            True: they are the bare patch embedding, for a sampler with positions of its own.
        num_visible: N_v.

    Raises:
        ValueError: a ratio outside (0, 1), or a count that the grid cannot have.
    """

    own_positions = False

    def __init__(self, grid: TokenGrid, *, mask_ratio: float = 0.95, visible: int | None = None):
        super().__init__()
        self.grid = TokenGrid(*grid)
        self.num_visible = checked_visible(self.grid, visible or num_visible(self.grid, mask_ratio))

    @abc.abstractmethod
    def policy(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """The policy's logits (B, N), and its value of each clip (B,), or None where it has no value network.

        Args:
            tokens: X (B, N, D), without gradient: the policy's loss does not train the autoencoder.
        """

    def forward(self, tokens: Tensor, log: bool = False) -> tuple[Tensor, Tensor | None]:
        """pi (B, N), float32, and the value (B,) or None.

        Args:
            log: return log pi instead of pi (what losses need: exp underflows, its logarithm does not come back).

        Raises:
            ValueError: the tokens are not those of this grid.
        """
        if tokens.shape[1] != self.grid.num_tokens:
            raise ValueError(f"the sampler was built for {self.grid.num_tokens} tokens "
                             f"({'x'.join(map(str, self.grid))}), got {tokens.shape[1]}")
        logits, value = self.policy(tokens)
        with torch.autocast(tokens.device.type, enabled=False):
            log_pi = logits.float().log_softmax(dim=-1)                               # Eq. 4
        return (log_pi if log else log_pi.exp()), value

    @property
    def least_entropy(self) -> float:
        """H(pi) in nats of the sharpest policy that it can have: 0 where one token may have all."""
        return 0.0

    def draw(self, log_pi: Tensor, keys: Tensor | None = None, stream: int = 0, visible: int | None = None) -> Draw:
        """I_v ~ Categorical(N, pi) without replacement (line 10). Training, figures and measurements all draw with it.

        Args:
            log_pi: (B, N). keys, stream: name the draw, see `uniform_noise`.
            visible: another number of visible tokens than N_v, for figures.

        Returns:
            The mask, and the threshold kappa of the draw. A draw that is not Gumbel's top k, such as the N_v most
            likely tokens, returns -inf for kappa: each masked token then counts with the weight of its pi alone.
        """
        return gumbel_top_k(log_pi, visible or self.num_visible, keys, stream)

    def sample(self, probabilities: Tensor) -> Tensor:
        """bool (B, N), True = masked (I_m), N_v tokens visible a clip; `probabilities` is what `forward` returns."""
        return self.draw(probabilities.float().log()).mask

    def trajectories(self, tokens: Tensor, query_index: Tensor) -> Tensor:
        """Where the sampler's attention follows chosen tokens of one clip (Eq. 1), for figures, (Q, T', H' * W').

        Args:
            tokens: (1, N, D). query_index: int64 (Q,).

        Raises:
            ValueError: the sampler has no trajectory attention.
        """
        raise ValueError("this checkpoint's sampler has no trajectory attention to draw: it takes --mask_type tats "
                         "with --tats_attention trajectory")


def check_sampler(sampler: nn.Module, embed_dim: int) -> None:
    """Try a sampler on one clip of zeros, before hours of training depend on it. Nothing of its state changes.

    Raises:
        ValueError: it is no TokenSampler, or its probabilities, value or draw are not of the promised shape.
    """
    name = type(sampler).__name__
    if not isinstance(sampler, TokenSampler):
        raise ValueError(f"the sampler {name} must be a subclass of tats.masking.TokenSampler")
    parameter = next(sampler.parameters(), torch.zeros(()))
    num_tokens, training = sampler.grid.num_tokens, sampler.training
    with torch.no_grad():
        log_pi, value = sampler.eval()(torch.zeros(1, num_tokens, embed_dim, device=parameter.device), log=True)
        drawn = sampler.draw(log_pi, torch.zeros(1, dtype=torch.int64, device=parameter.device))
    sampler.train(training)
    if log_pi.shape != (1, num_tokens):
        raise ValueError(f"the sampler {name} gives logits of shape {tuple(log_pi.shape)} for one clip, "
                         f"(1, {num_tokens}) is wanted")
    if value is not None and value.shape != (1,):
        raise ValueError(f"the sampler {name} gives a value of shape {tuple(value.shape)} for one clip, (1,) is wanted")
    if drawn.mask.shape != log_pi.shape or drawn.mask.dtype != torch.bool:
        raise ValueError(f"the sampler {name} draws a mask of {drawn.mask.dtype} {tuple(drawn.mask.shape)}, bool "
                         f"(1, {num_tokens}) is wanted")
    count = int((~drawn.mask).sum())
    if count != sampler.num_visible:
        raise ValueError(f"the sampler {name} shows {count} tokens and promises num_visible = {sampler.num_visible}")
