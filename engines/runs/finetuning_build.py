"""Building a fine-tuning run from its settings: task, classifier, loaders, learner."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from ...datasets.catalog import data_set, stride_of
from ...datasets.labelled import LabelledClips, Sampling, TestViews, Views, flatten_repeats
from ...datasets.lists.class_names import count_class_names
from ...datasets.lists.epoch_order import EpochSampler
from ...datasets.lists.list_file import ClipList
from ...datasets.transforms.finetuning import SCALE, FinetuneTransform
from ...models import create_model, load_encoder, read_checkpoint
from ..config.finetuning import ClassifierConfig, LabelledDataConfig, Settings
from ..core import checkpointing
from ..core.run_folder import BEST
from ..core.runtime import Precision, Runtime
from ..finetune.evaluation import evaluation_rows, nothing_read
from ..machine.threads import Work, work_of
from ..training.layer_decay import layer_decay_scale
from ..training.learner import Learner
from ..training.optim import optimizer_of, parameter_groups
from ..training.schedule import schedules_of
from .loading import clip_bytes, other_model, training_loader, watched, worker_options

logger = logging.getLogger(__name__)

_FIRST = 20   # videos of a list that is evaluated, one of which must be readable


class Task(NamedTuple):
    """What is to be told apart, and how clips are cut out: the flags over the data set's row of the catalog."""

    classes: int
    sampling: Sampling
    flip: bool
    segments: int
    crops: int


def resolve_task(data: LabelledDataConfig, num_frames: int) -> Task:
    """Raises ValueError: neither --data_set nor --nb_classes, or two that contradict each other."""
    if not data.data_path:
        raise ValueError("--data_path is missing: give a folder with train.csv, val.csv and test.csv (python -m "
                         "tats.datasets.build_lists makes them, tats.datasets.moving_shapes a toy set)")
    known = data_set(data.data_set) if data.data_set else None
    if known is None and data.nb_classes is None:
        names = count_class_names(data.data_path)
        raise ValueError("give --data_set NAME, or --nb_classes for lists of your own" +
                         (f": --nb_classes {names}, as {data.data_path}/classes.txt names them" if names else ""))
    if known and data.nb_classes not in (None, known.classes):
        raise ValueError(f"--nb_classes {data.nb_classes}, but {data.data_set} has {known.classes} classes")
    classes = data.nb_classes if known is None else known.classes
    sampling = Sampling(data.sampling or (known.style if known else "dense"), num_frames,
                        stride_of(data.data_set, data.sampling_rate))
    return Task(classes, sampling, data.flip and (known is None or known.flip), *_views(data))


def _views(data: LabelledDataConfig) -> tuple[int, int]:
    """Clips in time and crops of a test video: the flags over the data set's row of the catalog."""
    known = data_set(data.data_set) if data.data_set else None
    segments, crops = (known.test_segments, known.test_crops) if known else (5, 3)
    return (segments if data.test_num_segment is None else data.test_num_segment,
            crops if data.test_num_crop is None else data.test_num_crop)


def with_defaults_of_the_data_set(settings: Settings) -> Settings:
    """The settings with numbers where a flag was left to --data_set: for --explain, which reads no list."""
    data = settings.data
    segments, crops = _views(data)
    return replace(settings, data=replace(data, sampling_rate=stride_of(data.data_set, data.sampling_rate),
                                          test_num_segment=segments, test_num_crop=crops))


def classifier_config(config: ClassifierConfig, classes: int, source: Mapping[str, Any]) -> dict:
    """What `create_model` needs to build this classifier again; stored in the checkpoint.

    Args:
        source: the checkpoint of --finetune: the positions it was trained with are taken over. {}: none.
    """
    kwargs = {"num_classes": classes, "all_frames": config.num_frames, "tubelet_size": config.tubelet_size,
              "fc_drop_rate": config.fc_drop_rate, "drop_rate": config.drop, "attn_drop_rate": config.attn_drop_rate,
              "drop_path_rate": config.drop_path, "init_scale": config.init_scale,
              "use_mean_pooling": config.use_mean_pooling and not config.use_cls,
              "use_checkpoint": config.use_checkpoint}
    trained_with = (source.get("config") or {}).get("kwargs", {}).get("pos_embed")
    own = {"img_size": config.input_size, "pos_embed": config.pos_embed or trained_with}
    return {"name": config.model, "kwargs": kwargs | {name: value for name, value in own.items() if value is not None}}


def build_classifier(config: ClassifierConfig, classes: int, whole: bool, key: str) -> tuple[nn.Module, dict]:
    """(classifier with the weights of --finetune, its configuration).

    Args:
        whole: the head must come from the file too (`--eval`).
        key: where the weights are in the file, see `find_weights`.

    Raises:
        FileNotFoundError, ValueError: the file is missing, damaged, or holds another network.
    """
    source = read_checkpoint(config.finetune, config.trust_checkpoint) if config.finetune else {}
    description = classifier_config(config, classes, source)
    classifier = create_model(description["name"], **description["kwargs"])
    if config.finetune:
        load_weights(classifier, source, config, whole, key)
    return classifier, description


def work_of_a_step(settings: Settings) -> Work:
    """Of the classifier, whatever its head. Raises ValueError: the flags name no model."""
    kwargs = classifier_config(settings.model, 1, {})["kwargs"]
    with torch.device("meta"):   # sizes without weights
        net = create_model(settings.model.model, **kwargs)
    embed = (net if hasattr(net, "patch_embed") else net.encoder).patch_embed
    work = work_of({net: embed.num_patches}, settings.optim.batch_size * settings.data.num_sample,
                   settings.data.num_workers)
    return work._replace(clip_bytes=clip_bytes(embed))


def load_weights(classifier: nn.Module, source: Mapping[str, Any], config: ClassifierConfig, whole: bool,
                 key: str) -> None:
    """Put a checkpoint's weights into the classifier and log the table of what matched.

    Raises:
        ValueError: they are another network's, or `whole` and some are missing.
    """
    try:
        report = load_encoder(classifier, source, model_key=key, allow_partial=config.allow_partial)
    except ValueError as error:
        hint = other_model(source, classifier, config.model)
        raise ValueError(f"--finetune {config.finetune}: {error}{hint}") from error
    logger.info("%s", report._replace(source=config.finetune))
    if whole and report.missing:
        raise ValueError(f"{config.finetune} is no fine-tuned classifier of {classifier.num_classes} classes: it "
                         f"lacks {', '.join(report.missing[:4])}; --eval needs one")


def square_size(classifier: nn.Module) -> int:
    """Side in pixels of the clips that a classifier takes."""
    height, width = classifier.img_size
    if height != width:
        raise ValueError(f"the loaders make square clips, the model takes {height} x {width}")
    return height


def unseen_classes(lists: Mapping[str, ClipList]) -> list[str]:
    """A line for each list with videos of classes that the training list has none of: nothing can find these."""
    trained = np.unique(lists["train"].labels) if "train" in lists else None
    lines = []
    for clips in lists.values() if trained is not None else ():
        unseen = ~np.isin(clips.labels, trained)
        if unseen.any():
            classes = np.unique(clips.labels[unseen])
            lines.append(f"{int(unseen.sum())} of {len(clips)} videos of {clips.source} are of {len(classes)} "
                         f"class(es) without a training video, label {classes[0]} first: none of them can be found")
    return lines


def labelled_loader(clips: ClipList, task: Task, size: int, settings: Settings,
                    runtime: Runtime) -> tuple[DataLoader, EpochSampler]:
    """The loader of one epoch's clips (uint8 (B R, 3, T, S, S), labels (B R,)), and what orders them.

    Raises:
        ValueError: too few clips for a step.
    """
    data, augment = settings.data, settings.augment
    transform = FinetuneTransform(size, task.flip, augment.aa, augment.train_interpolation,
                                  tuple(augment.crop_scale or SCALE))
    dataset = LabelledClips(clips, task.sampling, transform, data.num_sample, decoding=data.decoding,
                            bad_videos=watched(clips, settings, runtime))
    loader, order = training_loader(dataset, settings, runtime, flatten_repeats)
    frames, stride = task.sampling.num_frames, task.sampling.stride
    how = f"at stride {stride}" if task.sampling.style == "dense" else "from as many parts of the video"
    logger.info("%s on %d videos of %d classes: %d epochs of %d steps; clips of %d frames %s, the test in %d x %d "
                "views", settings.model.model, len(clips), task.classes, settings.optim.epochs,
                len(loader) // settings.optim.update_freq, frames, how, task.segments, task.crops)
    return loader, order


def evaluation_loader(clips: ClipList, task: Task, views: Views, settings: Settings, runtime: Runtime) -> DataLoader:
    """The loader of this process's share of the videos with all their views; see `evaluate_rows`."""
    data = settings.data
    return DataLoader(TestViews(clips, task.sampling, views, data.decoding),
                      max(1, settings.optim.batch_size // views.count),
                      sampler=evaluation_rows(len(clips), runtime.rank, runtime.world_size),
                      **worker_options(data, runtime))


def unreadable(clips: ClipList, task: Task, views: Views, settings: Settings) -> str | None:
    """What to say where none of the first videos can be read."""
    dataset, fault = TestViews(clips, task.sampling, views, settings.data.decoding), None
    for row in range(min(_FIRST, len(clips))):
        sample = dataset[row]
        if not sample.fault:
            return None
        fault = fault or sample.fault
    return nothing_read(clips.source if len(clips) <= _FIRST else f"the first rows of {clips.source}",
                        min(_FIRST, len(clips)), fault)


def build_learner(classifier: nn.Module, settings: Settings, steps_per_epoch: int, runtime: Runtime,
                  precision: Precision) -> Learner:
    """The classifier with its optimiser, under DeepSpeed where asked, else under DDP or alone."""
    optim, zero = settings.optim, settings.zero
    lr, decay = schedules_of(optim, steps_per_epoch, runtime.world_size)
    groups = parameter_groups(classifier, optim.weight_decay, classifier.no_weight_decay(),
                              layer_decay_scale(classifier.get_num_layers(), optim.layer_decay))
    optimizer = optimizer_of(groups, optim, fused=False if zero.enable_deepspeed else None)
    if not zero.enable_deepspeed:
        return Learner(classifier, optimizer, lr, weight_decay=decay, clip_grad=optim.clip_grad, runtime=runtime,
                       precision=precision)
    from ..training.deepspeed_zero import ZeroLearner, deepspeed_config

    config = deepspeed_config(zero.zero_stage, optim, precision, runtime.world_size)
    return ZeroLearner(classifier, optimizer, lr, config, weight_decay=decay, runtime=runtime, precision=precision)


def weights_file(settings: Settings, folder: Path | None) -> Path | None:
    """The file whose weights the run starts from. With --eval: --resume, else --finetune, else output_dir's own.

    Raises:
        ValueError: --eval and there is none.
    """
    evaluation, finetune = settings.evaluation, settings.model.finetune
    if not evaluation.eval:
        return Path(finetune) if finetune else None
    named = settings.run.resume or finetune
    if named:
        if evaluation.test_weights == "best" and Path(named).name != BEST:   # no result says "best" of another file
            raise ValueError(f"--test_weights best is {BEST} of a run, and {named} is named: leave one of them out")
        return Path(named)
    if folder is not None:
        if evaluation.test_weights == "best" and (folder / BEST).is_file():
            return folder / BEST
        if evaluation.test_weights != "best" and (found := checkpointing.newest_whole(folder)):
            return found[0]
    raise ValueError("--eval: nothing to evaluate; give --resume or --finetune FILE, or an --output_dir that holds "
                     "the checkpoints of a run")
