"""One pre-training run: built once, trained an epoch at a time, saved and resumed."""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from ...datasets.catalog import data_set, stride_of
from ...datasets.clips import ClipShape, PretrainClips
from ...datasets.lists.bad_videos import BadVideos
from ...datasets.lists.epoch_order import EpochSampler
from ...datasets.lists.list_file import read_list
from ...datasets.transforms.pretraining import pretrain_transform
from ...datasets.verify_decode import verify_decode
from ...models import create_model
from .. import engine_for_pretraining, engine_for_pretraining_ppo
from ..config.pretraining import Settings
from ..core import runtime
from ..core.interrupts import outlive_signals
from ..core.logs import Progress, RunLog, outliving_a_full_disk
from ..engine_for_pretraining import PretrainSetup
from ..engine_for_pretraining_ppo import EpisodeBuffer, PPOTraining
from ..figures.fixed_clips import FixedClips, draw_coverage, read_fixed_clips
from ..pretrain import alerts
from ..pretrain.diagnostics import Diagnostics
from ..pretrain.interface import clip_size, grid_of, patch_size_of
from ..pretrain.ppo import EntropyCoefficient
from ..pretrain.reconstruction import Reconstruction
from ..training.batches import Normalizer, OnDevice
from .pretraining_build import (
    build_learners,
    build_masking,
    build_sampler,
    initialise,
    model_config,
    random_share,
    sampler_config,
)
from .resumable import Resumable

logger = logging.getLogger(__name__)

FLAT_ERROR_MAP = 0.1  # explained share under which the MAE's errors say nothing yet about which tokens are hard


class Pretraining(Resumable):
    """One run: everything that is built once, an epoch at a time, saved and resumed."""

    def __init__(self, settings: Settings, where: runtime.Runtime):
        super().__init__(settings.run, where)
        self.settings = settings
        runtime.seed_everything(settings.run.seed)
        self.model_config = model_config(settings.model)
        mae = create_model(self.model_config["name"], **self.model_config["kwargs"])
        row, per_clip = build_masking(settings.mask, grid_of(mae))
        self.sampler_config = sampler_config(settings.mask, settings.sampler)
        sampler = build_sampler(row, mae, self.sampler_config)
        self.loader, clip_order = build_loader(settings, where, mae, per_clip)
        steps = len(self.loader) // settings.optim.update_freq
        if steps == 0:
            raise ValueError(f"the list holds too few clips for one step of {settings.optim.batch_size} x "
                             f"{settings.optim.update_freq} x {where.world_size}; lower --batch_size")
        if settings.model.init_from:
            initialise(mae, sampler, settings)
        precision = runtime.choose_precision(settings.optim.amp, where.device)
        fixed = read_fixed_clips(settings, mae, stride_of(settings.data.data_set, settings.data.sampling_rate))
        mae.to(where.device)
        if sampler is not None:
            sampler.to(where.device)
        self.mae, self.sampler = build_learners(mae, sampler, settings, steps, where, precision)
        self.diagnostics = Diagnostics(grid_of(mae), where.device)
        self.setup = PretrainSetup(where.device, Normalizer(where.device),
                                   Reconstruction(settings.loss.loss, settings.loss.normlize_target),
                                   patch_size_of(mae), settings.optim.update_freq, diagnostics=self.diagnostics)
        self.fixed = FixedClips(fixed, self.setup.normalizer, self.setup.reconstruction) if fixed else None
        self.num_visible = per_clip.num_visible
        mae.num_masked = grid_of(mae).num_tokens - self.num_visible
        self.entropy = EntropyCoefficient(settings.sampler.entropy_coef, settings.sampler.target_entropy,
                                          floor=0.1 * settings.sampler.policy_coef, device=where.device)
        self.learner_kind, self.mae_only_epochs = row.learner, settings.sampler.mae_only_epochs   # m_o
        if row.learner == "ppo" and self.mae_only_epochs >= settings.optim.epochs:
            logger.warning("the policy never acts: all %d epochs have random masks (--mae_only_epochs %d)",
                           settings.optim.epochs, self.mae_only_epochs)
        self.buffer, self.memory = EpisodeBuffer(), settings.sampler.update_every
        if where.rank:   # dropout and stochastic depth differ by process
            runtime.seed_everything(settings.run.seed + where.rank)
        self.follow({"MAE": self.mae, "sampler": self.sampler}, self.loader.dataset.clip_list, clip_order,
                    settings.optim.batch_size * settings.optim.update_freq * where.world_size, asdict(settings))

    def train_epoch(self) -> dict[str, float]:
        """One pass over the data with the engine that the masking's row asks for; the means of what it reports.

        Raises:
            Stopped, BrokenNumbers: see `Resumable.after_step`.
        """
        if not self.position:
            self.meters.reset()
            self.diagnostics.reset()
        for learner in (self.mae, self.sampler):   # the fixed clips were looked at in eval mode
            if learner is not None:
                learner.module.train()
        progress = Progress(OnDevice(self.loader, self.where.device), f"epoch {self.epoch}", self.meters.means,
                            self.settings.run.print_freq, self.where.is_main)
        loader = self.between_steps(progress, self.setup.update_freq)
        if self.learner_kind == "ppo":
            config = replace(self.settings.sampler, mae_only_epochs=self.mae_only_epochs)
            share = random_share(config, self.epoch, self.settings.optim.epochs)
            training = PPOTraining.from_flags(config, self.setup, self.entropy, share)
            engine_for_pretraining_ppo.train_one_epoch(self.epoch, loader, self.mae, self.sampler, self.buffer,
                                                       training, self.meters)
        else:
            engine_for_pretraining.train_one_epoch(self.epoch, loader, self.mae, self.sampler, self.setup, self.meters)
        self.look()
        means = self.meters.means(self.where)
        self.check(means)
        numbers, self.coverage = self.diagnostics.read(self.where)
        means |= numbers
        if self.fixed is not None:
            means |= self.fixed.measure(self.mae.module, self.sampler.module if self.sampler else None)
        return means | {"data_share": round(progress.data_share, 4)}

    def check(self, means: dict[str, float]) -> None:
        """Wait, or say so, when the policy is about to learn from nothing."""
        explained = means.get("explained", FLAT_ERROR_MAP)
        if self.learner_kind != "ppo" or self.epoch + 1 != self.mae_only_epochs:
            return
        wanted = self.settings.sampler.mae_only_explained
        if wanted and explained < wanted:   # 0: m_o as given, also where the MAE is worse than the mean
            self.mae_only_epochs += 1
            logger.info("the MAE explains %.0f %% of its targets' variance: one more epoch of random masks",
                        100 * explained)
        elif explained < FLAT_ERROR_MAP:
            logger.warning("the MAE explains %.0f %% of its targets' variance: its error map is still flat and gives "
                           "the policy nothing to learn from; raise --mae_only_epochs", 100 * explained)

    def state(self, name: str) -> dict:
        """As `Resumable.state`."""
        del name
        return {
            "model": self.mae.module.state_dict(), "config": self.model_config,
            "mask_type": self.settings.mask.mask_type, "sampler_config": self.sampler_config,
            "sampler": self.sampler.module.state_dict() if self.sampler else None,
            "optimizer": self.mae.state_dict(),
            "sampler_optimizer": self.sampler.state_dict() if self.sampler else None,
            "entropy_coef": float(self.entropy.value), "mae_only_epochs": self.mae_only_epochs,
            "fixed_policy": self.fixed.before if self.fixed else None,
            "settings": {name: dict(group) for name, group in asdict(self.settings).items()},
        }

    def restore(self, state: dict, source: Path) -> None:
        """As `Resumable.restore`; refuses another model, grid or masking."""
        for name, own in (("config", self.model_config), ("mask_type", self.settings.mask.mask_type),
                          ("sampler_config", self.sampler_config)):
            if state.get(name) != own:
                raise ValueError(f"cannot resume from {source}: it was written with {name} {state.get(name)}, this run "
                                 f"has {own}; use another --output_dir, or --no_auto_resume")
        self.mae.load(state["model"], state["optimizer"], source.with_suffix(""))
        if self.sampler is not None:
            self.sampler.load(state["sampler"], state["sampler_optimizer"], source.with_suffix(""))
        self.entropy.value = torch.tensor(state["entropy_coef"])
        if self.settings.sampler.mae_only_explained:
            self.mae_only_epochs = state["mae_only_epochs"]
        if self.fixed is not None and state.get("fixed_policy") is not None:
            self.fixed.before = state["fixed_policy"].to(self.where.device)

    def progress(self) -> dict:
        """As `Resumable.progress`: the unfinished epoch's diagnostics, and the episodes not yet learned from."""
        return {"diagnostics": self.diagnostics.state(), "episodes": self.buffer.state()}

    def restore_progress(self, state: dict) -> None:
        """As `Resumable.restore_progress`."""
        self.diagnostics.load(state["diagnostics"])
        self.buffer.load(state["episodes"], self.where.device)

    def draw(self) -> list[Path]:
        """Rank 0's pictures of this epoch in output_dir/pictures, where --vis_freq asks for them."""
        run, every = self.settings.run, self.settings.watch.vis_freq
        if not (every and run.output_dir and self.where.is_main and (self.epoch + 1) % every == 0):
            return []
        folder = Path(run.output_dir) / "pictures"
        sampler = self.sampler.module if self.sampler else None
        sheets = [] if self.fixed is None else self.fixed.draw(self.mae.module, sampler, self.num_visible, folder,
                                                               self.epoch)
        return [*sheets, draw_coverage(self.coverage, folder, self.epoch)]

    def run(self) -> None:
        """All epochs, with a line of log.txt after each; a signal ends it early, saved, see `Interrupts`."""
        run, optim = self.settings.run, self.settings.optim
        with RunLog(run, self.epoch, self.where.is_main) as log, self.interrupts:
            while self.epoch < optim.epochs:
                start = time.time()
                means = self.train_epoch()
                record = {f"train_{name}": value for name, value in means.items()}
                record |= {"train_lr": self.mae.optimizer.param_groups[0]["lr"], "epoch": self.epoch,
                           "step": self.mae.steps, "seconds": round(time.time() - start, 2)}
                if self.where.device.type == "cuda":   # Tables 3a to 3e; as VideoMAE's log counts it
                    record["peak_memory_gb"] = round(torch.cuda.max_memory_allocated(self.where.device) / 2**30, 2)
                log.epoch(record)   # before the checkpoint: a kill between the two loses no line
                if (self.epoch + 1) % run.save_ckpt_freq == 0 or self.epoch + 1 == optim.epochs or self.unsaved:
                    self.save()
                with outliving_a_full_disk("pictures"):
                    log.pictures(self.draw(), self.epoch)
                if self.where.is_main:
                    for message in alerts.alerts(record, self.settings.sampler):
                        logger.warning("epoch %d: %s", self.epoch, message)
                logger.info("epoch %d/%d %s", self.epoch, optim.epochs, _summary(means, record["seconds"]))
                self.epoch, self.position = self.epoch + 1, 0
            self.must_be_saved()


def _summary(means: dict[str, float], seconds: float) -> str:
    shown = ("loss", "reward", "sampling_loss", "entropy_share", "clip_fraction")
    numbers = ", ".join(f"{name} {means[name]:.4f}" for name in shown if name in means)
    return f"{numbers}, {seconds:.1f} s, {means['data_share']:.0%} of it waiting for data"


def build_loader(settings: Settings, where: runtime.Runtime, mae: nn.Module,
                 per_clip: Callable[[], torch.Tensor]) -> tuple[DataLoader, EpochSampler]:
    """The training loader and the sampler that orders its clips.

    Raises:
        FileNotFoundError, ValueError: the list is missing, empty or unreadable.
    """
    data, model = settings.data, settings.model
    clips = read_list(data.data_path, need_label=False)
    if data.verify_decode and where.is_main:
        verify_decode(clips, data.video_backend, data.verify_decode, settings.run.seed, data.decode_timeout)
    known = data_set(data.data_set) if data.data_set else None
    transform = pretrain_transform(data.pretrain_aug, clip_size(mae), flip=known.flip if known else True)
    bad = None
    if settings.run.output_dir:
        Path(settings.run.output_dir).mkdir(parents=True, exist_ok=True)
        bad = BadVideos(Path(settings.run.output_dir) / "bad_videos.txt", len(clips), data.max_bad_fraction)
    shape = ClipShape(model.num_frames, stride_of(settings.data.data_set, settings.data.sampling_rate))
    dataset = PretrainClips(clips, shape, transform, per_clip, data.video_backend, bad,
                            data.decode_timeout)
    order = EpochSampler(len(clips), settings.run.seed, where.rank, where.world_size)
    loader = DataLoader(dataset, settings.optim.batch_size, sampler=order, num_workers=data.num_workers,
                        pin_memory=data.pin_mem and where.device.type == "cuda", drop_last=True,
                        persistent_workers=data.num_workers > 0, worker_init_fn=outlive_signals,
                        generator=torch.Generator())   # not torch's own: loading moves nothing that a resume restores
    return loader, order
