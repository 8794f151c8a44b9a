"""Features of every video of a list, from a pre-trained or a fine-tuned encoder, as one .npz file.

    python -m tats.engines.extract_features --checkpoint checkpoint-399.pth --list videos.csv --out features.npz

It holds `features` (N, D) float32, the mean over a video's views of what fc_norm gives (zeros where `readable` is
False), `labels` (N,) int64 (-1: none), `paths` (N,) and `readable` (N,) bool, in the order of the list.
"""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader

from ..datasets.catalog import data_set, stride_of
from ..datasets.files import written_whole
from ..datasets.labelled import Sampling, TestViews, Views
from ..datasets.lists.list_file import read_list
from ..datasets.program import run_program
from ..models import create_model, load_encoder, read_checkpoint
from .config.common import LoaderConfig
from .config.flags import FlagParser, add_flags, flag, from_args
from .core import runtime
from .core.logs import set_up_logging
from .engine_for_finetuning import EvaluationSetup, evaluate_rows
from .finetune.evaluation import evaluation_rows
from .finetune.frozen import features_of
from .runs.finetuning_build import square_size
from .runs.loading import worker_options
from .training.batches import Normalizer

logger = logging.getLogger(__name__)

_CLASSIFIER_NAMES = {"pretrain_videomae_": "vit_", "pretrain_tats_": "vit_tats_"}
_SHARED = {"img_size": "img_size", "pos_embed": "pos_embed", "tubelet_size": "tubelet_size",
           "num_frames": "all_frames", "all_frames": "all_frames", "use_mean_pooling": "use_mean_pooling"}


@dataclass(frozen=True)
class ExtractConfig(LoaderConfig):
    """Features"""

    checkpoint: str = flag("", "weights: ours, VideoMAE's, AdaMAE's; pre-trained or fine-tuned")
    list: str = flag("", "list file: a video path a line, an optional label behind it")
    out: str = flag("features.npz", "file that is written")
    model: str | None = flag(None, "name in the model table; None: what the checkpoint says (only ours do)")
    num_frames: int | None = flag(None, "frames of a clip; None: the checkpoint's, else 16")
    input_size: int | None = flag(None, "side of a clip in pixels; None: the checkpoint's, else the model's own")
    model_key: str = flag("model|module", "where the weights are in the file")
    trust_checkpoint: bool = flag(False, "allow pickled objects in the checkpoint; runs their code")
    data_set: str = flag("", "gives the sampling of clips: dense or, for SSV2, by segments")
    sampling_rate: int | None = flag(None, "stride between frames; None: that of --data_set, else 4")
    segments: int = flag(1, "clips of a video in time")
    crops: int = flag(1, "crops of a clip")
    batch_size: int = flag(16, "clips at once")
    amp: str = flag("auto", "compute dtype", choices=("auto", "fp32", "bf16", "fp16"))
    device: str = flag("auto", "auto, cuda or cpu")
    dist_url: str = flag("env://", "where the processes meet")


def get_parser() -> FlagParser:
    """The program's command line."""
    parser = FlagParser("extract_features", description=__doc__.splitlines()[0])
    add_flags(parser, ExtractConfig)
    return parser


def build_encoder(config: ExtractConfig):
    """The classifier network without a head, in eval mode, with the checkpoint's weights.

    Raises:
        FileNotFoundError, ValueError: no checkpoint, no model name, or weights of another network.
    """
    if not config.checkpoint:
        raise ValueError("--checkpoint is missing: give the file with the weights")
    source = read_checkpoint(config.checkpoint, config.trust_checkpoint)
    described = source.get("config") or {}
    name = config.model or described.get("name")
    if name is None:
        raise ValueError(f"{config.checkpoint} does not say which model it holds; give --model, one of vit_*")
    for prefix, classifier in _CLASSIFIER_NAMES.items():
        if name.startswith(prefix):
            name = classifier + name.removeprefix(prefix)
    kwargs = {own: described["kwargs"][key] for key, own in _SHARED.items() if key in described.get("kwargs", {})}
    given = {"all_frames": config.num_frames, "img_size": config.input_size}
    kwargs |= {key: value for key, value in given.items() if value is not None}
    net = create_model(name, num_classes=0, **kwargs)
    try:
        logger.info("%s", load_encoder(net, source, model_key=config.model_key))
    except ValueError as error:
        raise ValueError(f"{config.checkpoint}: {error}") from error
    return net.eval()


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; bad input ends with one line and exit code 2."""
    config = from_args(ExtractConfig, get_parser().parse_args(sys.argv[1:] if argv is None else list(argv)))
    if not config.list:
        raise ValueError("--list is missing: give a list file with a video path a line")
    known = data_set(config.data_set) if config.data_set else None
    where = runtime.start(config.device, config.dist_url)
    set_up_logging(where.is_main)
    clips, net = read_list(config.list, need_label=False), build_encoder(config).to(where.device)
    sampling = Sampling(known.style if known else "dense", net.patch_embed.num_frames,
                        stride_of(config.data_set, config.sampling_rate))
    views = Views(config.segments, config.crops, square_size(net))
    loader = DataLoader(TestViews(clips, sampling, views, config.decoding),
                        max(1, config.batch_size // views.count),
                        sampler=evaluation_rows(len(clips), where.rank, where.world_size),
                        **worker_options(config, where))
    features = features_of(net, runtime.choose_precision(config.amp, where.device))
    table = evaluate_rows(loader, features, EvaluationSetup(Normalizer(where.device), where, config.batch_size),
                          len(clips))
    if where.is_main:
        for fault in table.faults.values():
            logger.warning("no features: %s", fault)
        write_features(Path(config.out), table.values.float().numpy(), {
            "labels": clips.labels, "paths": np.array(list(clips.paths)), "readable": table.readable.numpy()})
        logger.info("%s: %d x %d features", config.out, *table.values.shape)
    runtime.stop(where)


def write_features(out: Path, features: np.ndarray, others: dict[str, np.ndarray]) -> None:
    """The .npz file, whole or not at all."""
    with written_whole(out, "wb") as file:
        np.savez(file, features=features, **others)


if __name__ == "__main__":
    run_program(main)
