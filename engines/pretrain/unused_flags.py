"""Flags of the policy that were given: those that count, and those that change nothing in this run."""

from collections.abc import Collection
from dataclasses import fields

from ...masking import Masking
from ..config.pretraining import SamplerConfig, resolve_recipe

TRAJECTORY = {"tats_attention": "trajectory"}
NEEDS = {"tats_approx": TRAJECTORY, "tats_project_values": TRAJECTORY,
         "num_landmarks": TRAJECTORY | {"tats_approx": "orthoformer"}}


def unused_flags(row: Masking, config: SamplerConfig, also_read: Collection[str] = ()) -> list[str]:
    """Names of the flags that have another value than the recipe's and that nothing reads.

    Args:
        row: of the strategy. config: resolved. also_read: what this caller reads whatever the strategy.
    """
    given = _given(config)
    if row.learner == "ppo":
        return [name for name in given if any(getattr(config, needed) != value
                                              for needed, value in NEEDS.get(name, {}).items())]
    if config.tats_recipe != SamplerConfig().tats_recipe:
        given.insert(0, "tats_recipe")
    read = {*row.flags.values(), *also_read}
    if row.sampler is not None:
        read.add("trajectory_kernel")
    if row.learner == "reinforce":
        read |= {"reward", "reward_reach"}
    return [name for name in given if name not in read]


def policy_in_words(row: Masking, config: SamplerConfig) -> str:
    """How the policy of a learned strategy is trained, with the flags that differ from the recipe's and count."""
    how = f"--tats_recipe {config.tats_recipe}" if row.learner == "ppo" else row.learner or "nothing to learn"
    unused = unused_flags(row, config)
    return ", ".join([how, *(f"--{name} {_words(getattr(config, name))}" for name in _given(config)
                             if name not in unused)])


def _given(config: SamplerConfig) -> list[str]:
    """Names of the flags with another value than the recipe's."""
    usual = resolve_recipe(SamplerConfig(tats_recipe=config.tats_recipe))
    return [item.name for item in fields(config) if getattr(config, item.name) != getattr(usual, item.name)]


def _words(value: object) -> str:
    """As on a command line."""
    if isinstance(value, list | tuple):
        return " ".join(map(_words, value))
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
