"""What a line of log.txt says is going wrong with the masks, and what to try."""

from collections.abc import Iterator

from ..config.pretraining import SamplerConfig
from ..core.metrics import current_names

DATA_SHARE = 0.5        # of the time spent waiting for the loader
STILL = 1e-3            # policy_moved under which the policy stands still; runs that learn have 0.05 and more
UNIFORM = 0.999         # entropy's share of log N over which the policy draws as good as at random
SATURATED = 0.3         # clip fraction over which much of the gradient is thrown away
IDLE = 1e-4             # clip fraction under which the clip does nothing
RARE, OFTEN = 0.1, 4.0  # coverage of a frame or place, as a multiple of uniform
YOUNG = 3   # epochs of the policy in which "as good as uniform" is to be expected


def is_young(acted: int) -> bool:
    """Whether the policy has just begun to act. acted: epochs of it so far."""
    return acted <= YOUNG


def alerts(record: dict, config: SamplerConfig, fork: bool = False, young: bool = False) -> list[str]:
    """Messages for one line of log.txt, each with the number that trips it and what to try.

    Args:
        record: a line of log.txt; what it lacks is not judged. config: the flags of the run, resolved.
        fork: the loop is not ours: it has no coverage picture, and no numbers but those of `record`.
        young: the policy has just begun to act; that it is as good as uniform is then to be expected.
    """
    values = {name.removeprefix("train_"): value for name, value in current_names(record).items()}
    if young and values.get("entropy_share", 0.0) > UNIFORM:
        del values["entropy_share"]
    see = "see that train_explained_variance is above 0.1"
    if fork and "explained_variance" not in values:
        see = "see that the autoencoder has begun to reconstruct, and raise --mae_only_epochs if not"
    found = [*_policy(values, config, see, fork), *_ppo(values, config), *_masks(values, fork)]
    if values.get("data_share", 0.0) > DATA_SHARE:
        found.append(f"{values['data_share']:.0%} of the time goes into waiting for the loader: raise --num_workers "
                     "where cores are free, or shrink the videos (python -m tats.datasets.prepare_videos)")
    return found


def _policy(values: dict, config: SamplerConfig, see: str, fork: bool) -> Iterator[str]:
    if values.get("reward_std") == 0.0:
        paid = "error" if config.reward == "token" else f"reward (--reward {config.reward})"
        yield (f"no signal: all masked tokens of a clip have the same {paid}, so that nothing says which one to show; "
               + ("give learn(errors, known) the error of each token" if fork else see))
    effective, visible = values.get("effective_tokens"), values.get("visible_tokens")
    ppo = "ratio" in values    # AdaMAE's sampler has neither an entropy term nor a learning rate of its own
    if effective is not None and visible is not None and effective < visible:
        yield (f"entropy collapse: the policy spreads over {effective:.0f} tokens and {visible:.0f} are drawn, masks "
               "hardly vary; "
               + (_hold(config) if ppo else "lower --lr"))
    share, moved = values.get("entropy_share"), values.get("policy_moved")
    if share is not None and moved is not None and moved < STILL:
        yield (f"the policy stands still: {moved:.1e} of its probability moved in an epoch; "
               + (f"raise --sampler_lr ({config.sampler_lr:g}), and " if ppo else "") + see)
    elif share is not None and share > UNIFORM:
        yield (f"the policy is as good as uniform (its entropy is {share:.4f} of log N): masks are random; "
               + (_sharpen(config, fork and moved is None) if ppo else "") + see)


def _hold(config: SamplerConfig) -> str:
    """What keeps the entropy up, and is not so already."""
    if config.target_entropy is not None:
        return f"raise --target_entropy ({config.target_entropy:g})"
    return f"raise --entropy_coef ({config.entropy_coef:g}), or hold it with --target_entropy 0.9"


def _sharpen(config: SamplerConfig, unmeasured: bool) -> str:
    """What lets the policy leave the uniform one, and is not so already. unmeasured: nobody logs policy_moved."""
    other = "" if config.ppo_weighting == "policy" else " or use --ppo_weighting policy"
    which = "" if unmeasured else ", a higher one if train_policy_moved is below 0.01 and else a lower one"
    coef = (f"lower --target_entropy ({config.target_entropy:g})" if config.target_entropy is not None
            else f"lower --entropy_coef ({config.entropy_coef:g})")
    return f"{coef}{other}; try another --sampler_lr ({config.sampler_lr:g}){which}; "


def _ppo(values: dict, config: SamplerConfig) -> Iterator[str]:
    explained = values.get("value_explained_variance")
    # With adv_norm "clip" any baseline cancels, so what the value network says has no effect.
    if config.adv_norm != "clip" and explained is not None and explained < 0:
        yield (f"the value network is worse than the mean (it explains {explained:.2f} of the reward's variance): use "
               "--adv_norm clip, which does without it, or raise --value_coef and --sampler_lr")
    clipped = values.get("clip_fraction")
    passes = config.ppo_epochs * config.update_every
    # With one pass over one step the ratio is 1 by construction.
    if clipped is not None and passes > 1 and clipped < IDLE:
        yield (f"the clip is idle: {clipped:.1e} of the ratios leave 1 +- {config.clip_epsilon:g} in {passes} steps on "
               f"the same policy; raise --sampler_lr ({config.sampler_lr:g})"
               + (", or save time with --ppo_epochs 1" if config.ppo_epochs > 1 else ""))
    if clipped is not None and clipped > SATURATED:
        names = [name for name in ("ppo_epochs", "update_every") if getattr(config, name) > 1]
        yield (f"the clip is saturated: {clipped:.0%} of the ratios leave 1 +- {config.clip_epsilon:g}; lower "
               + " or ".join([f"--sampler_lr ({config.sampler_lr:g})", *(f"--{name}" for name in names)])
               + (", or use --ppo_ratio recorded" if config.ppo_ratio == "resampled" else ""))


def _masks(values: dict, fork: bool) -> Iterator[str]:
    # What is always visible is seen 1 / visible_share times as often as under uniform masks: a third of the way there.
    often = min(OFTEN, 1 + (1 / values.get("visible_share", 0.05) - 1) / 3)
    for kind in ("frame", "place"):
        low, high = (values.get(f"coverage_{kind}_{end}") for end in ("min", "max"))
        if low is not None and high is not None and not (low >= RARE and high <= often):
            yield (f"mask coverage is one-sided: a {kind} is seen {low:.2f} to {high:.2f} times as often as under "
                   "uniform masks; " + ("" if fork else "look at the coverage picture, and ")
                   + "raise --entropy_coef or --target_entropy")
