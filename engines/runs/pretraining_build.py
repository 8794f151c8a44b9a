"""Building a pre-training run from its settings: model, masking, sampler, learners; and building one again."""

import logging
import os
import shutil
from pathlib import Path

import torch
from torch import nn

from ...datasets.catalog import stride_of
from ...masking import Masking, TokenGrid, TokenSampler, check_masks, check_sampler, find_masking
from ...models import create_model, read_checkpoint, use_kernel
from ...models.convert.checkpoints import compare, load_exactly, load_pretraining
from ..config.pretraining import MaskConfig, ModelConfig, SamplerConfig, Settings
from ..core.records import file_hash
from ..core.runtime import Precision, Runtime, rng_state, set_rng_state
from ..machine.threads import Work, work_of
from ..pretrain.interface import grid_of, token_width
from ..pretrain.rewards import Reward
from ..pretrain.unused_flags import idle_policy, policy_in_words, unused_flags
from ..pretrain.users_code import blaming, is_ours
from ..training.learner import Learner
from ..training.optim import optimizer_of, parameter_groups
from ..training.schedule import CosineSchedule, schedules_of
from .loading import clip_bytes, other_model

logger = logging.getLogger(__name__)


def model_config(config: ModelConfig) -> dict:
    """What `create_model` needs to build this model again; stored in the checkpoint."""
    kwargs = {"num_frames": config.num_frames, "tubelet_size": config.tubelet_size,
              "drop_path_rate": config.drop_path, "use_checkpoint": config.use_checkpoint}
    own = {"img_size": config.input_size, "decoder_depth": config.decoder_depth, "pos_embed": config.pos_embed}
    return {"name": config.model, "kwargs": kwargs | {name: value for name, value in own.items() if value is not None}}


def work_of_a_step(settings: Settings) -> Work:
    """Of the masked autoencoder, the sampler apart. Raises ValueError: the flags name no model or no masking."""
    config = model_config(settings.model)
    with torch.device("meta"):   # sizes without weights
        mae = create_model(config["name"], **config["kwargs"])
    grid = grid_of(mae)
    visible = build_masking(settings.mask, grid)[1].num_visible
    work = work_of({mae.encoder: visible, mae.decoder: grid.num_tokens}, settings.optim.batch_size,
                   settings.data.num_workers)
    return work._replace(clip_bytes=clip_bytes(mae.encoder.patch_embed))


def without_checkpointing(config: dict | None) -> dict | None:
    """The same network's description, whether or not it computes activations twice."""
    if config is None:
        return None
    return config | {"kwargs": {name: value for name, value in config["kwargs"].items() if name != "use_checkpoint"}}


def build_masking(config: MaskConfig, grid: TokenGrid):
    """The registry's row and its loader half, both checked against the grid.

    Raises:
        ValueError: unknown mask_type, ratio outside (0, 1), or a budget that the strategy cannot meet.
    """
    row, name = find_masking(config.mask_type), config.mask_type
    with blaming(f"the strategy {name!r}", row.per_clip, passing=ValueError):
        per_clip = row.per_clip(grid, config.mask_ratio, config.num_visible)
        if not is_ours(row.per_clip):
            before = rng_state()
            check_masks(per_clip, grid, name)
            set_rng_state(before)
    return row, per_clip


def check_decoded(settings: Settings, row: Masking, reward: Reward) -> None:
    """Raises ValueError: --decoder_mask_ratio beside what needs the error of every masked token."""
    if not settings.loss.decoder_mask_ratio or row.sampler is None:
        return
    if row.learner == "ppo" and settings.sampler.ppo_ratio == "resampled":
        raise ValueError("--decoder_mask_ratio leaves masked tokens without an error, and --ppo_ratio resampled (the "
                         "paper's recipe) needs all of them: add --ppo_ratio recorded")
    if reward.looks_again:
        raise ValueError(f"--decoder_mask_ratio leaves masked tokens without an error, and --reward "
                         f"{settings.sampler.reward} compares all of them: leave one of the two out")


def sampler_config(mask: MaskConfig, config: SamplerConfig) -> dict:
    """Keyword arguments of the row's sampler: the count of tokens, and what the row's `flags` name."""
    return {"mask_ratio": mask.mask_ratio, "visible": mask.num_visible} | {
        keyword: getattr(config, flag) for keyword, flag in find_masking(mask.mask_type).flags.items()}


def sampler_config_in(state: dict, mask: MaskConfig) -> dict | None:
    """`sampler_config` of a checkpoint; what it does not name, being older, counts as its flag's default."""
    saved = state.get("sampler_config")
    return None if saved is None else sampler_config(mask, SamplerConfig()) | saved


def build_sampler(row: Masking, mae: nn.Module, options: dict) -> TokenSampler | None:
    """The row's sampler for this model's tokens, or None where the loader's mask is all there is.

    Raises:
        ValueError: it does not keep to the contract of `TokenSampler`.
    """
    if row.sampler is None:
        return None
    with blaming(f"the sampler {getattr(row.sampler, '__name__', row.sampler)}", row.sampler, passing=ValueError):
        sampler = row.sampler(grid_of(mae), token_width(mae), **options)
        check_sampler(sampler, token_width(mae))
    return sampler


def rebuild(checkpoint: dict, sampler_weights: bool = True, source: object = "the file",
            ) -> tuple[nn.Module, TokenSampler | None, str]:
    """(model, sampler or None, mask_type) from one of our pre-training checkpoints, weights loaded, in eval mode.

    Args:
        sampler_weights: False leaves the sampler without them, where nobody asks it.
        source: where the checkpoint is from, for the errors.

    Raises:
        ValueError: it was not written by run_mae_pretraining, or by another version of it.
    """
    if lacks := ", ".join(sorted({"model", "config", "mask_type"} - set(checkpoint))):
        raise ValueError(f"{source} is not a checkpoint of run_mae_pretraining, as one of fine-tuning is not: it lacks "
                         f"{lacks}")
    mae = create_model(checkpoint["config"]["name"], **checkpoint["config"]["kwargs"])
    load_exactly(mae, checkpoint["model"], f"the model of {source}")
    sampler = build_sampler(find_masking(checkpoint["mask_type"]), mae, checkpoint["sampler_config"])
    if sampler is not None:
        if sampler_weights:
            load_exactly(sampler, checkpoint["sampler"], f"the sampler of {source}")
        sampler.eval()
    return mae.eval(), sampler, checkpoint["mask_type"]


def as_begun(checkpoint: dict, name: object) -> tuple[nn.Module, TokenSampler | None] | None:
    """The networks as they were before the run's first step, in eval mode: with the weights of its --init_from, if any;
    None where that file is gone or is another one now, which a warning says of the checkpoint `name`."""
    settings = checkpoint["settings"]
    torch.manual_seed(settings["run"]["seed"])
    mae = create_model(checkpoint["config"]["name"], **checkpoint["config"]["kwargs"])
    sampler = build_sampler(find_masking(checkpoint["mask_type"]), mae, checkpoint["sampler_config"])
    model, source = settings["model"], checkpoint.get("source") or {}
    if given := model.get("init_from"):
        path = Path(source.get("path", given))
        if not path.is_file() or source.get("sha256") not in (None, file_hash(path)):
            logger.warning("%s: no line before training, %s is not there any more, or has changed", name, given)
            return None
        weights = read_checkpoint(path, model.get("trust_checkpoint", False))
        _, sampler_state = load_pretraining(mae, weights, allow_partial=model.get("allow_partial", False))
        initialise_sampler(sampler, sampler_state, given)
    return mae.eval(), sampler if sampler is None else sampler.eval()


def build_learners(mae: nn.Module, sampler: TokenSampler | None, settings: Settings, steps_per_epoch: int,
                   runtime: Runtime, precision: Precision) -> tuple[Learner, Learner | None]:
    """f_phi and g_theta with their optimisers; theta's is apart, so that neither phase can move the other."""
    optim = settings.optim
    lr, decay = schedules_of(optim, steps_per_epoch, runtime.world_size)
    if settings.sampler.trajectory_kernel != "plain":
        use_kernel(sampler, settings.sampler.trajectory_kernel, runtime.device)
    if settings.model.plain_attention:
        keep_attention_weights(mae, sampler)
    if settings.model.compile:
        compile_in_place(mae, sampler)

    def learner(net: nn.Module, rate, skip: tuple[str, ...]) -> Learner:
        optimizer = optimizer_of(parameter_groups(net, optim.weight_decay, skip), optim)
        return Learner(net, optimizer, rate, weight_decay=decay, clip_grad=optim.clip_grad, runtime=runtime,
                       precision=precision)

    phi = learner(mae, lr, ("mask_token", "encoder.pos_embed"))
    how = find_masking(settings.mask.mask_type).learner
    if sampler is None:
        return phi, None
    if how is None:
        return phi, Learner(sampler, precision=precision)
    if how == "ppo":
        return phi, learner(sampler, sampler_schedule(settings.sampler, optim.epochs, steps_per_epoch), ())
    return phi, learner(sampler, lr, ())  # AdaMAE trains its sampler with the MAE's own optimiser settings


def compile_in_place(*nets: nn.Module | None) -> None:
    """torch.compile for each network's call; their weights keep their names.

    Raises:
        ValueError: there is no compiler that it could use.
    """
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise ValueError(f"--compile needs a C++ compiler and finds no {compiler}: install one, name it in CXX, or "
                         "leave the flag out")
    for net in nets:
        if net is not None:
            net.compile()


def initialise(mae: nn.Module, sampler: TokenSampler | None, settings: Settings) -> None:
    """--init_from: a published or own pre-training checkpoint; refuses one that does not fit."""
    path = settings.model.init_from
    source = read_checkpoint(path, settings.model.trust_checkpoint)
    try:
        report, sampler_state = load_pretraining(mae, source, allow_partial=settings.model.allow_partial)
    except ValueError as error:
        raise ValueError(f"--init_from {path}: {error}{other_model(source, mae, settings.model.model)}") from error
    logger.info("%s", report._replace(source=path))
    initialise_sampler(sampler, sampler_state, path)


def initialise_sampler(sampler: TokenSampler | None, state: dict, source: str) -> bool:
    """Load a checkpoint's sampler where it is one of this run's kind and grid; says in the log what it did."""
    if sampler is None or not state:
        return False
    report = compare(sampler, state, source)
    if not report.whole:
        logger.warning("the sampler starts fresh, that of %s is another one (%s)", source, report.faults())
        return False
    sampler.load_state_dict(state)
    logger.info("the sampler starts from %s too, %d tensors", source, len(report.matched))
    return True


def say_what_begins(settings: Settings, row: Masking, size: tuple[int, int], tokens: tuple[int, int]) -> None:
    """The run in a line of the log, and the flags that do not do what they read.

    Args:
        size: videos, and steps of an epoch. tokens: visible ones of a clip, and all.
    """
    data, mask, epochs = settings.data, settings.mask, settings.optim.epochs
    logger.info("%s on %d videos: %d epochs of %d steps; clips of %d frames at stride %d, --mask_type %s shows %d of "
                "%d tokens", settings.model.model, size[0], epochs, size[1], settings.model.num_frames,
                stride_of(data.data_set, data.sampling_rate), mask.mask_type, *tokens)
    if row.learner == "ppo" and (idle := idle_policy(settings.sampler, epochs, size[1])):
        logger.warning("%s", idle)
    if row.sampler is not None:
        logger.info("the policy: %s", policy_in_words(row, settings.sampler))
    if unused := unused_flags(row, settings.sampler):
        named = ", ".join(f"--{name}" for name in unused)
        logger.info("without effect in this run (%s): %s", "other flags leave it without a part" if
                    row.learner == "ppo" else f"--mask_type {mask.mask_type} does not read it", named)


def sampler_schedule(config: SamplerConfig, epochs: int, steps_per_epoch: int) -> CosineSchedule:
    """Learning rate of theta by its own updates: one a step and pass once the policy acts, whatever k."""
    final = config.sampler_lr if config.sampler_lr_final is None else config.sampler_lr_final
    an_epoch = steps_per_epoch * config.ppo_epochs
    total = max(0, epochs - config.mae_only_epochs) * an_epoch
    return CosineSchedule(config.sampler_lr, final, total, min(config.sampler_warmup_epochs * an_epoch, total))


def keep_attention_weights(*nets: nn.Module | None) -> None:
    """Attention in timm's blocks no longer goes through fused kernels: N x N weights stay for the backward pass."""
    for module in (module for net in nets if net is not None for module in net.modules()):
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
