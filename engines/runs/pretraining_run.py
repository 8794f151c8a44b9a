"""One pre-training run: built once, trained an epoch at a time, saved and resumed."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from ...datasets.catalog import data_set, stride_of
from ...datasets.clips import ClipShape, PretrainClips, RepeatedClips, joined_clips
from ...datasets.lists.epoch_order import EpochSampler
from ...datasets.lists.list_file import read_list
from ...datasets.transforms.pretraining import pretrain_transform
from ...models import create_model
from ..config.pretraining import Settings
from ..core import runtime
from ..core.lineage import source_of
from ..core.logs import Progress, RunLog, outliving_a_full_disk
from ..engine_for_pretraining import PretrainSetup
from ..engine_for_pretraining_ppo import EpisodeBuffer, PPOTraining
from ..figures.fixed_clips import FixedClips, draw_coverage, read_fixed_clips
from ..pretrain import alerts
from ..pretrain.diagnostics import Diagnostics
from ..pretrain.interface import clip_size, grid_of, patch_size_of
from ..pretrain.ppo import entropy_coefficient
from ..pretrain.reconstruction import Reconstruction
from ..pretrain.rewards import reward_of
from ..pretrain.trial import try_registered
from ..training.batches import Normalizer, OnDevice
from .dispatch import train_one_epoch
from .loading import training_loader, watched
from .pretraining_build import (
    build_learners,
    build_masking,
    build_sampler,
    check_decoded,
    initialise,
    model_config,
    sampler_config,
    sampler_config_in,
    say_what_begins,
    without_checkpointing,
)
from .training_run import TrainingRun

logger = logging.getLogger(__name__)

FLAT_ERROR_MAP = 0.1  # explained variance under which the MAE's errors do not yet say which tokens are hard


class Pretraining(TrainingRun):
    """One run: everything that is built once, an epoch at a time, saved and resumed."""

    def __init__(self, settings: Settings, here: runtime.Runtime):
        super().__init__(settings.run, here)
        self.settings, self.epochs = settings, settings.optim.epochs
        runtime.seed_everything(settings.run.seed)
        self.model_config = model_config(settings.model)
        mae = create_model(self.model_config["name"], **self.model_config["kwargs"])
        row, per_clip = build_masking(settings.mask, grid_of(mae))
        reward = reward_of(settings.sampler, grid_of(mae))
        check_decoded(settings, row, reward)
        self.sampler_config = sampler_config(settings.mask, settings.sampler)
        sampler = build_sampler(row, mae, self.sampler_config)
        self.loader, clip_order = clip_loader(settings, here, mae, per_clip)
        steps = len(self.loader) // settings.optim.update_freq
        if settings.model.init_from:
            initialise(mae, sampler, settings)
        precision = runtime.choose_precision(settings.optim.amp, here.device)
        fixed, names = read_fixed_clips(settings, mae, stride_of(settings.data.data_set, settings.data.sampling_rate))
        mae.to(here.device)
        if sampler is not None:
            sampler.to(here.device)
        self.mae, self.sampler = build_learners(mae, sampler, settings, steps, here, precision)
        self.diagnostics = Diagnostics(grid_of(mae), here.device)
        setup = PretrainSetup(here.device, Normalizer(here.device),
                              Reconstruction(settings.loss.loss, settings.loss.normlize_target), patch_size_of(mae),
                              settings.optim.update_freq, reward=reward, diagnostics=self.diagnostics,
                              decoder_mask_ratio=settings.loss.decoder_mask_ratio)
        self.fixed = FixedClips(fixed, setup.normalizer, setup.reconstruction, names) if fixed else None
        entropy = entropy_coefficient(sampler, settings.sampler, here.device)
        self.training = PPOTraining(setup, settings.sampler, entropy, self.epochs)
        self.learner_kind, self.per_clip = row.learner, per_clip
        if sampler is None or sampler.num_visible == per_clip.num_visible:
            mae.num_masked = grid_of(mae).num_tokens - per_clip.num_visible
        if here.rank:   # dropout and stochastic depth differ by process
            runtime.seed_everything(settings.run.seed + here.rank)
        say_what_begins(settings, row, (len(self.loader.dataset.clip_list), steps),
                        (per_clip.num_visible, grid_of(mae).num_tokens))
        random = settings.sampler.mae_only_epochs if row.learner == "ppo" else self.epochs * (sampler is None)
        try_registered(reward, setup.reconstruction, (self.mae, self.sampler), per_clip,
                       (random > 0, random < self.epochs))
        self.buffer, self.memory = EpisodeBuffer(), settings.sampler.update_every
        self.clips_a_row = settings.data.num_sample
        self.carries = row.learner == "ppo" and not settings.sampler.flush_buffer
        self.source = source_of(Path(settings.model.init_from), settings.model.trust_checkpoint) \
            if settings.model.init_from else None
        self.set_up({"MAE": self.mae, "sampler": self.sampler}, {"train": self.loader.dataset.clip_list}, clip_order,
                    settings)

    def train_epoch(self) -> dict[str, float]:
        """One pass over the data with the engine that the masking's row asks for; the means of what it reports.

        Raises:
            Stopped, NonFiniteError: see `Resumable.after_step`.
        """
        if not self.position:
            self.meters.reset()
            self.diagnostics.reset()
        for learner in (self.mae, self.sampler):   # the fixed clips were measured in eval mode
            if learner is not None:
                learner.module.train()
        progress = Progress(OnDevice(self.loader, self.runtime.device), f"epoch {self.epoch}", self.meters.means,
                            self.flags.print_freq, self.runtime.is_main)
        train_one_epoch(self.learner_kind, self.epoch, self.between_steps(progress, self.settings.optim.update_freq),
                        (self.mae, self.sampler), self.buffer, self.training, self.meters)
        self.check_steps()
        means = self.meters.means(self.runtime)
        self.judge_error_map(means)
        numbers, self.coverage = self.diagnostics.read(self.runtime)
        means |= numbers
        if self.fixed is not None:
            means |= self.fixed.measure(self.mae.module, self.sampler.module if self.sampler else None)
        return means | {"data_share": round(progress.data_share, 4)}

    def judge_error_map(self, means: dict[str, float]) -> None:
        """Before the policy's first epoch: wait, or warn, where the MAE's error map has nothing to teach it yet."""
        explained = means.get("explained_variance", FLAT_ERROR_MAP)
        if self.learner_kind != "ppo" or self.epoch + 1 != self.training.mae_only_epochs:
            return
        wanted = self.settings.sampler.mae_only_explained
        if wanted and explained < wanted:   # 0: m_o as given, also where the MAE is worse than the mean
            self.training.mae_only_epochs += 1
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
            "entropy_coef": float(self.training.entropy.value), "mae_only_epochs": self.training.mae_only_epochs,
            "fixed_policy": self.fixed.before if self.fixed else None, "reward": self.training.setup.reward.state(),
            "settings": {name: dict(group) for name, group in asdict(self.settings).items()},
        }

    def restore(self, state: dict, source: Path) -> None:
        """As `Resumable.restore`; refuses another model, grid or masking."""
        mask = self.settings.mask
        for name, saved, own in (
                ("config", without_checkpointing(state.get("config")), without_checkpointing(self.model_config)),
                ("mask_type", state.get("mask_type"), mask.mask_type),
                ("sampler_config", sampler_config_in(state, mask), self.sampler_config)):
            if saved != own:
                raise ValueError(f"cannot resume from {source}: it was written with {name} {saved}, this run has "
                                 f"{own}; use another --output_dir, or --auto_resume false")
        self.mae.load(state["model"], state["optimizer"], source.with_suffix(""))
        if self.sampler is not None:
            self.sampler.load(state["sampler"], state["sampler_optimizer"], source.with_suffix(""))
        if "entropy_coef" not in self.altered:
            self.training.entropy.value = torch.tensor(state["entropy_coef"])
        if self.settings.sampler.mae_only_explained and "mae_only_epochs" not in self.altered:
            self.training.mae_only_epochs = state["mae_only_epochs"]
        if "reward" not in self.altered:
            self.training.setup.reward.load(state.get("reward"))
        self._restore_fixed_policy(state)

    def _restore_fixed_policy(self, state: dict) -> None:
        """The policy's masks on the fixed clips, where these are the same clips."""
        watched = {name: state["settings"]["watch"].get(name) for name in ("vis_path", "vis_clips")}
        own = {name: getattr(self.settings.watch, name) for name in watched}
        if self.fixed is not None and state.get("fixed_policy") is not None and watched == own:
            self.fixed.before = state["fixed_policy"].to(self.runtime.device)

    def progress(self) -> dict:
        """As `Resumable.progress`: the unfinished epoch's diagnostics."""
        return {"diagnostics": self.diagnostics.state()}

    def own_share(self) -> dict:
        """As `Resumable.own_share`: the episodes not yet learned from."""
        return {"episodes": self.buffer.state()}

    def restore_progress(self, state: dict) -> None:
        """As `Resumable.restore_progress`."""
        self.diagnostics.load(state["diagnostics"])
        self.buffer.load(state.get("episodes", []), self.runtime.device)

    def restore_carried(self, state: dict) -> None:
        """As `Resumable.restore_carried`: with --no_flush_buffer, the episodes that wait for the next epoch's."""
        self.buffer.load(state.get("episodes", []), self.runtime.device)

    def epoch_record(self) -> dict[str, float]:
        """As `TrainingRun.epoch_record`."""
        record = {f"train_{name}": value for name, value in self.train_epoch().items()}
        return record | {"train_lr": self.mae.optimizer.param_groups[0]["lr"]}

    def after_epoch(self, log: RunLog, record: Mapping[str, float]) -> None:
        """Pictures, alerts, a line on the terminal."""
        with outliving_a_full_disk("pictures"):
            log.pictures(self.draw(), self.epoch)
        if self.runtime.is_main:
            acted = self.epoch + 1 - (self.training.mae_only_epochs if self.learner_kind == "ppo" else 0)
            for message in alerts.alerts(record, self.settings.sampler, young=alerts.is_young(acted)):
                logger.warning("epoch %d: %s", self.epoch, message)
        shown = ("loss", "reward", "sampling_loss", "entropy_share", "clip_fraction")
        numbers = ", ".join(f"{name} {record[f'train_{name}']:.4f}" for name in shown if f"train_{name}" in record)
        logger.info("epoch %d/%d %s, %.1f s, %.0f %% of it waiting for data", self.epoch, self.epochs, numbers,
                    record["seconds"], 100 * record["train_data_share"])

    def draw(self) -> list[Path]:
        """Rank 0's pictures of this epoch in output_dir/pictures, where --vis_freq asks for them."""
        every = self.settings.watch.vis_freq
        if not (every and self.folder is not None and self.runtime.is_main and (self.epoch + 1) % every == 0):
            return []
        folder, sampler = self.folder / "pictures", self.sampler.module if self.sampler else None
        sheets = [] if self.fixed is None else self.fixed.draw(self.mae.module, sampler, self.per_clip, folder,
                                                               self.epoch)
        return [*sheets, draw_coverage(self.coverage, folder, self.epoch)]


def clip_loader(settings: Settings, here: runtime.Runtime, mae: nn.Module,
                per_clip: Callable[[], torch.Tensor]) -> tuple[DataLoader, EpochSampler]:
    """The training loader and the sampler that orders its clips.

    Raises:
        FileNotFoundError, ValueError: the list is missing, empty, unreadable or too short for a step.
    """
    data = settings.data
    clips = read_list(data.data_path, need_label=False)
    known = data_set(data.data_set) if data.data_set else None
    transform = pretrain_transform(data.pretrain_aug, clip_size(mae), flip=data.flip and (known is None or known.flip))
    shape = ClipShape(settings.model.num_frames, stride_of(data.data_set, data.sampling_rate))
    parts = clips, shape, transform, per_clip, data.decoding, watched(clips, settings, here)
    if data.num_sample == 1:
        return training_loader(PretrainClips(*parts), settings, here)
    return training_loader(RepeatedClips(*parts, repeats=data.num_sample), settings, here, joined_clips,
                           settings.optim.batch_size // data.num_sample)
