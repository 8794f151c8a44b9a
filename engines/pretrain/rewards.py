"""What the policy is paid for: one table, whose names `--reward` takes. Everything that needs a reward reads it here.

B: clips, M: masked tokens of a clip.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from ...masking.grid import TokenGrid
from ..config.pretraining import SamplerConfig
from .learnable import lasting, learnable
from .nearness import Around
from .outcome import Outcome
from .progress import Progress
from .telling import telling
from .users_code import blaming, checked_reward, unchanged


class Reward(NamedTuple):
    """One row of the table.

    of: `of(outcome) -> Tensor`, (B, M), a number a masked token, or (B, 1), a number a clip. per_token: which of them.
    looks_again: it runs the model once more (`outcome.again`), which only our own training loop can offer.
    remembers: `of` is a class without arguments; a run has an object of it, with `state()` and `load(state)` for its
        checkpoints. name: in the table. around: averages the rewards of a clip's tokens over their neighbourhoods;
        None: each token has its own.
    """

    of: Callable[[Outcome], Tensor]
    per_token: bool = True
    looks_again: bool = False
    remembers: bool = False
    name: str = ""
    around: Around | None = None

    def begin(self) -> "Reward":
        """The row for one run: with an object of its own, where it remembers. Raises ValueError: there is none."""
        if not self.remembers:
            return self
        with blaming(f"the reward {self.name!r}, made without arguments,", self.of):
            return self._replace(of=self.of())

    def pay(self, outcome: Outcome) -> Tensor:
        """`of(outcome)`, averaged `around`. Raises ValueError: it raises, is not of the promised shape and type, or
        changes what it reads."""
        what = f"the reward {self.name!r}"
        with unchanged(what, self.of, outcome), blaming(what, self.of):
            reward = self.of(outcome)
        reward = checked_reward(self.name, reward, outcome, self.per_token)
        return reward if self.around is None else self.around(reward, outcome.masked)

    def state(self) -> dict | None:
        """What a run's checkpoint keeps of it; None where it keeps nothing."""
        return self.of.state() if self.remembers else None

    def load(self, state: dict | None) -> None:
        """Go on from what `state` returned."""
        if self.remembers:
            self.of.load(state)


def of_token(outcome: Outcome) -> Tensor:
    """E_i, each masked token's own error."""
    return outcome.errors


def of_clip(outcome: Outcome) -> Tensor:
    """L_R, the clip's mean error: Eq. 6 as printed."""
    return outcome.errors.mean(dim=-1, keepdim=True)


def of_easy_token(outcome: Outcome) -> Tensor:
    """-E_i: what is easy is shown, and what is hard is to be foreseen. The paper's policy does the opposite."""
    return -outcome.errors


REWARDS: dict[str, Reward] = {
    "token": Reward(of_token, name="token"),
    "clip": Reward(of_clip, per_token=False, name="clip"),
    "easy": Reward(of_easy_token, name="easy"),
    "lasting": Reward(lasting, looks_again=True, name="lasting"),
    "learnable": Reward(learnable, looks_again=True, name="learnable"),
    "progress": Reward(Progress, looks_again=True, remembers=True, name="progress"),
    "telling": Reward(telling, looks_again=True, name="telling"),
}


def register_reward(name: str, of: Callable[[Outcome], Tensor], per_token: bool = True, *, looks_again: bool = False,
                    remembers: bool = False) -> Reward:
    """Add a reward to the table under `name`; `--reward` then takes it. Arguments as the fields of `Reward`.

    Raises:
        ValueError: the name is taken.
    """
    if name in REWARDS:
        raise ValueError(f"reward {name!r} is taken; the table holds {', '.join(sorted(REWARDS))}")
    REWARDS[name] = Reward(of, per_token, looks_again, remembers, name)
    return REWARDS[name]


def reward_of(config: SamplerConfig, grid: TokenGrid | None = None) -> Reward:
    """The row that `--reward` names, for one run.

    Args:
        grid: of the run's tokens, over which `--reward_reach` averages; None: look at the flags alone.

    Raises:
        ValueError: there is none, the advantage takes away all that it says, or it has nothing to average.
    """
    if config.reward not in REWARDS:
        raise ValueError(f"unknown reward {config.reward!r}: use one of {', '.join(sorted(REWARDS))}, or bring the "
                         "module that registers it in with --plugin MODULE")
    reward = REWARDS[config.reward]
    if not reward.per_token and config.adv_norm == "clip":
        raise ValueError(f"--reward {config.reward} with --adv_norm clip leaves no advantage: one reward a clip, "
                         "centred in the clip, is 0; use --adv_norm batch or none")
    if config.reward_reach and not reward.per_token:
        raise ValueError(f"--reward_reach averages the rewards of neighbouring tokens, and --reward {config.reward} "
                         "has one for the whole clip: leave one of them out")
    if config.reward_reach and grid is not None:
        reward = reward._replace(around=Around(grid, config.reward_reach))
    return reward.begin()
