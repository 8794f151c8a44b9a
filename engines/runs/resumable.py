"""A run that can be ended at any optimiser step and goes on from there; what pre-training and fine-tuning share."""

import errno
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sized
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...datasets.files import write_whole
from ...datasets.lists.epoch_order import EpochSampler
from ...datasets.lists.list_file import ClipList
from ..config.common import RunConfig
from ..core import checkpointing, runtime
from ..core.identity import identity_of
from ..core.interrupts import Interrupts, Stopped
from ..core.meters import Meters
from ..training.bad_steps import BadSteps
from ..training.learner import Learner
from .between_steps import BetweenSteps
from .saved_state import save_share

logger = logging.getLogger(__name__)

CHECK_EVERY = 10   # steps between two checks on a GPU, each of which waits for it; asking the CPU costs nothing


class Resumable(ABC):
    """The place of a run in its data, its checkpoints, its signals and its bad steps.

    A subclass calls `set_up` when it is built, gives `state` and `restore`, and takes its epoch's batches from
    `between_steps`.

    Attributes:
        epoch: from 0. position: rows of the list that all processes have taken in it, 0 between two epochs.
        unsaved: whether the last attempt to write a checkpoint failed.
        source: what is known of the file that it began with, see `lineage.source_of`; to be set before `set_up`.
        rng: the random state that a checkpoint gets; None: that of the moment. Within a validation, which is made again
            when the run goes on, it is that of before.
        changes: what --change has altered in the run's life, one entry each.
        memory: steps that learners other than the first look back on.
        clips_a_row: clips of a batch, as --batch_size counts them, that one row of the list gives.
        begun: when the epoch began by this clock, less what earlier processes took for it; earlier: that, until it is
            counted.
        carries: whether `own_share` is needed between two epochs, too.
    """

    memory, carries, clips_a_row = 1, False, 1

    def __init__(self, run: RunConfig, here: runtime.Runtime, saves: bool = True):
        self.flags, self.runtime = run, here
        self.folder = Path(run.output_dir) if run.output_dir else None
        self.saves = saves and self.folder is not None
        self.interrupts, self.meters = Interrupts(here), Meters(here.device)
        self.epoch, self.position, self.unsaved = run.start_epoch, 0, False
        self._checked = self._evaluations = 0
        self.begun = self.earlier = 0.0
        self.learners: dict[str, Learner] = {}
        self.source, self.rng, self.changes, self._saved_at = None, None, [], time.monotonic()

    def set_up(self, learners: Mapping[str, Learner | None], lists: Mapping[str, ClipList], order: EpochSampler,
               settings: Any) -> None:
        """Say what the run consists of.

        Args:
            learners: by name, the one that steps in every step first. lists: "train", whose order is `order`, and
                those that are evaluated. settings: of the program.
        """
        if self.flags.start_epoch >= settings.optim.epochs:
            raise ValueError(f"--start_epoch {self.flags.start_epoch} with --epochs {settings.optim.epochs}: nothing "
                             "is left to train")
        self.learners = {name: learner for name, learner in learners.items() if learner is not None}
        self.main = next(iter(self.learners.values()))
        self.clips, self.clip_order = lists["train"], order
        clips_a_step = settings.optim.clips_a_step(self.runtime.world_size)
        self.rows_a_step = clips_a_step // self.clips_a_row
        self.steps_per_epoch = order.end // self.rows_a_step
        self.all_settings = settings
        self.identity = identity_of(settings, lists, (self.source or {}).get("sha256"), clips_a_step)
        record = self.folder / "bad_steps.jsonl" if self.folder and self.runtime.is_main else None
        self.bad_steps = BadSteps(self.learners, record, self.flags.max_bad_steps, asdict(settings))

    def close(self) -> None:
        """Leave the other processes; the learners can only be looked at from now on."""
        runtime.stop(self.runtime, self.learners.values())

    @property
    def dtype(self) -> str:
        """In which the networks compute: what --amp auto has become here."""
        return str(self.main.precision.dtype).removeprefix("torch.")

    @abstractmethod
    def state(self, name: str) -> dict:
        """What the subclass needs to go on, plain values and tensors only; every process must call.

        name: of the checkpoint, for what does not fit into one file.
        """

    @abstractmethod
    def restore(self, state: dict, source: Path) -> None:
        """Put back what `state` returned.

        Raises:
            ValueError: it belongs to another network.
        """

    def between_steps(self, loader: Sized, update_freq: int) -> BetweenSteps:
        """This epoch's batches, from where the run stands."""
        self.clip_order.set_epoch(self.epoch)
        self.clip_order.start(min(self.position, self.clip_order.length))
        self._checked = self.position
        return BetweenSteps(loader, update_freq, self.after_step)

    def after_step(self) -> None:
        """Check for bad steps; save and end where it is time to.

        Raises:
            Stopped: a signal came and the run has been saved. NonFiniteError: too many bad steps in a row.
        """
        self.position += self.rows_a_step
        every, steps = self.flags.save_every_steps, self.main.steps
        due = every > 0 and steps % every == 0
        if not due and self.runtime.device.type == "cuda" and steps % CHECK_EVERY:
            return
        self.check_steps()
        due = due or self._minutes_are_over()
        if due:
            self.save(whole=False)
        self.look_for_signals(saved=due)

    def _minutes_are_over(self) -> bool:
        """Whether --save_every_minutes have passed for one of the processes."""
        minutes = self.flags.save_every_minutes
        return minutes > 0 and self.runtime.any(time.monotonic() - self._saved_at >= 60 * minutes)

    def look_for_signals(self, saved: bool = False) -> None:
        """Save and end where a signal asks for it; every process must call.

        saved: the checkpoint that it would write is there.

        Raises:
            Stopped: it has been saved.
        """
        if (asked := self.interrupts.agreed()) is not None:
            if not saved:
                self.save(whole=False)
            self.stop(asked)

    def between_evaluations(self) -> None:
        """End a validation, of whose epoch all steps are saved then, or a test, before which all is saved already."""
        self._evaluations += 1
        if self.runtime.device.type != "cuda" or self._evaluations % CHECK_EVERY == 0:
            self.look_for_signals(saved=self.position == 0)

    def stop(self, signal_name: str) -> None:
        """End on a signal, after saving.

        Raises:
            Stopped: always, but for OSError: the checkpoint could not be written.
        """
        self.must_be_saved()
        place = f"epoch {self.epoch}, after step {self.main.steps}"
        if self.folder is not None and self.runtime.is_main:
            write_whole(self.folder / "stopped", f"{signal_name} in {place}\n")
        command = "the same command" + ("" if self.flags.auto_resume else " without --auto_resume false")
        raise Stopped(f"{signal_name}: ended in {place}; " + (
            f"{command} goes on from there" if self.saves else "nothing was saved, as the flags say"),
            130 if signal_name == "SIGINT" else 0)

    def check_steps(self) -> None:
        """Report bad steps since the last check."""
        self.bad_steps.check(self._taken)
        self._checked = self.position

    def _taken(self, name: str) -> dict:
        """What the learner `name` may have learned from since the last check."""
        start = self._checked
        if self.learners[name] is not self.main:
            start = max(0, min(start, self.position - self.memory * self.rows_a_step))
        rows = self.clip_order.rows(start, self.position)
        return {"epoch": self.epoch, "last_step": self.main.steps, "rows": rows,
                "videos": [str(self.clips.paths[row]) for row in rows]}

    def save(self, whole: bool = True) -> None:
        """Write the checkpoint of the epoch just finished, or of this step; only rank 0 writes, every rank must call.

        A full disk does not end the run: it warns, and the next epoch's end or step checkpoint tries again.
        """
        if not self.saves:
            return
        self.keep_folder()
        name = checkpointing.name_of(self.epoch, None if whole else self.main.steps)
        position = 0 if whole else self.position
        progress = {"meters": self.meters.state(), "seconds": time.time() - self.begun, **self.progress()} if position \
            else {}
        if position or self.carries:
            progress |= save_share(self.own_share(), self.folder, name, self.runtime)
        state = self.state(name) | {
            "identity": self.identity.record(), "source": self.source, "changes": self.changes,
            "epoch": self.epoch, "step": self.main.steps, "position": position,
            "steps_per_epoch": self.steps_per_epoch, "dtype": self.dtype,
            "rng": self.runtime.gather_objects(self.rng or runtime.rng_state()),
            "progress": self.runtime.gather_objects(progress)}
        failed = False
        if self.runtime.is_main:
            try:
                checkpointing.save_atomically(state, self.folder / f"{name}.pth")
            except OSError as error:
                failed = True
                logger.warning("%s cannot be written (%s); the run goes on with the checkpoint from before, and "
                               "tries again at the next one", self.folder / f"{name}.pth", error.strerror or error)
            else:
                try:
                    checkpointing.thin_out(self.folder, self.flags.keep_last, self.flags.keep_every)
                except OSError as error:   # the new checkpoint is there
                    logger.warning("an old checkpoint cannot be deleted: %s", error)
        self._last = self.folder / f"{name}.pth"
        self.unsaved, self._saved_at = self.runtime.any(failed), time.monotonic()

    def must_be_saved(self) -> None:
        """Raises OSError: the last attempt to save failed, and there is no next one."""
        if self.unsaved:
            raise OSError(errno.ENOSPC, "the last checkpoint cannot be written: make room and run the same command "
                                        "again", str(self._last))

    def keep_folder(self) -> None:   # noqa: B027 (a run that only tests keeps none)
        """Make the output folder whole again where it has been deleted; every process must call."""

    def progress(self) -> dict:
        """What of an unfinished epoch this process alone knows, beside the meters."""
        return {}

    def own_share(self) -> dict:
        """What else of it is too large to be gathered: of several processes each keeps it in a file of its own."""
        return {}

    def restore_progress(self, state: dict) -> None:   # noqa: B027 (few have any)
        """Put back what `progress` and `own_share` returned."""

    def restore_carried(self, state: dict) -> None:   # noqa: B027 (few have any)
        """Put back what `own_share` returned between two epochs, where the run `carries` it."""
