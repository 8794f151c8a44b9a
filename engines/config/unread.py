"""Flags of the policy that a run takes no notice of: named where somebody has given them on the command line.

They are accepted all the same, so that two runs may differ by --mask_type alone.
"""

from collections.abc import Collection, Iterator
from dataclasses import fields

from ...masking import MASKINGS, Masking
from .pretraining import SamplerConfig

OF_A_REWARD = frozenset({"reward", "reward_reach"})
OF_ITS_RATE = frozenset({"sampler_lr", "sampler_lr_final", "sampler_warmup_epochs"})


def unread_flags(row: Masking, own_rate: bool = False) -> set[str]:
    """Names of the flags of `SamplerConfig` that a strategy takes no notice of.

    Args:
        own_rate: a sampler that REINFORCE trains has --sampler_lr; False: it takes the autoencoder's.
    """
    names = {item.name for item in fields(SamplerConfig)}
    if row.learner == "ppo":
        return {flag for one in MASKINGS.values() for flag in one.flags.values()} - set(row.flags.values())
    read = {*row.flags.values(), "trajectory_kernel"}   # the kernel is refused where there is nothing to compute
    if row.learner == "reinforce":
        read |= OF_A_REWARD | (OF_ITS_RATE if own_rate else frozenset())
    return names - read


def remarks_on(row: Masking, name: str, config: SamplerConfig, given: Collection[str]) -> Iterator[str]:
    """A line for each reason why flags have no effect.

    Args:
        name: of the strategy, as --mask_type has it. config: resolved. given: names of the flags on the command line.
    """
    if unread := sorted(unread_flags(row) & set(given)):
        yield f"--mask_type {name} takes no notice of {_written(unread)}"
    if "tats_attention" in row.flags.values() and config.tats_attention != "trajectory":
        if idle := sorted({"tats_approx", "tats_project_values", "num_landmarks"} & set(given)):
            yield f"--tats_attention {config.tats_attention} takes no notice of {_written(idle)}"
    elif "num_landmarks" in set(row.flags.values()) & set(given) and config.tats_approx != "orthoformer":
        yield "exact trajectory attention takes no notice of --num_landmarks: it is of --tats_approx orthoformer"
    if row.learner == "ppo" and "flush_buffer" in given and config.update_every == 1:
        yield "--flush_buffer has no effect: with --update_every 1 nothing is left in the buffer at an epoch's end"


def _written(names: list[str]) -> str:
    return ", ".join(f"--{name}" for name in names)
