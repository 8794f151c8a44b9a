"""A finished classifier out of its checkpoint: the network, its class names, and how it was tested."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from ...datasets.catalog import data_set
from ...datasets.labelled import Views
from ...models import read_checkpoint
from ...models.convert.class_names import class_names_of
from ...models.convert.files import find_weights
from ...models.export_hf import build, config_of
from ..config.common import LoaderConfig
from ..config.finetuning import (
    AugmentConfig,
    ClassifierConfig,
    ClassifierOptimConfig,
    ClassifierRunConfig,
    EvaluationConfig,
    LabelledDataConfig,
    Settings,
    ZeroConfig,
)
from ..config.flags import flag
from .finetuning_build import Task, resolve_task, square_size

logger = logging.getLogger(__name__)

_CUTTING = ("data_set", "sampling", "sampling_rate", "short_side_size", "test_num_segment", "test_num_crop")


@dataclass(frozen=True)
class PredictConfig(LoaderConfig):
    """Answers"""

    out: str = flag("predictions", "folder for predictions.csv, predictions.json and predictions.png")
    top_k: int = flag(5, "classes that are written for each video", within="[1, inf)")
    sheet: int = flag(12, "videos in predictions.png, the first ones; 0: no picture", within="[0, inf)")
    ignore_labels: bool = flag(False, "labels of the list are not read: they mean other classes than the checkpoint's")
    model: str = flag("", "name in the model table, for checkpoints that do not say which model they hold")
    num_frames: int | None = flag(None, "with --model: frames of a clip; None: 16", within="[1, inf)")
    input_size: int | None = flag(None, "with --model: side of a clip in pixels; None: 224", within="[1, inf)")
    model_key: str = flag("model|module", "where the weights are in the file (model_ema: their average)")
    trust_checkpoint: bool = flag(False, "allow pickled objects in the checkpoint; runs their code")
    data_set: str | None = flag(None, "gives sampling and views, as in fine-tuning; None: the checkpoint's")
    sampling: str | None = flag(None, "how a clip is cut out; None: as in the checkpoint's test",
                                choices=("dense", "segments"))
    sampling_rate: int | None = flag(None, "stride between frames; None: the checkpoint's", within="[1, inf)")
    short_side_size: int | None = flag(None, "shorter side before the crop; None: the checkpoint's", within="[1, inf)")
    test_num_segment: int | None = flag(None, "clips of a video in time; None: the checkpoint's", within="[1, inf)")
    test_num_crop: int | None = flag(None, "crops of a clip; None: the checkpoint's", within="[1, inf)")
    batch_size: int = flag(16, "clips at once", within="[1, inf)")
    amp: str = flag("auto", "compute dtype", choices=("auto", "fp32", "bf16", "fp16"))
    device: str = flag("auto", "auto, cuda or cpu")
    dist_url: str = flag("env://", "where the processes meet")


@dataclass(frozen=True)
class Predictor:
    """net: in eval mode, on the CPU. class_names: None where the checkpoint has none. settings: of its test."""

    net: torch.nn.Module
    class_names: list[str] | None
    settings: Settings
    task: Task

    @property
    def size(self) -> int:
        """Side in pixels of the clips."""
        return square_size(self.net)

    @property
    def views(self) -> Views:
        """The clips of a video that are averaged."""
        return Views(self.task.segments, self.task.crops, self.size, self.settings.data.short_side_size)


def load_predictor(path: str, config: PredictConfig) -> Predictor:
    """The classifier of a checkpoint; flags that are given win over what the checkpoint says of its test.

    Raises:
        FileNotFoundError, ValueError: no checkpoint, no classifier, no model name, or flags that contradict it.
    """
    checkpoint = read_checkpoint(path, config.trust_checkpoint)
    described = None
    if config.model:
        described = config_of(config.model, find_weights(checkpoint, config.model_key), config.num_frames or 16,
                              config.input_size or 224)
    elif config.num_frames or config.input_size:
        raise ValueError("--num_frames and --input_size are the clip's of --model; without it the checkpoint says "
                         "them: leave them out")
    try:
        net, _ = build(checkpoint, described, config.model_key)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    classes = getattr(net, "num_classes", 0)
    if not hasattr(net, "forward_features") or classes < 1:
        raise ValueError(f"{path} is no classifier but a pre-trained network, which knows no classes: fine-tune it "
                         "first (python -m tats.engines.run_class_finetuning --finetune)")
    settings = _settings_of(checkpoint, config, classes, path)
    task = resolve_task(settings.data, net.patch_embed.num_frames)
    return Predictor(net, class_names_of(checkpoint, classes), settings, task)


def _settings_of(checkpoint: Mapping[str, Any], config: PredictConfig, classes: int, path: str) -> Settings:
    groups = checkpoint.get("settings")
    trained = groups.get("data") if isinstance(groups, Mapping) else None
    given = {name: getattr(config, name) for name in _CUTTING if getattr(config, name) is not None}
    if not isinstance(trained, Mapping):
        trained = {}
        if not {"data_set", "sampling_rate", "sampling"} & set(given):
            logger.warning("%s does not say how its clips were cut out: taking 5 x 3 dense views at stride 4; "
                           "--data_set or --sampling, --sampling_rate, --test_num_segment and --test_num_crop say "
                           "otherwise", path)
    if config.data_set and (known := data_set(config.data_set).classes) != classes:
        raise ValueError(f"--data_set {config.data_set} has {known} classes, but {path} has {classes}: say how clips "
                         "are cut out with --sampling, --sampling_rate, --test_num_segment and --test_num_crop")
    if "data_set" in given:   # another row of the catalog takes what belongs to the old one along
        trained = {}
    known = {name: trained[name] for name in _CUTTING if name in trained}
    loading = {item.name: getattr(config, item.name) for item in fields(LoaderConfig)}
    data = LabelledDataConfig(**{**loading, **known, **given, "nb_classes": classes, "data_path": "."})
    optim = replace(ClassifierOptimConfig(), batch_size=config.batch_size, amp=config.amp)
    return Settings(ClassifierConfig(), data, AugmentConfig(), optim, EvaluationConfig(), ZeroConfig(),
                    ClassifierRunConfig())
