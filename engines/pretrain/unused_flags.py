"""Flags of the policy that were given: those that count, those that change nothing in this run, and those with which it
never acts or learns."""

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


def idle_policy(config: SamplerConfig, epochs: int, steps: int) -> str | None:
    """What to say where the policy will not act, not learn, or less often than the flags read; steps: of an epoch."""
    first = config.mae_only_epochs
    acting = epochs - first
    if config.random_share == 1 and config.random_share_final in (None, 1):
        return "the policy never chooses a mask: --random_share 1 gives a random one to every clip"
    if acting <= 0:
        return f"the policy never acts: all {epochs} epochs have random masks (--mae_only_epochs {first})"
    if config.update_every <= steps:
        return None
    if config.flush_buffer:
        return (f"--update_every {config.update_every} is more than the {steps} steps of an epoch: the policy is "
                "updated once, at the end of each")
    if config.update_every > acting * steps:
        return (f"the policy never learns: with --no_flush_buffer its first update is after --update_every "
                f"{config.update_every} steps, and it acts in {acting * steps} ({acting} epochs of {steps}). Lower "
                "--update_every")
    return (f"--update_every {config.update_every} is more than the {steps} steps of an epoch: with --no_flush_buffer "
            "there are epochs in which the policy is not updated")


def _given(config: SamplerConfig) -> list[str]:
    """Names of the flags with another value than the recipe's."""
    usual = resolve_recipe(SamplerConfig(tats_recipe=config.tats_recipe))
    return [item.name for item in fields(config) if getattr(config, item.name) != getattr(usual, item.name)]


def _words(value: object) -> str:
    """As on a command line."""
    if isinstance(value, list | tuple):
        return " ".join(map(_words, value))
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
