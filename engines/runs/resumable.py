"""A run that can be ended at any optimiser step and goes on from there; what pre-training and fine-tuning share."""

import errno
import logging
from collections.abc import Iterator, Mapping, Sequence, Sized
from pathlib import Path

from ...datasets.lists.epoch_order import EpochSampler
from ...datasets.lists.list_file import ClipList
from ..config.common import RunConfig
from ..core import checkpointing, runtime
from ..core.interrupts import Interrupts, Stopped
from ..core.meters import Meters
from ..training.bad_steps import BadSteps
from ..training.learner import Learner

logger = logging.getLogger(__name__)

CHECK_EVERY = 10   # steps between two checks on a GPU, each of which waits for it; asking the CPU costs nothing


class Resumable:
    """The place of a run in its data, its checkpoints, its signals and its bad steps.

    A subclass calls `set_up` when it is built, gives `state` and `restore`, and takes its epoch's batches from
    `between_steps`.

    Attributes:
        epoch: from 0. position: rows of the list that all processes have taken in it, 0 between two epochs.
        unsaved: whether the last attempt to write a checkpoint failed.
        memory: steps that learners other than the first look back on.
    """

    memory = 1

    def __init__(self, run: RunConfig, here: runtime.Runtime, saves: bool = True):
        self.flags, self.runtime = run, here
        self.folder = Path(run.output_dir) if run.output_dir else None
        self.saves = saves and self.folder is not None
        self.interrupts, self.meters = Interrupts(here), Meters(here.device)
        self.epoch, self.position, self._checked, self.unsaved = run.start_epoch, 0, 0, False
        self.learners: dict[str, Learner] = {}

    def set_up(self, learners: Mapping[str, Learner | None], clips: ClipList, order: EpochSampler, clips_a_step: int,
               settings: dict) -> None:
        """Say what the run consists of.

        Args:
            learners: by name, the one that steps in every step first. clips, order: the training list and its order.
            clips_a_step: rows that all processes take in a step. settings: for the record of bad steps.
        """
        self.learners = {name: learner for name, learner in learners.items() if learner is not None}
        self.main = next(iter(self.learners.values()))
        self.clips, self.clip_order, self.clips_a_step = clips, order, clips_a_step
        self.steps_per_epoch = order.end // clips_a_step
        record = self.folder / "bad_steps.jsonl" if self.folder and self.runtime.is_main else None
        self.bad_steps = BadSteps(self.learners, record, self.flags.max_bad_steps, settings)

    def close(self) -> None:
        """Leave the other processes; the learners can only be looked at from now on."""
        runtime.stop(self.runtime, self.learners.values())

    def state(self, name: str) -> dict:
        """What the subclass needs to go on, plain values and tensors only; every process must call.

        name: of the checkpoint, for what does not fit into one file.
        """
        raise NotImplementedError

    def restore(self, state: dict, source: Path) -> None:
        """Put back what `state` returned.

        Raises:
            ValueError: it belongs to another network.
        """
        raise NotImplementedError

    def between_steps(self, loader: Sized, update_freq: int) -> "BetweenSteps":
        """This epoch's batches, from where the run stands."""
        self.clip_order.set_epoch(self.epoch)
        self.clip_order.start(min(self.position, self.clip_order.end))
        self._checked = self.position
        return BetweenSteps(loader, update_freq, self)

    def after_step(self) -> None:
        """Check for bad steps; save and end where it is time to.

        Raises:
            Stopped: a signal came and the run has been saved. NonFiniteError: too many bad steps in a row.
        """
        self.position += self.clips_a_step
        every, steps = self.flags.save_every_steps, self.main.steps
        due = every > 0 and steps % every == 0
        if not due and self.runtime.device.type == "cuda" and steps % CHECK_EVERY:
            return
        self.check_steps()
        if due:
            self.save(whole=False)
        asked = self.interrupts.agreed()
        if asked is not None:
            if not due:
                self.save(whole=False)
            self.stop(asked)

    def stop(self, signal_name: str) -> None:
        """End on a signal, after saving.

        Raises:
            Stopped: always, but for OSError: the checkpoint could not be written.
        """
        self.must_be_saved()
        place = f"epoch {self.epoch}, after step {self.main.steps}"
        if self.folder is not None and self.runtime.is_main:
            (self.folder / "stopped").write_text(f"{signal_name} in {place}\n")
        raise Stopped(f"{signal_name}: ended in {place}; " + (
            "the same command goes on from there" if self.saves else "nothing was saved, as the flags say"))

    def check_steps(self) -> None:
        """Report bad steps since the last check."""
        self.bad_steps.check(self._taken)
        self._checked = self.position

    def _taken(self, name: str) -> dict:
        """What the learner `name` may have learned from since the last check."""
        start = self._checked
        if self.learners[name] is not self.main:
            start = max(0, min(start, self.position - self.memory * self.clips_a_step))
        rows = self.clip_order.rows(start, self.position)
        return {"epoch": self.epoch, "last_step": self.main.steps, "rows": rows,
                "videos": [str(self.clips.paths[row]) for row in rows]}

    def save(self, whole: bool = True) -> None:
        """Write the checkpoint of the epoch just finished, or of this step; only rank 0 writes, every rank must call.

        A full disk does not end the run: it warns, and the next epoch's end or step checkpoint tries again.
        """
        if not self.saves:
            return
        name = checkpointing.name_of(self.epoch, None if whole else self.main.steps)
        position = 0 if whole else self.position
        progress = {"meters": self.meters.state(), **self.progress()} if position else {}
        state = self.state(name) | {
            "epoch": self.epoch, "step": self.main.steps, "position": position,
            "steps_per_epoch": self.steps_per_epoch, "rng": self.runtime.gather_objects(runtime.rng_state()),
            "progress": self.runtime.gather_objects(progress)}
        failed = False
        if self.runtime.is_main:
            try:
                checkpointing.save_atomically(state, self.folder / f"{name}.pth")
                checkpointing.thin_out(self.folder, self.flags.keep_last, self.flags.keep_every)
            except OSError as error:
                failed = True
                logger.warning("%s.pth cannot be written (%s); the run goes on with the checkpoint from before, and "
                               "tries again at the next one", name, error.strerror or error)
        self.unsaved = self.runtime.any(failed)

    def must_be_saved(self) -> None:
        """Raises OSError: the last attempt to save failed, and there is no next one."""
        if self.unsaved:
            raise OSError(errno.ENOSPC, "the last checkpoint cannot be written: make room and run the same command "
                                        "again", str(self.folder))

    def progress(self) -> dict:
        """What of an unfinished epoch this process alone knows, beside the meters."""
        return {}

    def restore_progress(self, state: dict) -> None:
        """Put back what `progress` returned."""

    def resume(self) -> None:
        """--resume FILE, else with --auto_resume the newest whole checkpoint of the output folder, else nothing.

        Rank 0 chooses, so that all go on from the same one.

        Raises:
            FileNotFoundError, ValueError: the file is missing, or belongs to another run.
        """
        if self.folder is not None and self.runtime.is_main:
            checkpointing.clear_unfinished(self.folder)
            (self.folder / "stopped").unlink(missing_ok=True)
        path, state = Path(self.flags.resume) if self.flags.resume else None, None
        if path is None and self.flags.auto_resume and self.folder is not None:
            if self.runtime.is_main and (found := checkpointing.newest_whole(self.folder)):
                path, state = found
            chosen = self.runtime.gather_objects(None if path is None else str(path))[0]
            path = Path(chosen) if chosen else None
        if path is not None:
            self._go_on(checkpointing.load(path) if state is None else state, path)

    def _go_on(self, state: dict, source: Path) -> None:
        self.restore(state, source)
        self.position = state.get("position", 0)
        self.epoch = state["epoch"] + (0 if self.position else 1)
        self._rescale(state.get("steps_per_epoch", self.steps_per_epoch), source)
        same = len(state["rng"]) == self.runtime.world_size
        if same:
            runtime.set_rng_state(state["rng"][self.runtime.rank])
        else:
            logger.warning("%s was written by %d process(es), this run has %d: dropout draws anew%s", source,
                           len(state["rng"]), self.runtime.world_size,
                           ", the unfinished epoch's means and episodes start empty" if self.position else "")
        if self.position and same:
            progress = state["progress"][self.runtime.rank]
            self.meters.load(progress["meters"])
            self.restore_progress(progress)
        self.bad_steps.reset()
        logger.info("resumed from %s, %s epoch %d", source, "within" if self.position else "after", state["epoch"])

    def _rescale(self, before: int, source: Path) -> None:
        """Another batch makes another number of steps an epoch: schedules go on at the same share of the run."""
        if before == self.steps_per_epoch:
            return
        for learner in self.learners.values():
            if learner.optimizer is not None:
                learner.start(round(learner.steps * self.steps_per_epoch / before))
        logger.warning("%s has %d steps an epoch, this run %d: the schedules go on at the same share of the run; the "
                       "same batch_size x update_freq x processes would change nothing", source, before,
                       self.steps_per_epoch)


class BetweenSteps:
    """A loader that lets the run act between two optimiser steps: an engine that asks for the next batch has finished
    its step, so the loops stay as they are. Must be outside of all that reads ahead."""

    def __init__(self, loader: Sized, update_freq: int, run: Resumable):
        self.loader, self.update_freq, self.run = loader, update_freq, run

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Sequence]:
        for index, batch in enumerate(self.loader, start=1):
            yield batch
            if index % self.update_freq == 0:
                self.run.after_step()
