"""The table of masking strategies. `--mask_type` offers its keys, the tests of the contract run over its rows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from .adamae import AdaMAESampler
from .fixed import FrameMasking, RandomMasking, TubeMasking
from .sampler import TokenSampler
from .tats import TATS


@dataclass(frozen=True)
class Masking:
    """One strategy, in its two moments.

    per_clip: `per_clip(grid, mask_ratio, visible=None)` builds a callable, `() -> bool (N,)`, that is called once a
        clip in the loader's worker and says in `num_visible` how many tokens it shows. A learned strategy has one too:
        Algorithm 1 masks at random up to epoch m_o.
    sampler: `sampler(grid, embed_dim, mask_ratio=..., visible=...)` builds a `TokenSampler`, which runs on the device.
        None: the loader's mask is used.
    learner: how the sampler is trained: "ppo" (Algorithm 1), "reinforce" (AdaMAE), None (it has nothing to learn).
    flags: further keyword arguments of the sampler, each with the flag of `SamplerConfig` that gives its value.
    """

    per_clip: Callable[..., Callable[[], Tensor]]
    sampler: Callable[..., TokenSampler] | None = None
    learner: str | None = None
    flags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self):
        if self.learner not in (None, "ppo", "reinforce"):
            raise ValueError(f"learner must be None, 'ppo' or 'reinforce', got {self.learner!r}")
        if self.learner and self.sampler is None:
            raise ValueError(f"learner {self.learner!r} needs a sampler")


MASKINGS: dict[str, Masking] = {
    "random": Masking(RandomMasking),
    "tube": Masking(TubeMasking),
    "frame": Masking(FrameMasking),
    "adamae": Masking(RandomMasking, sampler=AdaMAESampler, learner="reinforce"),
    "tats": Masking(RandomMasking, sampler=TATS, learner="ppo", flags={
        "depth": "tats_depth", "attention": "tats_attention", "num_heads": "tats_heads", "approx": "tats_approx",
        "num_landmarks": "num_landmarks", "project_values": "tats_project_values", "head_init": "policy_head_init",
        "softmax_temp": "softmax_temp", "merge": "tats_merge", "block": "tats_block"}),
}

ALIASES = {"learnable": "adamae"}  # AdaMAE's own name for its strategy


def register_masking(name: str, row: Masking) -> Masking:
    """Add a strategy to the table under `name`; every program then offers it.

    Raises:
        ValueError: the name is taken.
    """
    if name in MASKINGS or name in ALIASES:
        raise ValueError(f"masking {name!r} is taken; the table holds {', '.join(sorted(MASKINGS))}")
    MASKINGS[name] = row
    return row


def find_masking(name: str) -> Masking:
    """The row called `name` (or its alias).

    Raises:
        ValueError: there is none; the known names are listed.
    """
    try:
        return MASKINGS[ALIASES.get(name, name)]
    except KeyError:
        raise ValueError(f"unknown mask_type {name!r}; choose one of {', '.join(sorted(MASKINGS))}, or bring "
                         "the module that registers it in with --plugin MODULE") from None
