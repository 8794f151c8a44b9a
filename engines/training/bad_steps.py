"""Steps whose numbers are not finite: the learners skip them; here they are reported and recorded, and end the run."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from ...datasets.files import json_text
from .health import CHECKED
from .learner import Learner

logger = logging.getLogger(__name__)


class NonFiniteError(ValueError):
    """Too many steps in a row were not finite; one line with the cause."""


class BadSteps:
    """Watches the learners of a run; every process sees the same, and raises at the same step.

    Args:
        learners: by name. Only those with an optimiser are watched.
        record: file for a JSON line a bad step, None on the processes that do not write.
        most: bad steps in a row of one learner that end the run.
        settings: of the run, for the record.
    """

    def __init__(self, learners: Mapping[str, Learner | None], record: Path | None, most: int, settings: dict):
        self.learners = {name: learner for name, learner in learners.items()
                         if learner is not None and learner.optimizer is not None}
        self.record, self.most, self.settings = record, most, settings
        self.reset()

    def reset(self) -> None:
        """Do not report again what was bad before now: after a resume, earlier steps have been reported already."""
        self._reported = {name: int(learner.health.total) for name, learner in self.learners.items()}

    def check(self, about: Callable[[str], dict]) -> None:
        """Ask the device once for all learners what has happened since the last check.

        Args:
            about: learner's name -> what the record says of its steps since then: epoch, last_step, rows; called when
                it is needed.

        Raises:
            NonFiniteError: `most` bad steps in a row.
        """
        if not self.learners:
            return
        asked = torch.stack([torch.cat([torch.stack([learner.health.in_a_row, learner.health.total]).double(),
                                        learner.health.causes.double()]) for learner in self.learners.values()])
        for (name, learner), (in_a_row, total, *causes) in zip(self.learners.items(), asked.tolist(), strict=True):
            new, self._reported[name] = int(total) - self._reported[name], int(total)
            if new:
                broken = [cause for cause, flag in zip(CHECKED, causes, strict=True) if flag]
                self._report(name, learner, broken, about(name) | {"skipped": new, "in_a_row": int(in_a_row)})

    def _report(self, name: str, learner: Learner, broken: list[str], about: dict) -> None:
        what = f"epoch {about['epoch']}, step {about['last_step']}: {' and '.join(broken)} of the {name} not finite"
        finding_scale = learner.scaler.is_enabled() and broken == ["gradient"]
        if not finding_scale:   # float16's scaler finds its scale by steps that overflow
            logger.warning("%s: the step is skipped, %d in a row%s", what, about["in_a_row"],
                           f"; see {self.record}" if self.record else "")
            self._write({"time": time.strftime("%F %T"), "network": name, "not_finite": broken} | about)
        if about["in_a_row"] >= self.most:
            raise NonFiniteError(f"{what}, {about['in_a_row']} steps in a row (--max_bad_steps {self.most}); no weight "
                                "was touched by them. Lower --lr, set --clip_grad 1, use --amp bf16 or fp32"
                                + (f", or look at the batches in {self.record}" if self.record else ""))

    def _write(self, entry: dict) -> None:
        if self.record is None:
            return
        entry |= {"statistics": {name: statistics(learner) for name, learner in self.learners.items()},
                  "settings": self.settings}
        try:
            with open(self.record, "a", encoding="utf-8") as file:
                file.write(json_text(entry, default=str) + "\n")
        except OSError as error:
            logger.warning("%s cannot be written: %s", self.record, error)


@torch.no_grad()
def statistics(learner: Learner) -> dict:
    """Size of the weights and of the optimiser's averages, with the tensors in which they are largest."""
    found = {"weights": _sizes(dict(learner.module.named_parameters())), "steps": learner.steps,
             "lr": max(group["lr"] for group in learner.optimizer.param_groups)}
    names = {id(parameter): name for name, parameter in learner.module.named_parameters()}
    for kind in ("exp_avg", "exp_avg_sq"):
        tensors = {names[id(parameter)]: state[kind] for parameter, state in learner.optimizer.state.items()
                   if kind in state}
        if tensors:
            found[kind] = _sizes(tensors)
    return found


def _sizes(tensors: Mapping[str, torch.Tensor]) -> dict:
    largest = {name: float(tensor.abs().max()) for name, tensor in tensors.items()}
    broken = [name for name, value in largest.items() if not math.isfinite(value)]
    order = sorted(largest.keys() - broken, key=largest.get, reverse=True)
    return {"not_finite": broken, "largest": {name: largest[name] for name in order[:5]}}
