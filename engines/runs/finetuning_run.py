"""A fine-tuning run: built once, an epoch at a time, saved and resumed, then tested."""

import copy
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch

from ...datasets.lists.class_names import agreed_names, read_class_names
from ...models import create_model, read_checkpoint
from ...models.convert.class_names import class_names_of
from .. import engine_for_finetuning
from ..config.finetuning import Settings, without_training
from ..core import checkpointing, runtime
from ..core.lineage import about_run, changed_flags, source_of
from ..core.logs import Progress, RunLog, outliving_a_full_disk
from ..core.results import must_not_replace, place_of_test
from ..core.run_folder import BEST
from ..engine_for_finetuning import FinetuneSetup
from ..finetune.averaging import WeightAverage
from ..finetune.evaluation import NothingRead
from ..finetune.frozen import freeze_all_but_head
from ..finetune.mixing import BatchAugment
from ..training.batches import Normalizer, OnDevice
from ..training.learner import Learner
from .evaluator import Evaluator, read_labelled
from .finetuning_build import build_classifier, build_learner, labelled_loader, resolve_task, square_size, weights_file
from .pretraining_build import without_checkpointing
from .training_run import TrainingRun

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")


class Finetuning(TrainingRun):
    """One run: everything that is built once, an epoch at a time, saved and resumed, then tested."""

    def __init__(self, settings: Settings, here: runtime.Runtime):
        super().__init__(settings.run, here, saves=settings.run.save_ckpt)
        self.epochs = settings.optim.epochs
        evaluation = settings.evaluation
        self.trains = not (evaluation.eval or evaluation.eval_mode == "knn")
        self.settings = settings if self.trains else without_training(settings)
        if evaluation.eval_mode == "knn":
            must_not_replace(self.folder, "knn")
        self.task = resolve_task(settings.data, settings.model.num_frames)
        self.lists = {split: read_labelled(Path(settings.data.data_path) / f"{split}.csv", self.task.classes)
                      for split in self._splits()}
        runtime.seed_everything(settings.run.seed)
        self.weights = weights_file(settings, self.folder)
        self.classifier, self.model_config = build_classifier(
            replace(settings.model, finetune=str(self.weights or "")), self.task.classes,
            whole=evaluation.eval and evaluation.eval_mode != "knn",
            key="model_ema" if evaluation.eval and evaluation.test_weights == "ema" else settings.model.model_key)
        self.size = square_size(self.classifier)
        self.precision = runtime.choose_precision(settings.optim.amp, here.device)
        self.classifier.to(here.device)
        self.evaluator = Evaluator(self.settings, self.task, self.lists, self.size, here)
        self.class_names = self.evaluator.class_names = self._class_names()
        self.evaluator.must_read_some()
        self.best = -1.0
        trust = settings.model.trust_checkpoint
        # A test has the identity of what it tests.
        self.tested = about_run(self.weights, trust) if evaluation.eval else {}
        if evaluation.eval_mode == "knn":
            self.tested.pop("eval_mode", None)   # what is tested are neighbours, however the weights were trained
        if evaluation.eval_mode != "finetune" and self.weights is None:
            logger.warning("--eval_mode %s without --finetune: the network has learned nothing", evaluation.eval_mode)
        self.source = source_of(self.weights, trust) if self.weights and not evaluation.eval else None
        if self.trains:
            self._prepare_training()
        else:
            self.learner = Learner(self.classifier, precision=self.precision)
            self.evaluator.place = partial(place_of_test, settings=asdict(settings))
        runtime.seed_everything(settings.run.seed + here.rank)   # boxes, mixing weights and dropout differ by rank

    def _splits(self) -> tuple[str, ...]:
        evaluation = self.settings.evaluation
        if evaluation.eval_mode == "knn":
            return "train", "test"
        if evaluation.eval:
            return ("test",)
        return tuple(split for split in SPLITS if split != "val" or not evaluation.disable_eval_during_finetuning)

    def _class_names(self) -> list[str] | None:
        """Those beside the lists; where a finished network is tested, else those of its checkpoint.

        Raises:
            ValueError: the two disagree.
        """
        evaluation, folder = self.settings.evaluation, self.settings.data.data_path
        listed, trained = read_class_names(folder, self.task.classes), None
        if evaluation.eval and evaluation.eval_mode != "knn":
            trained = class_names_of(read_checkpoint(self.weights, self.settings.model.trust_checkpoint),
                                     self.task.classes)
        return agreed_names(listed, trained, folder)

    def _prepare_training(self) -> None:
        settings, model = self.settings, self.settings.model
        self.loader, order = labelled_loader(self.lists["train"], self.task, self.size, settings, self.runtime)
        if settings.evaluation.eval_mode == "linear":
            freeze_all_but_head(self.classifier)
        augment = BatchAugment(settings.augment, self.task.classes,
                               settings.optim.batch_size * settings.data.num_sample, self.runtime.device)
        ema = WeightAverage(self.classifier, model.model_ema_decay,
                         device=torch.device("cpu") if model.model_ema_force_cpu else None) if model.model_ema else None
        self.setup = FinetuneSetup(Normalizer(self.runtime.device), augment, settings.optim.update_freq, ema)
        self.learner = build_learner(self.classifier, settings, len(self.loader) // settings.optim.update_freq,
                                     self.runtime, self.precision)
        self.set_up({"classifier": self.learner}, self.lists, order, settings)
        self.evaluator.between = self.between_evaluations

    def train_epoch(self) -> dict[str, float]:
        """One pass over the training clips; the means of what it reports.

        Raises:
            Stopped, NonFiniteError: see `Resumable.after_step`.
        """
        if not self.position:
            self.meters.reset()
        # A frozen encoder stays as it will be evaluated: no stochastic depth.
        self.learner.net.train(self.settings.evaluation.eval_mode != "linear")
        progress = Progress(OnDevice(self.loader, self.runtime.device), f"epoch {self.epoch}", self.meters.means,
                            self.settings.run.print_freq, self.runtime.is_main)
        loader = self.between_steps(progress, self.setup.update_freq)
        engine_for_finetuning.train_one_epoch(loader, self.learner, self.setup, self.meters)
        self.check_steps()
        return self.meters.means(self.runtime) | {"data_share": round(progress.data_share, 4)}

    def averaged(self) -> Learner | None:
        """The moving average of the weights as a network, or None."""
        if not self.trains or self.setup.ema is None:
            return None
        net = self.setup.ema.module
        if next(net.parameters()).device != self.runtime.device:
            net = copy.deepcopy(net).to(self.runtime.device)   # the average itself stays where it is updated
        return Learner(net, precision=self.precision)

    def state(self, name: str) -> dict:
        """As `Resumable.state`."""
        ema = self.setup.ema
        return {"model": self.learner.weights(), "config": self.model_config, "class_names": self.class_names,
                "optimizer": self.learner.save(self.folder / name),
                **({"model_ema": ema.module.state_dict()} if ema is not None else {}), "best": self.best,
                "settings": self._described()}

    def _described(self) -> dict[str, dict]:
        """The settings as plain dictionaries: `predict` reads from them how a clip is cut out."""
        return {topic: dict(group) for topic, group in asdict(self.settings).items()}

    def restore(self, state: dict, source: Path) -> None:
        """As `Resumable.restore`; refuses another model."""
        if without_checkpointing(state.get("config")) != without_checkpointing(self.model_config):
            raise ValueError(f"cannot resume from {source}: it was written with model {state.get('config')}, this run "
                             f"has {self.model_config}; use another --output_dir, or --auto_resume false")
        self.learner.load(state["model"], state["optimizer"], source.with_suffix(""))
        if self.setup.ema is not None:
            if "model_ema" not in state:
                logger.warning("%s has no moving average: it starts from the weights there", source)
            self.setup.ema.module.load_state_dict(state.get("model_ema", state["model"]))
        self.best = state["best"]
        # Those of a later epoch, which this run may never see again, or none, are not the best of this one.
        is_other = self.runtime.is_main and self.folder is not None and self._best_there() != self.best
        if self.runtime.gather_objects(is_other)[0]:
            self.folder_was_lost()

    def _best_there(self) -> float | None:
        """The validation top-1 of the folder's best weights; None where there are none."""
        try:
            return checkpointing.load(self.folder / BEST)["best"]
        except (OSError, ValueError, KeyError):
            return None

    def save_best(self, best: float) -> None:
        """Write checkpoint-best.pth, the weights alone, of validation top-1 `best`. Where that is not possible the best
        stays the one before, whose weights are there."""
        if not self.saves:
            self.best = best
            return
        weights, written = self.learner.weights(), False
        if self.runtime.is_main:
            with outliving_a_full_disk(BEST):
                checkpointing.save_atomically({"model": weights, "config": self.model_config, "epoch": self.epoch,
                                               "best": best, "class_names": self.class_names,
                                               "identity": self.identity.record(), "source": self.source,
                                               "settings": self._described()}, self.folder / BEST)
                written = True
        if self.runtime.gather_objects(written)[0]:
            self.best = best

    def folder_was_lost(self) -> None:
        """As `GoingOn.folder_was_lost`: the best weights."""
        if self.best >= 0 and self.runtime.is_main:
            logger.warning("the best weights, of validation top-1 %.2f, are lost: the best is sought anew", self.best)
        self.best = -1.0

    def epoch_record(self) -> dict[str, float]:
        """As `TrainingRun.epoch_record`, with the validation."""
        record = {f"train_{name}": value for name, value in self.train_epoch().items()}
        record |= {"train_lr": max(group["lr"] for group in self.learner.optimizer.param_groups)}
        if not self.settings.evaluation.disable_eval_during_finetuning:
            self.rng = runtime.rng_state()
            record |= self._validated()
            self.rng = None
        return record

    def after_epoch(self, log: RunLog, record: Mapping[str, float]) -> None:
        """A line on the terminal."""
        logger.info("epoch %d/%d loss %.4f%s, %.1f s", self.epoch, self.epochs, record.get("train_loss", math.nan),
                    f", validation top-1 {record['val_acc1']:.2f}" if "val_acc1" in record else "", record["seconds"])

    def finish(self) -> dict:
        """The test, under the run's signals: where one ends it, it is made when the run goes on."""
        return self.test()

    def _validated(self) -> dict[str, float]:
        try:
            found = self.evaluator.validate(self.learner)
        except NothingRead:   # on every process: what the epoch has trained is kept, and all of them must save
            self.save(whole=False)
            raise
        self.keep_folder()
        if found["acc1"] > self.best:
            self.save_best(found["acc1"])
        record = {f"val_{name}": value for name, value in found.items()} | {"val_best_acc1": self.best}
        if (averaged := self.averaged()) is not None:
            record |= {f"val_ema_{name}": value for name, value in self.evaluator.validate(averaged).items()}
        return record

    def test(self) -> dict:
        """Multi-view test of the weights that --test_weights names; what is in result.json."""
        learner, weights, behind = self._tested()
        run = {"identity": None, "source": self.source} | self.tested
        if self.trains:
            run |= {"identity": self.identity.hash, "changed": changed_flags(self.changes), "trained_epochs": behind,
                    "epochs": self.epochs}
        return self.evaluator.test(learner, weights, run)

    def _tested(self) -> tuple[Learner, Path | None, int]:
        """(the network, the file that holds its weights, epochs behind them)."""
        which, last = self.settings.evaluation.test_weights, f"checkpoint-{self.settings.optim.epochs - 1}.pth"
        if not self.trains:
            return self.learner, self.weights, 0
        path = self.folder / last if self.folder else None
        if which == "ema":
            return self.averaged(), path, self.epochs
        if which == "best":
            path = self.folder / BEST
            if not path.is_file():
                raise ValueError(f"--test_weights best: no {BEST} could be written. To test the weights of the last "
                                 f"epoch: --eval --resume {self.folder / last}")
            best, state = create_model(self.model_config["name"], **self.model_config["kwargs"]), \
                checkpointing.load(path)
            best.load_state_dict(state["model"])
            return Learner(best.to(self.runtime.device), precision=self.precision), path, state["epoch"] + 1
        return self.learner, path, self.epochs
