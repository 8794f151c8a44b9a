"""A fine-tuning run: built once, an epoch at a time, saved and resumed, then tested."""

import logging
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from timm.utils import ModelEmaV3

from ..datasets.lists import read_list
from ..models import create_model
from . import checkpointing, engine_for_finetuning, runtime
from .batches import Normalizer
from .engine_for_finetuning import FinetuneSetup
from .finetuning import (
    Settings,
    build_classifier,
    build_learner,
    resolve_task,
    square_size,
    training_loader,
    without_training,
)
from .finetuning_test import Evaluator
from .frozen import freeze_all_but_head
from .learner import Learner
from .logs import Progress, RunLog
from .meters import Meters
from .mixing import BatchAugment

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")


class Finetuning:
    """One run: everything that is built once, an epoch at a time, saved and resumed, then tested."""

    def __init__(self, settings: Settings, where: runtime.Runtime):
        evaluation = settings.evaluation
        self.trains = not (evaluation.eval or evaluation.eval_mode == "knn")
        self.settings = settings if self.trains else without_training(settings)
        self.where, self.folder = where, Path(settings.run.output_dir) if settings.run.output_dir else None
        self.task = resolve_task(settings.data, settings.model.num_frames)
        self.lists = {split: read_list(Path(settings.data.data_path) / f"{split}.csv",
                                       num_classes=self.task.classes) for split in self._splits()}
        runtime.seed_everything(settings.run.seed)
        self.source = self._weights_file()
        self.classifier, self.model_config = build_classifier(
            replace(settings.model, finetune=str(self.source or "")), self.task.classes,
            whole=evaluation.eval and evaluation.eval_mode != "knn",
            key="model_ema" if evaluation.eval and evaluation.test_weights == "ema" else settings.model.model_key)
        self.size = square_size(self.classifier)
        self.precision = runtime.choose_precision(settings.optim.amp, where.device)
        self.classifier.to(where.device)
        self.evaluator = Evaluator(self.settings, self.task, self.lists, self.size, where)
        self.epoch, self.best, self.meters = settings.run.start_epoch, -1.0, Meters()
        if self.trains:
            self._prepare_training()
        else:
            self.learner = Learner(self.classifier, precision=self.precision)
        runtime.seed_everything(settings.run.seed + where.rank)   # boxes, mixing weights and dropout differ by rank

    def _splits(self) -> tuple[str, ...]:
        evaluation = self.settings.evaluation
        if evaluation.eval_mode == "knn":
            return "train", "test"
        if evaluation.eval:
            return ("test",)
        return tuple(split for split in SPLITS if split != "val" or not evaluation.disable_eval_during_finetuning)

    def _weights_file(self) -> Path | None:
        """The file whose weights the run starts from. With --eval: --resume, else --finetune, else output_dir's own.

        Raises:
            ValueError: --eval and there is none.
        """
        evaluation, finetune = self.settings.evaluation, self.settings.model.finetune
        if not evaluation.eval:
            return Path(finetune) if finetune else None
        named = self.settings.run.resume or finetune
        if named:
            return Path(named)
        if self.folder is not None:
            if evaluation.test_weights == "best" and (self.folder / "checkpoint-best.pth").is_file():
                return self.folder / "checkpoint-best.pth"
            if evaluation.test_weights != "best" and (found := checkpointing.newest_whole(self.folder)):
                return found[0]
        raise ValueError("--eval: nothing to evaluate; give --resume or --finetune FILE, or an --output_dir that holds "
                         "the checkpoints of a run")

    def _prepare_training(self) -> None:
        settings, model = self.settings, self.settings.model
        self.loader, self.clip_order = training_loader(self.lists["train"], self.task, self.size, settings, self.where)
        if settings.evaluation.eval_mode == "linear":
            freeze_all_but_head(self.classifier)
        augment = BatchAugment(settings.augment, self.task.classes,
                               settings.optim.batch_size * settings.data.num_sample, self.where.device)
        ema = ModelEmaV3(self.classifier, model.model_ema_decay,
                         device=torch.device("cpu") if model.model_ema_force_cpu else None) if model.model_ema else None
        self.setup = FinetuneSetup(Normalizer(self.where.device), augment, settings.optim.update_freq, ema)
        self.learner = build_learner(self.classifier, settings, len(self.loader) // settings.optim.update_freq,
                                     self.where, self.precision)

    def train_epoch(self) -> dict[str, float]:
        """One pass over the training clips; the means of what it reports."""
        self.meters.reset()
        self.clip_order.set_epoch(self.epoch)
        # A frozen encoder stays as it will be evaluated: no stochastic depth.
        self.learner.net.train(self.settings.evaluation.eval_mode != "linear")
        loader = Progress(self.loader, f"epoch {self.epoch}", self.meters.means, self.settings.run.print_freq,
                          self.where.is_main)
        engine_for_finetuning.train_one_epoch(loader, self.learner, self.setup, self.meters)
        means = self.meters.means(self.where)
        if not means["loss"] < float("inf"):
            raise FloatingPointError(f"epoch {self.epoch}: the loss is not finite; the last checkpoint is from before. "
                                     "Lower --lr, set --clip_grad 1, or use --amp bf16 or fp32")
        return means | {"data_share": round(loader.data_share, 4)}

    def averaged(self) -> Learner | None:
        """The moving average of the weights as a network, or None."""
        if not self.trains or self.setup.ema is None:
            return None
        return Learner(self.setup.ema.module.to(self.where.device), precision=self.precision)

    def state(self, name: str) -> dict:
        """Everything that the rest of the run depends on: tensors and plain values only."""
        ema = self.setup.ema
        folder = (self.folder or Path()) / name
        return {"model": self.learner.weights(), "config": self.model_config, "optimizer": self.learner.save(folder),
                **({"model_ema": ema.module.state_dict()} if ema is not None else {}),
                "epoch": self.epoch, "step": self.learner.steps, "best": self.best,
                "rng": self.where.gather_objects(runtime.rng_state()),
                "settings": {topic: dict(group) for topic, group in asdict(self.settings).items()}}

    def save(self) -> None:
        """Write checkpoint-N.pth, N the epoch just finished; only rank 0 writes, every rank must call."""
        name = f"checkpoint-{self.epoch}"
        state = self.state(name)
        if self.where.is_main:
            checkpointing.save_atomically(state, self.folder / f"{name}.pth")
        self.where.barrier()

    def save_best(self) -> None:
        """Write checkpoint-best.pth: the weights alone."""
        weights = self.learner.weights()
        if self.where.is_main:
            checkpointing.save_atomically({"model": weights, "config": self.model_config, "epoch": self.epoch,
                                           "best": self.best}, self.folder / "checkpoint-best.pth")
        self.where.barrier()

    def resume(self) -> None:
        """--resume FILE, else with --auto_resume the newest whole checkpoint of the output folder, else nothing.

        Raises:
            ValueError: it belongs to another model.
        """
        run, found = self.settings.run, None
        if run.resume:
            found = Path(run.resume), checkpointing.load(run.resume)
        elif run.auto_resume and self.folder is not None:
            found = checkpointing.newest_whole(self.folder)
        if found is None:
            return
        path, state = found
        if state.get("config") != self.model_config or "optimizer" not in state:
            raise ValueError(f"cannot resume from {path}: it was written with model {state.get('config')}, this run "
                             f"has {self.model_config}; use another --output_dir, or --no_auto_resume")
        self.learner.load(state["model"], state["optimizer"], path.with_suffix(""))
        if self.setup.ema is not None and "model_ema" in state:
            self.setup.ema.module.load_state_dict(state["model_ema"])
        self.epoch, self.best = state["epoch"] + 1, state["best"]
        if len(state["rng"]) == self.where.world_size:
            runtime.set_rng_state(state["rng"][self.where.rank])
        logger.info("resumed from %s, after epoch %d", path, state["epoch"])

    def run(self) -> None:
        """All epochs, with a line of log.txt after each."""
        run, epochs = self.settings.run, self.settings.optim.epochs
        log = RunLog(run.output_dir, run.log_dir) if self.where.is_main else RunLog(None)
        while self.epoch < epochs:
            start = time.time()
            record = {f"train_{name}": value for name, value in self.train_epoch().items()}
            record |= {"train_lr": max(group["lr"] for group in self.learner.optimizer.param_groups),
                       "epoch": self.epoch, "step": self.learner.steps}
            if not self.settings.evaluation.disable_eval_during_finetuning:
                record |= self._validated()
            record["seconds"] = round(time.time() - start, 2)
            if self.where.device.type == "cuda":
                record["peak_memory_gb"] = round(torch.cuda.max_memory_allocated(self.where.device) / 2**30, 2)
            if run.save_ckpt and self.folder and ((self.epoch + 1) % run.save_ckpt_freq == 0
                                                  or self.epoch + 1 == epochs):
                self.save()
            log.epoch(record)
            logger.info("epoch %d/%d loss %.4f%s, %.1f s", self.epoch, epochs, record["train_loss"],
                        f", validation top-1 {record['val_acc1']:.2f}" if "val_acc1" in record else "",
                        record["seconds"])
            self.epoch += 1
        log.close()

    def _validated(self) -> dict[str, float]:
        found = self.evaluator.validate(self.learner)
        if found["acc1"] > self.best:
            self.best = found["acc1"]
            if self.settings.run.save_ckpt and self.folder:
                self.save_best()
        record = {f"val_{name}": value for name, value in found.items()} | {"val_best_acc1": self.best}
        if (averaged := self.averaged()) is not None:
            record |= {f"val_ema_{name}": value for name, value in self.evaluator.validate(averaged).items()}
        return record

    def test(self) -> dict:
        """Multi-view test of the weights that --test_weights names; result.json, and the same as a dictionary."""
        return self.evaluator.test(*self._tested())

    def _tested(self) -> tuple[Learner, Path | None]:
        """(the network, the file that holds its weights)."""
        which, last = self.settings.evaluation.test_weights, f"checkpoint-{self.settings.optim.epochs - 1}.pth"
        if not self.trains:
            return self.learner, self.source
        path = self.folder / last if self.folder else None
        if which == "ema":
            return self.averaged(), path
        if which == "best":
            path = self.folder / "checkpoint-best.pth"
            best = create_model(self.model_config["name"], **self.model_config["kwargs"])
            best.load_state_dict(checkpointing.load(path)["model"])
            return Learner(best.to(self.where.device), precision=self.precision), path
        return self.learner, path
