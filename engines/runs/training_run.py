"""All epochs of a run, and the program around it: what pre-training and fine-tuning share."""

import logging
import os
import resource
import signal
import sys
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import torch

from ...datasets.sources.kept_arrays import keep_indexes
from ...datasets.sources.kept_files import keep_remote_files
from ...datasets.video.children import end_with_parent
from ...datasets.video.decode import keep_videos
from ..config.companions import given_in_vain
from ..config.flags import FlagParser, read_changes
from ..core import runtime
from ..core.changes import must_be_changeable
from ..core.interrupts import Stopped
from ..core.logs import RunLog, set_up_logging
from ..core.run_record import read_record, write_record
from ..machine.container import start_faults
from ..machine.threads import Work, threads_for
from .going_on import GoingOn
from .loading import TrainingLoader

logger = logging.getLogger(__name__)

LAUNCHERS = {"TORCHELASTIC_RUN_ID", "CROSS_RANK"}   # what torchrun's and DeepSpeed's processes find in the environment


class TrainingRun(GoingOn):
    """A run of `epochs` epochs. A subclass gives `epoch_record`, and `after_epoch` where it has more to show."""

    epochs: int
    loader: TrainingLoader
    trains = True

    @abstractmethod
    def epoch_record(self) -> dict[str, float]:
        """Train the epoch and evaluate what is evaluated after it; the numbers of its line of log.txt.

        Raises:
            Stopped, NonFiniteError: see `Resumable.after_step`.
        """

    def after_epoch(self, log: RunLog, record: Mapping[str, float]) -> None:
        """Pictures, alerts and a line on the terminal, once the epoch is logged and saved."""

    def run(self) -> Any:
        """All epochs, with a line of log.txt after each, then `finish`, whose result it returns; a signal ends it
        early, saved, see `Interrupts`."""
        every, device = self.flags.save_ckpt_freq, self.runtime.device
        if self.epoch >= self.epochs:
            logger.info("all %d epochs of this run are done: nothing is left to train. More --epochs goes on, another "
                        "--output_dir begins a new run", self.epochs)
        with RunLog(self.flags, self.epoch, self.runtime.is_main) as log, self.interrupts:
            while self.epoch < self.epochs:
                self.begun, self.earlier = time.time() - self.earlier, 0.0
                record = self.epoch_record()
                self.loader.say_what_is_kept()
                record |= {"epoch": self.epoch, "step": self.main.steps, "seconds": round(time.time() - self.begun, 2)}
                if device.type == "cuda":   # Tables 3a to 3e; as VideoMAE's log counts it
                    record["peak_memory_gb"] = round(torch.cuda.max_memory_allocated(device) / 2**30, 2)
                self.keep_folder()
                log.epoch(record)   # before the checkpoint: a kill between the two loses no line
                if (self.epoch + 1) % every == 0 or self.epoch + 1 == self.epochs or self.unsaved:
                    self.save()
                self.after_epoch(log, record)
                self.epoch, self.position = self.epoch + 1, 0
            self.must_be_saved()
            last = None if self.folder is None else self.folder / f"checkpoint-{self.epochs - 1}.pth"
            if last is not None and last.is_file():
                logger.info("the last checkpoint is %s", last)
            return self.finish()

    def finish(self) -> Any:
        """What is still to be done under the run's signals, after the last epoch."""


class Program(NamedTuple):
    """A training program.

    parser: its command line. settings: `settings(args) -> Settings`, checked. dead_flags: accepted ones that do
    nothing, with the reason. run: `run(settings, runtime) -> Resumable`. train: what to do with it. work: of a step,
    `work(settings)`.
    """

    parser: FlagParser
    settings: Callable
    dead_flags: Mapping[str, str]
    run: Callable
    train: Callable
    work: Callable[..., Work]


def run_training(program: Program, argv: Sequence[str] | None):
    """Read the flags, build the run, train; returns what `program.train` does.

    Raises:
        ValueError, OSError: bad input, see `run_program`. Stopped: a signal ended it, saved.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    args = read_changes(program.parser, argv)
    settings = program.settings(args)
    must_be_changeable((name for name, _ in settings.run.change or ()), type(settings))
    work = program.work(settings)
    threads = threads_for(work, settings.run.device)
    keep_remote_files(settings.data.cache_dir, settings.data.cache_gb)
    not_kept = keep_indexes(settings.data.index_cache)
    here = runtime.start(settings.run.device, settings.run.dist_url, settings.run.dist_timeout)
    if LAUNCHERS & os.environ.keys():   # a launcher that is killed must leave no trainers behind
        end_with_parent(signal.SIGTERM)
    set_up_logging(here.is_main)
    threads.use()
    for fault in filter(None, (not_kept, *start_faults(work, settings.run.device))):
        logger.warning("%s", fault)
    for name in sorted(name for name in program.dead_flags if getattr(args, name, None) is not None):
        logger.warning("--%s has no effect: %s", name, program.dead_flags[name])
    if vain := given_in_vain(settings):
        logger.info("without effect in this run: %s", ", ".join(vain))
    run = None
    try:
        run = program.run(settings, here)
        if here.is_main and run.folder is None:
            logger.warning("nothing is saved: there is no --output_dir")
        if here.is_main and run.folder is not None and not run.trains and not read_record(run.folder):
            write_record(run.folder, asdict(settings), None, here)   # of a training it is written when that begins
        result = program.train(run)
    except Stopped as stopped:
        logger.info("%s", stopped.message)
        run.close()
        raise
    finally:
        if run is not None:
            run.leave_folder()
        if settings.data.cache_decoded:   # what called the program in its own process goes on without
            keep_videos(0)
    run.close()
    logger.info("at most %.1f GB of main memory in this process",
                resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)   # KiB, on Linux
    return result
