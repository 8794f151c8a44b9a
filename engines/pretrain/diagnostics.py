"""Does the policy learn, collapse or idle? Sums kept on the device during an epoch, and read once at its end.

B: clips, N: tokens. What PPO itself reports (ratio, clip fraction, KL, entropy) is in `ppo.sampling_loss`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ...masking import TokenGrid
from ..core.runtime import Runtime

LEAST_DEVIATION = 1e-3  # of the clips' rewards, over their root mean square: below it there is nothing to explain
FEWEST = 100  # visible tokens that a frame or place must expect before its coverage is reported: fewer are noise


def frame_difference(pixels: Tensor, grid: TokenGrid) -> Tensor:
    """Mean absolute difference to the frame before (of the first frame: to the one after) in each token, (B, N).

    Args:
        pixels: (B, 3, T, H, W). A proxy of motion that needs no labels; texture that moves counts, lighting too.
    """
    change = (pixels[:, :, 1:] - pixels[:, :, :-1]).abs().mean(dim=1)
    change = torch.cat([change[:, :1], change], dim=1)
    return F.adaptive_avg_pool3d(change, tuple(grid)).flatten(1)


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's r of each row, (B,); NaN where a row is constant: there is nothing to correlate with."""
    constant = (first == first[:, :1]).all(dim=1) | (second == second[:, :1]).all(dim=1)
    first = first - first.mean(dim=1, keepdim=True)
    second = second - second.mean(dim=1, keepdim=True)
    scale = (first.square().sum(dim=1) * second.square().sum(dim=1)).sqrt()
    found = (first * second).sum(dim=1) / scale.clamp(min=torch.finfo(scale.dtype).tiny)
    return torch.where(constant, torch.nan, found)


class Diagnostics:
    """Call `mask`, `policy` and `value` in the steps, `read` after the epoch, `reset` before the next.

    Args:
        every: calls of `policy` between two correlations, each of which costs a pass over the pixels.
    """

    def __init__(self, grid: TokenGrid, device: torch.device, every: int = 10):
        self.grid, self.device, self.every = TokenGrid(*grid), device, every
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._seen = torch.zeros(self.grid.num_tokens, dtype=torch.int64, device=self.device)
        self._overlap = torch.zeros(2, dtype=torch.int64, device=self.device)      # seen twice, compared
        self._correlation = torch.zeros(2, dtype=torch.float64, device=self.device)   # sum, clips
        self._value = torch.zeros(4, dtype=torch.float64, device=self.device)      # sums of 1, R, R^2, (R - psi)^2
        self._previous: Tensor | None = None
        self._clips = self._calls = 0

    def state(self) -> dict:
        """The sums so far, of this process, on the CPU: other processes get them, whose device is another one."""
        return {name: value.cpu() if isinstance(value, Tensor) else value
                for name, value in vars(self).items() if name.startswith("_")}

    def load(self, state: dict) -> None:
        """Go on from what `state` returned."""
        for name, value in state.items():
            setattr(self, name, value.to(self.device) if isinstance(value, Tensor) else value)

    def mask(self, mask: Tensor) -> None:
        """The mask that a micro-batch was trained with, bool (B, N), True = masked."""
        visible = ~mask
        self._seen += visible.sum(dim=0)
        self._clips += len(mask)
        if self._previous is not None and self._previous.shape == visible.shape:
            self._overlap += torch.stack([(visible & self._previous).sum(), visible.sum()])
        self._previous = visible

    def policy(self, log_pi: Tensor, pixels: Tensor | None) -> None:
        """log pi (B, N) and the frames it was made from, in [0, 1]; most calls return at once, see `every`. In a still
        image, and where there are no pixels, nothing moves that the policy could follow."""
        if pixels is None or pixels.shape[2] == 1:
            return
        if self._calls % self.every == 0:
            found = correlation(log_pi.exp().float(), frame_difference(pixels.float(), self.grid))
            # A policy that is not finite is in a skipped step; a uniform one and a still clip have no correlation.
            counted = found.isfinite()
            self._correlation += torch.stack([torch.where(counted, found, 0.0).sum(), counted.sum()])
        self._calls += 1

    def value(self, value: Tensor, reward: Tensor) -> None:
        """psi and L_R of each clip, both (B,)."""
        reward = reward.double()
        seen = torch.stack([torch.ones_like(reward), reward, reward.square(), (reward - value).square()])
        self._value += torch.where(seen.isfinite().all(dim=0), seen, 0.0).sum(1)

    def _totals(self, runtime: Runtime | None) -> dict[str, Tensor]:
        """Every sum by name, over all processes (their mean, which no ratio of two sums can tell from it)."""
        sums = {"clips": torch.tensor([self._clips], dtype=torch.float64, device=self.device), "overlap": self._overlap,
                "correlation": self._correlation, "value": self._value, "seen": self._seen}
        joined = torch.cat([values.double() for values in sums.values()])
        joined = (runtime.mean(joined) if runtime else joined).cpu()
        return dict(zip(sums, joined.split([len(values) for values in sums.values()]), strict=True))

    def read(self, runtime: Runtime | None = None) -> tuple[dict[str, float], Tensor]:
        """(numbers, coverage) of the epoch so far, over all processes (each of which must call).

        coverage: how often each token was visible, as a multiple of uniform, (T', H', W') on the CPU.
        Numbers: visible_tokens, a clip; visible_share, of all its tokens; coverage_frame_min/_max and
        coverage_place_min/_max, the same multiple by time slice and by place; mask_overlap, of a step's mask with that
        of the step before, other clips, as a multiple of chance: large when the policy looks at the same places
        whatever the clip; motion_correlation, of pi with the frame difference, over the clips in which something moves
        and pi is not uniform; value_explained_variance,
        1 - sum (R - psi)^2 / sum (R - mean R)^2 over the epoch's clips: below 0 the value network is worse than the
        mean; left out where the rewards hardly differ. What was not called is left out.
        """
        totals = self._totals(runtime)
        clips, seen = float(totals["clips"]), totals["seen"].view(*self.grid)
        if not clips:
            return {}, seen
        coverage = seen / seen.mean()
        numbers = {"visible_tokens": float(seen.sum()) / clips}
        numbers["visible_share"] = numbers["visible_tokens"] / self.grid.num_tokens
        for name, axes in (("frame", (1, 2)), ("place", (0,))):
            if float(seen.sum(dim=axes).mean()) >= FEWEST:
                shares = coverage.mean(dim=axes)
                numbers |= {f"coverage_{name}_min": float(shares.min()), f"coverage_{name}_max": float(shares.max())}
        seen_twice, compared = totals["overlap"].tolist()
        if compared:
            numbers["mask_overlap"] = seen_twice / compared / numbers["visible_share"]
        correlation_sum, correlated = totals["correlation"].tolist()
        if correlated:
            numbers["motion_correlation"] = correlation_sum / correlated
        count, reward, square, residual = totals["value"].tolist()
        variation = square - reward**2 / count if count else 0.0
        if variation > (LEAST_DEVIATION ** 2) * square:
            numbers["value_explained_variance"] = 1 - residual / variation
        return numbers, coverage
