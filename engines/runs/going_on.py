"""How a run goes on: from which checkpoint, whether it is its own, and what changes on the way."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ...datasets.files import write_whole
from ..config.flags import FREE
from ..core import checkpointing, runtime
from ..core.changes import Place, allowed, canonical
from ..core.identity import Difference, differences, identity_in, unknown_flags
from ..core.logs import outliving_a_full_disk
from ..core.run_folder import FolderInUse, set_aside, set_newer_aside
from ..core.run_record import NAME, Resumed, read_record, write_record
from .resumable import Resumable
from .saved_state import choose, load_share

logger = logging.getLogger(__name__)


class GoingOn(Resumable):
    """A run that goes on from its own checkpoints, and from no other's.

    Attributes:
        altered: the flags that have another value than in the checkpoint it went on from.
    """

    altered: frozenset[str] = frozenset()
    _in_use: FolderInUse | None = None
    _record: str | None = None   # the text of settings.json, on every process

    def resume(self) -> None:
        """Go on from the checkpoint that `choose` finds, else begin; a folder that holds another run is refused.

        Raises:
            FileNotFoundError, ValueError: the file is missing, belongs to another run, or one writes there at this
                moment. Nothing has been written.
        """
        found, altered = choose(self.flags, self.folder, self.runtime), []
        if found is not None:
            altered = self._altered(found[1], found[0])
        if self.folder is not None:
            self._in_use = FolderInUse(self.folder, self.runtime)
            if self.runtime.is_main:
                self._make_room(found[0] if found else None)
        if found is not None:
            self._go_on(found[1], found[0], altered)
        elif self.flags.change:
            logger.info("--change alters nothing: the run begins")
        if self.folder is not None and self.runtime.is_main and self.epoch < self.all_settings.optim.epochs:
            (self.folder / "finished").unlink(missing_ok=True)
            named = found is not None and self.flags.resume != "" and found[0] == Path(self.flags.resume)
            write_record(self.folder, asdict(self.all_settings), self.identity, self.runtime,
                         None if found is None else Resumed(found[0], named, altered))
        if self.folder is not None:
            record = self.folder / NAME
            text = record.read_text(encoding="utf-8") if self.runtime.is_main and read_record(self.folder) else None
            self._record = self.runtime.gather_objects(text)[0]

    def keep_folder(self) -> None:
        """Make the output folder whole again where it has been deleted or moved away, and say so; every process must
        call.

        Raises:
            ValueError: another run writes there now, or has.
        """
        if self._record is None:
            return
        lost, problem = False, None
        if self.runtime.is_main:
            try:
                lost = self._restored()
            except ValueError as error:
                problem = str(error)
            except OSError as error:
                logger.warning("%s is not there and cannot be made again: %s", self.folder, error)
        lost, problem = self.runtime.gather_objects((lost, problem))[0]
        if problem:
            raise ValueError(problem)
        if lost:
            self.unsaved = True   # the next checkpoint is not one of an epoch far away
            self.folder_was_lost()

    def _restored(self) -> bool:
        """Whether settings.json was gone, which is there again. Raises ValueError: another run writes there now."""
        self._in_use.retake()
        there, own = read_record(self.folder), json.loads(self._record)
        if there and there.get("run") != own.get("run"):
            raise ValueError(f"{self.folder} was deleted during the run and holds another run now: this one ends "
                             "without saving there. Start it again with another --output_dir")
        if there or (self.folder / NAME).is_file():
            return False
        with outliving_a_full_disk(NAME):
            write_whole(self.folder / NAME, self._record)
        logger.warning("%s was deleted or moved away during the run: it is made again with settings.json and log.txt, "
                       "and saved to at the end of this epoch; checkpoints from before are not there", self.folder)
        return True

    def folder_was_lost(self) -> None:   # noqa: B027 (few have kept anything in it)
        """Forget what this run had in its folder."""

    def leave_folder(self) -> None:
        """Let other runs write into the folder."""
        if self._in_use is not None:
            self._in_use.release()
        self._record = None

    def _make_room(self, source: Path | None) -> None:
        """Set aside what the folder holds of a run that this one does not go on with."""
        own = source is not None and source.parent.resolve() == self.folder.resolve()
        if own:
            place = set_newer_aside(self.folder, source) if self.flags.resume else None
        else:   # without a checkpoint the log of this very run begins again; that of another or of one left is kept
            begun = read_record(self.folder).get("identity")
            place = set_aside(self.folder, log=not self.flags.auto_resume or begun not in (None, self.identity.hash))
        if place:
            logger.warning("the run that %s held is now in %s", self.folder, place)
        checkpointing.clear_unfinished(self.folder)
        (self.folder / "stopped").unlink(missing_ok=True)

    def _altered(self, state: dict, source: Path) -> list[Difference]:
        """What is different from the checkpoint, all of it allowed.

        Raises:
            ValueError: it belongs to another run.
        """
        settings = self.all_settings
        if "settings" not in state or "rng" not in state:
            raise ValueError(f"{source} is not a checkpoint to resume from: give it as the weights to start with")
        there, zero = identity_in(state, type(settings)), getattr(settings, "zero", None)
        deepspeed = zero is not None and zero.enable_deepspeed
        behind = state["epoch"] + (0 if state.get("position") else 1)
        found = allowed(differences(self.identity, there),
                        canonical((name for name, _ in self.flags.change or ()), type(settings)), source, deepspeed,
                        Place(behind, state["epoch"] + 1, settings.optim.epochs))
        if state.get("dtype", self.dtype) != self.dtype and all(one.flag != "amp" for one in found):
            if deepspeed:
                raise ValueError(f"{source} was trained in {state['dtype']}, --amp auto here is {self.dtype}: "
                                 "DeepSpeed cannot go on in another one. Give --amp, or another --output_dir")
            found.append(Difference("amp", f"auto, {self.dtype}", f"auto, {state['dtype']}", FREE))
        if unknown := unknown_flags(state, type(settings)):
            logger.warning("%s was trained with flags that this version does not know; it goes on without: %s", source,
                           ", ".join(f"{name} {value}" for name, value in unknown.items()))
        return found

    def _go_on(self, state: dict, source: Path, altered: list[Difference]) -> None:
        for one in altered:
            logger.warning("%s goes on with another value of %s (now | in the checkpoint)", source, one)
        self.altered = frozenset(one.flag for one in altered)
        self.changes = [*state.get("changes", ()), *({"epoch": state["epoch"], "step": state["step"], "flag": one.flag,
                                                      "from": one.there, "to": one.here} for one in altered)]
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
                           ", the unfinished epoch's episodes and mask statistics start empty" if self.position else "")
        if self.position:
            self._restore_progress(state["progress"], source, same)
        elif same and self.carries:
            own = state["progress"][self.runtime.rank]
            self.restore_carried(own | load_share(own, source, self.runtime))
        self.bad_steps.reset()
        logger.info("resumed from %s, %s epoch %d", source, "within" if self.position else "after", state["epoch"])

    def _restore_progress(self, progress: list[dict], source: Path, same: bool) -> None:
        """What the unfinished epoch has seen. same: by as many processes."""
        self.earlier = progress[0].get("seconds", 0.0)
        if same:
            own = progress[self.runtime.rank]
            self.meters.load(own["meters"])
            self.restore_progress(own | load_share(own, source, self.runtime))
        else:
            self.meters.load(joined([one["meters"] for one in progress], self.runtime.is_main))

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


def joined(meters: Sequence[dict[str, list[float]]], is_main: bool) -> dict[str, list[float]]:
    """The sums of an epoch that other processes began: all of them on rank 0, zeros under their names on the others."""
    names = {name for one in meters for name in one}
    pairs = {name: [one[name] for one in meters if name in one] for name in names}
    return {name: [sum(values) for values in zip(*found, strict=True)] if is_main else [0.0, 0.0]
            for name, found in pairs.items()}
