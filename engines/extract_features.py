"""Features of every video of a list, from a pre-trained or a fine-tuned encoder, as one .npz file.

    python -m tats.engines.extract_features --checkpoint checkpoint-399.pth --list videos.csv --out features.npz

It holds `features` (N, D) float32, the mean over a video's views of what fc_norm gives (zeros where `readable` is
False), `labels` (N,) int64 (-1: none), `paths` (N,) and `readable` (N,) bool, in the order of the list. With
--per_token `features` is (N, tokens, D).

    python -m tats.engines.extract_features --checkpoint ... --list long_videos.csv --windows 64 16 --out features.h5
    python -m tats.engines.extract_features --checkpoint ... --list long_videos.csv --windows 2.5s 1s --out features.npz

slide a window over each video: `features` of every window with its `start` and `end` in seconds. The .h5 file has a
group for each row of the list, the .npz file all windows one behind another with the `row` that each belongs to. The
same command goes on where a stopped one was.
"""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from torch import nn
from torch.utils.data import DataLoader

from ..datasets.catalog import data_set, stride_of
from ..datasets.files import require_writable, written_whole
from ..datasets.labelled import Sampling, TestViews, Views
from ..datasets.lists.list_file import ClipList, read_list
from ..datasets.program import run_program
from ..datasets.sources.kept_arrays import keep_indexes
from ..datasets.sources.kept_files import keep_remote_files
from ..datasets.windows import WindowClips, Windows
from ..models import create_model, load_encoder, read_checkpoint
from .config.common import LoaderConfig
from .config.flags import FlagParser, add_flags, flag, from_args
from .core import runtime
from .core.logs import set_up_logging
from .engine_for_finetuning import EvaluationSetup, PerClip, evaluate_rows
from .finetune.evaluation import evaluation_rows, file_hash
from .finetune.frozen import features_of, tokens_of
from .machine.threads import use_threads
from .runs.finetuning_build import square_size
from .runs.loading import worker_options
from .runs.window_features import HDF5_ENDINGS, Parts, extract, require_hdf5
from .training.batches import Normalizer

logger = logging.getLogger(__name__)

_MOST_BYTES = 32 << 30   # of the table of features of a whole list
_CLASSIFIER_NAMES = {"pretrain_videomae_": "vit_", "pretrain_tats_": "vit_tats_"}
_OF_VIEWS = ("data_set", "sampling_rate", "segments", "crops")
_SHARED = {"img_size": "img_size", "pos_embed": "pos_embed", "tubelet_size": "tubelet_size",
           "num_frames": "all_frames", "all_frames": "all_frames", "use_mean_pooling": "use_mean_pooling"}


@dataclass(frozen=True)
class ExtractConfig(LoaderConfig):
    """Features"""

    checkpoint: str = flag("", "weights: ours, VideoMAE's, AdaMAE's; pre-trained or fine-tuned")
    list: str = flag("", "list file: a video path a line, an optional label behind it")
    out: str = flag("features.npz", "file that is written")
    model: str | None = flag(None, "name in the model table; None: what the checkpoint says (only ours do)")
    num_frames: int | None = flag(None, "frames of a clip; None: the checkpoint's, else 16", within="[1, inf)")
    input_size: int | None = flag(None, "side of a clip in pixels; None: the checkpoint's, else the model's own",
                                   within="[1, inf)")
    model_key: str = flag("model|module", "where the weights are in the file")
    trust_checkpoint: bool = flag(False, "allow pickled objects in the checkpoint; runs their code")
    data_set: str = flag("", "gives the sampling of clips: dense or, for SSV2, by segments")
    sampling_rate: int | None = flag(None, "stride between frames; None: that of --data_set, else 4",
                                      within="[1, inf)")
    segments: int = flag(1, "clips of a video in time", within="[1, inf)")
    crops: int = flag(1, "crops of a clip", within="[1, inf)")
    windows: Sequence[str] | None = flag(None, "size and stride of a window that slides over each video, both in "
                                         "frames (64 16) or both in seconds (2.5s 1s), instead of segments and crops",
                                         nargs=2, type=str, metavar=("SIZE", "STRIDE"))
    per_token: bool = flag(False, "features of every token instead of a clip's mean")
    fps: float | None = flag(None, "with --windows: frames a second, for folders of pictures", within="(0, inf)")
    batch_size: int = flag(16, "clips at once", within="[1, inf)")
    amp: str = flag("auto", "compute dtype", choices=("auto", "fp32", "bf16", "fp16"))
    device: str = flag("auto", "where the network runs", choices=("auto", "cuda", "cpu"))
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
    windows = Windows.parse(*config.windows) if config.windows else None
    check_together(config)
    keep_remote_files(config.cache_dir, config.cache_gb)
    not_kept = keep_indexes(config.index_cache)
    # With windows a process may be done hours before another one.
    where = runtime.start(config.device, config.dist_url, **({"timeout": 7 * 24 * 60} if windows else {}))
    set_up_logging(where.is_main)
    if not_kept:
        logger.warning("%s", not_kept)
    clips, net = read_list(config.list, need_label=False), build_encoder(config).to(where.device)
    if where.is_main:
        require_writable(config.out, "--out", [config.list, config.checkpoint])
    use_threads({net: net.patch_embed.num_patches}, config.batch_size, config.num_workers, where.device.type)
    per_clip = (tokens_of if config.per_token else features_of)(net, runtime.choose_precision(config.amp, where.device))
    setup = EvaluationSetup(Normalizer(where.device), where, config.batch_size)
    (write_windows if windows else write_videos)(config, clips, net, per_clip, setup)
    runtime.stop(where)


def check_together(config: ExtractConfig) -> None:
    """Raises ValueError: flags, or the ending of --out, that would mean nothing beside or without --windows."""
    if config.windows:
        require_hdf5(Path(config.out))
        others = [f"--{item.name}" for item in fields(config) if item.name in _OF_VIEWS
                  and getattr(config, item.name) != item.default]
        if others:
            raise ValueError(f"{', '.join(others)}: --windows says which clips a video has; leave one of the two out")
    elif config.fps is not None:
        raise ValueError("--fps gives the times of --windows: give these too, or leave it out (--sampling_rate is the "
                         "stride between frames)")
    elif Path(config.out).suffix in HDF5_ENDINGS:
        raise ValueError(f"--out {config.out}: without --windows the features go into an .npz file")


def write_windows(config: ExtractConfig, clips: ClipList, net: nn.Module, per_clip: PerClip,
                  setup: EvaluationSetup) -> None:
    """The features of all windows of all videos, in an .npz or an .h5 file."""
    where, windows = setup.runtime, Windows.parse(*config.windows)
    described = {"checkpoint": file_hash(config.checkpoint), "list": file_hash(config.list), "windows": windows,
                 "model": config.model, "model_key": config.model_key, "per_token": config.per_token,
                 "fps": config.fps, "frame_pattern": config.frame_pattern, "frames": net.patch_embed.num_frames,
                 "size": square_size(net)}
    parts = Parts(Path(config.out), described)
    where.barrier()
    mine = [row for row in range(where.rank, len(clips), where.world_size) if not parts.is_done(row)]
    dataset = WindowClips(clips, mine, windows, (net.patch_embed.num_frames, square_size(net)), fps=config.fps,
                          decoding=config.decoding)
    options = worker_options(config, where) | {"num_workers": min(config.num_workers, len(mine))}
    extract(DataLoader(dataset, None, **options), per_clip, setup, parts)
    where.barrier()
    if where.is_main:
        faults = parts.merge(clips)
        logger.info("%s: the windows of %d videos; %d cannot be read", config.out, len(clips) - len(faults),
                    len(faults))


def write_videos(config: ExtractConfig, clips: ClipList, net: nn.Module, per_clip: PerClip,
                 setup: EvaluationSetup) -> None:
    """The features of each video, the mean over its views, in an .npz file."""
    known, where = data_set(config.data_set) if config.data_set else None, setup.runtime
    sampling = Sampling(known.style if known else "dense", net.patch_embed.num_frames,
                        stride_of(config.data_set, config.sampling_rate))
    views = Views(config.segments, config.crops, square_size(net))
    tokens = net.patch_embed.num_patches if config.per_token else 1
    if len(clips) * tokens * net.embed_dim * 8 > _MOST_BYTES:
        raise ValueError(f"{len(clips)} videos x {tokens} tokens x {net.embed_dim} do not fit into memory: give "
                         "--windows, which keeps one video at a time, and an .h5 file")
    loader = DataLoader(TestViews(clips, sampling, views, config.decoding),
                        max(1, config.batch_size // views.count),
                        sampler=evaluation_rows(len(clips), where.rank, where.world_size),
                        **worker_options(config, where))
    table = evaluate_rows(loader, lambda clips: per_clip(clips).flatten(1), setup, len(clips))
    table.must_hold_something(config.list)
    if where.is_main:
        for fault in table.faults.values():
            logger.warning("no features: %s", fault)
        features = table.values.float().numpy()
        if config.per_token:
            features = features.reshape(len(clips), tokens, -1)
        write_features(Path(config.out), features, {
            "labels": clips.labels, "paths": np.array(list(clips.paths)), "readable": table.readable.numpy()})
        logger.info("%s: %s features", config.out, " x ".join(map(str, features.shape)))


def write_features(out: Path, features: np.ndarray, others: dict[str, np.ndarray]) -> None:
    """The .npz file, whole or not at all."""
    with written_whole(out, "wb") as file:
        np.savez(file, features=features, **others)


if __name__ == "__main__":
    run_program(main)
