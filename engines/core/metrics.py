"""One table of the numbers of log.txt: which question each answers, what it says, what is good.

The names are those of log.txt without `train_`; numbers of a validation keep their `val_`.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

AUTOENCODER = "Does the autoencoder learn?"
POLICY = "Does the policy learn?"
PPO = "Is PPO healthy?"
MASKS = "What do the masks look like?"
CLASSIFIER = "Does the classifier learn?"
COST = "What does it cost?"
PREFIXES = ("train_", "val_")


@dataclass(frozen=True)
class Metric:
    """One number.

    Attributes:
        name: as in log.txt, without `train_`.
        question: the group that it belongs to: one of this module's, or one of the caller's own.
        meaning, good: one sentence each.
        old_names: what earlier versions called it.
        measure: `measure(outcome) -> Tensor ()`, where the number is nowhere logged yet: it is called after every
            micro-batch of pre-training with the `Outcome` (engines/pretrain/rewards.py), and log.txt gets its mean.
    """

    name: str
    question: str
    meaning: str
    good: str
    old_names: tuple[str, ...] = ()
    measure: Callable | None = None


def _of(question: str, *rows: tuple) -> list[Metric]:
    return [Metric(name, question, *rest) for name, *rest in rows]


METRICS: list[Metric] = [
    *_of(AUTOENCODER,
         ("loss", "The mean reconstruction error of the masked tokens.",
          "It falls; it depends on the masks, so compare strategies by fixed_error instead."),
         ("explained_variance", "The share of the variance of the masked tokens that the reconstruction explains.",
          "It rises; the policy needs more than 0.1 before it can learn from the errors.", ("explained",)),
         ("fixed_error", "The reconstruction error of fixed clips under fixed random masks.",
          "It falls in every run; no policy changes these masks, so compare runs by it."),
         ("grad_norm", "The norm of the autoencoder's gradient before clipping.",
          "It is finite and has no spikes."),
         ("lr", "The learning rate of the autoencoder.", "It follows the schedule: warm-up, then cosine.")),
    *_of(POLICY,
         ("entropy_share", "The entropy of the policy as a share of log N, N being the number of tokens.",
          "It falls from 1, the uniform policy, and settles well above 0."),
         ("motion_correlation", "The correlation of the policy's probabilities with the tokens' frame difference, "
          "over the clips in which something moves.",
          "It rises above 0 where motion is hard to reconstruct."),
         ("policy_moved", "The share of the policy's probability that moved on the fixed clips since the last epoch.",
          "It is 0.01 to 0.2 while the policy learns; below 0.001 the policy stands still."),
         ("effective_tokens", "The number of equally likely tokens that have the policy's entropy.",
          "It stays above visible_tokens; below it masks hardly vary."),
         ("reward", "The mean reward of the policy; it is the reconstruction error unless --reward says otherwise.",
          "It follows the loss where it is the reconstruction error."),
         ("reward_std", "The standard deviation of the reward over the masked tokens of a clip.",
          "It is clearly above 0: tokens of equal reward teach the policy nothing."),
         ("sampling_loss", "The loss of the policy.",
          "It is finite; its value says little, since the reward changes with the autoencoder."),
         ("sampler_grad_norm", "The norm of the policy's gradient.", "It is finite and above 0.")),
    *_of(PPO,
         ("clip_fraction", "The share of the probability ratios that leave 1 ± clip_epsilon.",
          "It is below 0.3; with several passes it is above 0, with one pass over one step it is 0."),
         ("approx_kl", "An estimate of the KL divergence from the old policy to the new one.",
          "It is below about 0.02; with one pass over one step it is 0."),
         ("value_explained_variance", "The share of the reward's variance that the value network explains.",
          "It rises towards 1; below 0 the mean reward is the better baseline. It has no effect with --adv_norm clip.",
          ("value_explained",)),
         ("ratio", "The mean probability ratio of the new policy to the old one at the masked tokens.",
          "It is close to 1."),
         ("ratio_min", "The smallest probability ratio of a batch, mean of the batches.",
          "It stays above 0; values far below 1 are clipped."),
         ("ratio_max", "The largest probability ratio of a batch, mean of the batches.",
          "It does not grow over the run; values far above 1 are clipped."),
         ("advantage", "The mean advantage over the masked tokens, each counted once.",
          "It is near 0, but falls below 0 with --adv_norm clip as the policy sharpens."),
         ("advantage_std", "The standard deviation of the advantage over the masked tokens.",
          "It is clearly above 0, and near 1 with a normalised advantage."),
         ("policy_objective", "The clipped objective of PPO, Eq. 8.",
          "It is near 0 or above; a large negative value is a fault."),
         ("value_loss", "The mean squared error of the value network.", "It falls."),
         ("entropy_coef", "The weight of the entropy in the loss of the policy, c3.",
          "It is constant, or settles with --target_entropy."),
         ("ppo_passes", "The number of passes over the buffer in each update of the policy.",
          "It is --ppo_epochs; it is smaller where --target_kl ended an update.")),
    *_of(MASKS,
         ("visible_tokens", "The number of tokens of a clip that the encoder sees.",
          "It is constant, and the same in runs that are compared."),
         ("mask_overlap", "The overlap of the masks of successive steps, as a multiple of chance.",
          "It is near 1; far above 1 the masks do not depend on the clip."),
         ("coverage_frame_min", "How often the rarest time slice is visible, as a multiple of uniform masks.",
          "It is above 0.1."),
         ("coverage_frame_max", "How often the most frequent time slice is visible, as a multiple of uniform masks.",
          "It is below about 4."),
         ("coverage_place_min", "How often the rarest place in the frame is visible, as a multiple of uniform masks.",
          "It is above 0.1."),
         ("coverage_place_max", "How often the most frequent place in the frame is visible, as a multiple of uniform "
          "masks.", "It is below about 4."),
         ("visible_share", "The share of a clip's tokens that the encoder sees.", "It is 1 less the mask ratio.")),
    *_of(CLASSIFIER,
         ("val_acc1", "The top-1 accuracy in validation, in percent.", "It rises; its best epoch is val_best_acc1."),
         ("loss", "The loss of the training clips, with mixup and label smoothing where they are on.", "It falls."),
         ("val_loss", "The cross-entropy of the validation clips.",
          "It falls; while it rises and the training loss falls, the classifier overfits."),
         ("class_acc", "The share of training clips whose class is right; with mixup the class of the larger weight.",
          "It rises; with mixup it stays far below the validation's."),
         ("val_acc5", "The top-5 accuracy in validation, in percent.", "It rises."),
         ("val_best_acc1", "The best top-1 accuracy in validation up to this epoch, in percent.", "It still rises."),
         ("val_ema_acc1", "The top-1 accuracy in validation of the moving average of the weights, in percent.",
          "It rises, and passes val_acc1 late in the run."),
         ("val_ema_acc5", "The top-5 accuracy in validation of the moving average, in percent.", "It rises."),
         ("val_ema_loss", "The cross-entropy of the validation clips for the moving average.", "It falls."),
         ("val_unreadable", "The number of validation videos that cannot be read; they count as wrong.", "It is 0."),
         ("val_ema_unreadable", "The same in the validation of the moving average.", "It is 0."),
         ("grad_norm", "The norm of the classifier's gradient before clipping.",
          "It is finite and has no spikes."),
         ("lr", "The largest learning rate of all layers.", "It follows the schedule: warm-up, then cosine.")),
    *_of(COST,
         ("seconds", "The wall-clock time of the epoch in seconds.",
          "It is constant; the first epoch may take longer."),
         ("data_share", "The share of the time that is spent waiting for the loader.",
          "It is near 0; above 0.5 the device starves, and more --num_workers help."),
         ("peak_memory_gb", "The largest memory in use on the GPU up to this epoch, in GiB.",
          "It is constant after the first epochs, and below the GPU's memory."),
         ("step", "The number of optimiser steps up to the end of the epoch.",
          "It grows by the same number each epoch."),
         ("epoch", "The number of the epoch, from 0.", "It grows by 1 from line to line.")),
]


def register_metric(metric: Metric) -> None:
    """Add a number of one's own, e.g. in a module that --plugin names; it appears in the report under its question.

    Raises:
        ValueError: the table already has another metric of this name and question, or an old name is taken.
    """
    if metric in METRICS:
        return
    taken = {name: known for known in METRICS for name in (known.name, *known.old_names)}
    if any((known.name, known.question) == (metric.name, metric.question) for known in METRICS):
        raise ValueError(f"there is already a metric {metric.name!r} under {metric.question!r}: take another name")
    for name in metric.old_names:
        if name in taken:
            raise ValueError(f"old name {name!r} of the metric {metric.name!r} already belongs to {taken[name].name!r}")
    METRICS.append(metric)


def measuring() -> list[Metric]:
    """The metrics that are to be measured after every micro-batch."""
    return [metric for metric in METRICS if metric.measure is not None]


def without_prefix(name: str) -> str:
    """The name in the table of a number of log.txt: without `train_`, and spelt as today."""
    return current_name(name).removeprefix("train_")


def current_name(name: str) -> str:
    """Today's spelling of a name, with or without `train_` or `val_`; the name itself where nothing older is known."""
    prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), "")
    bare = name.removeprefix(prefix)
    return next((prefix + metric.name for metric in METRICS if bare in metric.old_names), name)


def current_names(record: dict) -> dict:
    """A line of log.txt under today's names. Where it holds a number under several of its names, all stay."""
    today = {name: current_name(name) for name in record}
    given = Counter(today.values())
    return {today[name] if given[today[name]] == 1 else name: value for name, value in record.items()}


def questions() -> list[str]:
    """All questions in the order of the table, those of registered metrics last."""
    return list(dict.fromkeys(metric.question for metric in METRICS))


def find_metric(name: str, fine_tuning: bool = False) -> Metric | None:
    """The metric of a name of log.txt, old or new; None for numbers that the table does not know.

    Args:
        fine_tuning: the log is one of fine-tuning, where `loss`, `grad_norm` and `lr` are the classifier's.
    """
    found = [metric for metric in METRICS if metric.name == without_prefix(name)]
    fits = [metric for metric in found if (metric.question == CLASSIFIER) == fine_tuning]
    return next(iter(fits or found), None)


def metrics_markdown() -> str:
    """The table by question, in Markdown."""
    return "\n".join(_markdown())


def _markdown() -> Iterator[str]:
    from tabulate import tabulate

    for question in questions():
        yield f"### {question}\n"
        rows = [(f"`{metric.name}`" + "".join(f" (before: `{name}`)" for name in metric.old_names), metric.meaning,
                 metric.good) for metric in METRICS if metric.question == question]
        yield tabulate(rows, ("number", "what it says", "what is good"), "github", disable_numparse=True) + "\n"
