"""What the policy is paid for: one table, whose names `--reward` takes. Everything that needs a reward reads it here.

B: clips, M: masked tokens of a clip.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from ..config.pretraining import SamplerConfig
from ..training.batches import ClipBatch


class Outcome(NamedTuple):
    """What the autoencoder made of a mask; nothing of it is attached to a graph.

    errors: L_R of each masked token, float32 (B, M). masked: I_m, int64 (B, M), ascending. batch: the clips.
    log_pi: of the policy that drew the mask, float32 (B, N); None for masks of the loader.
    """

    errors: Tensor
    masked: Tensor
    batch: ClipBatch
    log_pi: Tensor | None = None


class Reward(NamedTuple):
    """One row of the table.

    of: `of(outcome) -> Tensor`, (B, M), a number a masked token, or (B, 1), a number a clip. per_token: which of them.
    """

    of: Callable[[Outcome], Tensor]
    per_token: bool = True


REWARDS: dict[str, Reward] = {
    "token": Reward(lambda outcome: outcome.errors),
    "clip": Reward(lambda outcome: outcome.errors.mean(dim=-1, keepdim=True), per_token=False),   # Eq. 6 as printed
}


def register_reward(name: str, of: Callable[[Outcome], Tensor], per_token: bool = True) -> Reward:
    """Add a reward to the table under `name`; `--reward` then takes it.

    Raises:
        ValueError: the name is taken.
    """
    if name in REWARDS:
        raise ValueError(f"reward {name!r} is taken; the table holds {', '.join(sorted(REWARDS))}")
    REWARDS[name] = Reward(of, per_token)
    return REWARDS[name]


def reward_of(config: SamplerConfig) -> Reward:
    """The row that `--reward` names.

    Raises:
        ValueError: there is none, or the advantage takes away all that it says.
    """
    if config.reward not in REWARDS:
        raise ValueError(f"unknown reward {config.reward!r}: use one of {', '.join(sorted(REWARDS))}, or bring the "
                         "module that registers it in with --plugin MODULE")
    reward = REWARDS[config.reward]
    if not reward.per_token and config.adv_norm == "clip":
        raise ValueError(f"--reward {config.reward} with --adv_norm clip leaves no advantage: one reward a clip, "
                         "centred in the clip, is 0; use --adv_norm batch or none")
    return reward
