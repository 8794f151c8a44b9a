"""What can be measured: each takes the flags and gives rows, one a contestant."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from ...datasets.files import require_writable
from ...datasets.video.decode import Decoding, keep_videos
from ...masking import TokenGrid, TubeMasking
from ..config.flags import flag
from ..core.records import write_csv
from ..core.runtime import choose_precision
from ..training.batches import Normalizer
from . import loader as benchmark_loader
from . import threads as benchmark_threads
from .attention import contestants as attentions
from .estimate import GPUS, estimate
from .finetune import FinetuneStep
from .growth import draw_growth, growth
from .originals import Clone, OriginalStep
from .steps import METHODS, OurStep, StepSize
from .timing import LeftOut, entered, left_out, machine, saved_mib, summary, take_turns, time_with_children

logger = logging.getLogger(__name__)

THEIR_GRID = TokenGrid(8, 14, 14)   # of the originals, which know 16 frames of 224 x 224 only


@dataclass(frozen=True)
class BenchmarkConfig:
    """What is measured, at which size."""

    methods: tuple[str, ...] = flag(("tats", "tube"), "our contestants of step, memory and growth",
                                    choices=sorted(METHODS), nargs="+")
    pairs: int = flag(3, "turns that count; the median of them is reported", within="[1, inf)")
    warmup: int = flag(1, "turns before them", within="[0, inf)")
    model: str = flag("pretrain_videomae_base_patch16_224", "our model; the originals are ViT-B")
    batch_size: int = flag(2, "clips a step", within="[1, inf)")
    num_frames: int = flag(16, "frames of a clip", within="[1, inf)")
    input_size: int = flag(224, "side of a clip in pixels", within="[1, inf)")
    mask_ratio: float = flag(0.95, "share of tokens hidden from the encoder", within="(0, 1)")
    decoder_depth: int = flag(4, "decoder blocks of all contestants", within="[1, inf)")
    landmarks: int | None = flag(None, "attention: Orthoformer with so many landmarks instead of the exact form",
                                  within="[1, inf)")
    views: bool = flag(False, "loader: all 5 x 3 views of a test video instead of a pre-training clip")
    extra: tuple[str, ...] = flag((), "step, memory: further flags of run_mae_pretraining for ours, without their "
                                      "dashes: tats_depth=2", nargs="*")
    amp: str = flag("fp32", "precision of ours", choices=("fp32", "bf16", "fp16", "auto"))
    device: str = flag("cpu", "where", choices=("cpu", "cuda"))
    gpu: str = flag("h100", "estimate: of which GPU", choices=tuple(GPUS))
    threads: int = flag(1, "threads of the CPU", within="[1, inf)")
    clips: int = flag(256, "threads: clips of an epoch", within="[1, inf)")
    videos: tuple[str, ...] = flag((), "loader: files to read", nargs="*")
    video_backend: str = flag("auto", "loader: our decoder")
    decode_timeout: float = flag(0.0, "loader: above 0 our decoder has a process of its own, as training has it; its "
                                      "processor time counts", within="[0, inf)")
    num_sample: int = flag(1, "loader: pre-training clips of each opened video", within="[1, inf)")
    cache_decoded: float = flag(0.0, "loader: GB of decoded frames that ours keeps; --warmup fills it",
                                within="[0, inf)")
    videomae: str | None = flag(None, "clone of MCG-NJU/VideoMAE to compare with")
    adamae: str | None = flag(None, "clone of wgcban/adamae to compare with")
    motionformer: str | None = flag(None, "clone of facebookresearch/Motionformer to compare with")
    out: str | None = flag(None, "CSV to write")

    def size(self) -> StepSize:
        """Of step and memory."""
        return StepSize(self.model, self.batch_size, self.num_frames, self.input_size, self.mask_ratio,
                        self.decoder_depth, self.amp, self.device)


def originals(config: BenchmarkConfig) -> dict[str, Callable[[], OriginalStep]]:
    """Builders of the contestants from the clones that are named."""
    found: dict[str, Callable[[], OriginalStep]] = {}
    if config.videomae is None and config.adamae is None:
        return found
    if (config.num_frames, config.input_size) != (16, 224):
        raise ValueError("the originals know 16 frames of 224 x 224 only: leave --num_frames and --input_size, or "
                         "--videomae and --adamae, out")
    videos = config.size().videos()
    tube = TubeMasking(THEIR_GRID, config.mask_ratio)
    masks = torch.stack([tube() for _ in range(config.batch_size)]).to(videos.device)
    batch = (Normalizer(videos.device).clips(videos), masks)
    precision = choose_precision(config.amp, videos.device)
    if config.videomae is not None:
        clone = Clone(config.videomae, "modeling_pretrain.py")
        found["videomae-original"] = partial(OriginalStep, clone, False, config.mask_ratio, config.decoder_depth, batch,
                                             precision)
    if config.adamae is not None:
        clone = Clone(config.adamae, "models/pretrain/vit.py")
        found["adamae-original"] = partial(OriginalStep, clone, True, config.mask_ratio, config.decoder_depth, batch,
                                           precision)
    return found


def step_builders(config: BenchmarkConfig) -> dict[str, Callable]:
    """Builders of ours and of the originals."""
    extra = tuple(word for item in config.extra for word in ("--" + item.lstrip("-")).split("=", 1))
    return {name: partial(OurStep, name, config.size(), extra) for name in config.methods} | originals(config)


def measure_step(config: BenchmarkConfig) -> list[dict]:
    """Seconds of a whole step: masks, forward, backward, optimiser."""
    steps = {name: entered(build) for name, build in step_builders(config).items()}
    rows = summary(take_turns(steps, config.pairs, config.warmup, config.device))
    return [row | {"amp": precision_of(row["name"], config)} for row in rows]


def measure_memory(config: BenchmarkConfig) -> list[dict]:
    """Largest number of bytes kept for the backward pass at one time, in MiB; with CUDA its peak too."""
    rows, absent = [], []
    for name, build in step_builders(config).items():
        try:
            step = build()
            step()
        except LeftOut as why:
            absent.append(left_out(name, why))
            continue
        if config.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        beside = [*step.parameters(), *(item for item in step.batch if item is not None)]
        rows.append({"name": name, "saved_mib": saved_mib(step, beside), "amp": precision_of(name, config)})
        if config.device == "cuda":
            rows[-1]["cuda_peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
        del step
    for row in rows:
        row |= {f"over_{other['name']}": row["saved_mib"] / other["saved_mib"] for other in rows if other is not row}
    return rows + absent


def precision_of(name: str, config: BenchmarkConfig) -> str:
    """In which a contestant computes. With CUDA the originals' engines choose fp16 themselves."""
    device = torch.device(config.device)
    if name.endswith("-original") and device.type == "cuda":
        return "fp16"
    return str(choose_precision(config.amp, device).dtype).removeprefix("torch.")


def measure_attention(config: BenchmarkConfig) -> list[dict]:
    """Seconds of trajectory attention at ViT-B's width, forward and backward, and its saved bytes."""
    dim, frames = 768, config.num_frames // 2
    clone = None if config.motionformer is None else Clone(config.motionformer, "slowfast/models/vit_helper.py")
    tokens = torch.randn(config.batch_size, frames * (config.input_size // 16) ** 2, dim, device=config.device)
    runs = attentions(dim, config.landmarks, clone, tokens, frames)
    rows = summary(take_turns(runs, config.pairs, config.warmup, config.device))
    return [row if "left_out" in row else row | {"saved_mib": runs[row["name"]].saved_mib()} for row in rows]


def measure_loader(config: BenchmarkConfig) -> list[dict]:
    """Seconds a pre-training clip, or a video's test views; of clips also the cores that 1,000 a second take."""
    if not config.videos:
        raise ValueError("--videos is missing: give the files to read")
    clone = None if config.videomae is None else Clone(config.videomae, "kinetics.py")
    if config.num_sample > 1 and (config.views or clone is not None):
        raise ValueError(f"--num_sample {config.num_sample} is of our pre-training clips alone: leave it out, or "
                         f"{'--views' if config.views else '--videomae'}")
    decoding, each = Decoding(config.video_backend, config.decode_timeout), len(config.videos) * config.num_sample
    contestants = benchmark_loader.test_views(config.videos, decoding, clone) if config.views else \
        benchmark_loader.loaders(config.videos, decoding, clone, config.num_sample)
    keep_videos(config.cache_decoded * 1e9 / 2**20)
    try:
        rows = summary(take_turns(contestants, config.pairs, config.warmup, processor_time=time_with_children))
    finally:
        keep_videos(0)
    for row in rows:
        if "left_out" not in row:
            row["seconds"] /= each
            row["processor_seconds"] /= each
            if not config.views:
                row["cores_for_1000_clips_a_second"] = 1000 * row["processor_seconds"]
    return rows


def measure_finetune(config: BenchmarkConfig) -> list[dict]:
    """Seconds of a fine-tuning step of the classifier, ours and VideoMAE's network."""
    clone = None if config.videomae is None else Clone(config.videomae, "modeling_finetune.py")
    names = ["ours"] + ["videomae-original"] * (clone is not None)
    steps = {name: entered(partial(FinetuneStep, config.size(), clone if name != "ours" else None)) for name in names}
    rows = summary(take_turns(steps, config.pairs, config.warmup, config.device))
    return [row | {"amp": precision_of("ours", config)} for row in rows]   # one loop of ours around both networks


def measure_growth(config: BenchmarkConfig) -> list[dict]:
    """Seconds and saved bytes of our steps over frames, size, depth and landmarks; with --out a picture beside it."""
    rows = growth(config.methods, config.size(), config.pairs)
    if config.out is not None:
        draw_growth(rows, Path(config.out).with_suffix(".png"))
    return rows


def estimate_steps(config: BenchmarkConfig) -> list[dict]:
    """Time, memory and MFU of our steps on a GPU that is not here, see `estimate`."""
    if config.amp == "auto":
        raise ValueError("estimate: say --amp bf16, fp16 or fp32; there is no GPU to ask")
    extra = tuple(word for item in config.extra for word in ("--" + item.lstrip("-")).split("=", 1))
    return [{"gpu": config.gpu} | row for row in estimate(config.methods, config.size(), GPUS[config.gpu], extra)]


def measure_threads(config: BenchmarkConfig) -> list[dict]:
    """Seconds of an epoch of a small TATS run, alone and with one busy program a core."""
    return benchmark_threads.measure(config.pairs, config.clips)


MEASUREMENTS = {"step": measure_step, "memory": measure_memory, "attention": measure_attention,
                "loader": measure_loader, "finetune": measure_finetune, "growth": measure_growth,
                "estimate": estimate_steps, "threads": measure_threads}
ON_THE_CPU = {"loader", "threads"}   # wherever the networks are


def measured(what: str, config: BenchmarkConfig, asked: str) -> list[dict]:
    """The rows of one measurement, with machine, commit and what was asked for; written to --out where it is given."""
    torch.set_num_threads(config.threads)
    if config.out is not None:
        require_writable(config.out, "--out")
    where = machine("cpu" if what in ON_THE_CPU else config.device)
    rows = [{"what": what} | row | where | {"flags": asked} for row in MEASUREMENTS[what](config)]
    for row in rows:
        logger.info("%s", ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                                    for name, value in row.items() if name not in {*where, "flags"}))
    if config.out is not None:
        write_csv(Path(config.out), rows, digits=5)
    return rows
