"""The flags that pre-training and fine-tuning share, declared once; each program's own defaults are in its file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...datasets.video.decode import FRAME_PATTERN, Decoding
from .flags import BATCH, FIXED, LONGER, FlagParser, add_flags, flag


@dataclass(frozen=True)
class LoaderConfig:
    """Loading"""

    video_backend: str = flag("auto", "video decoder", choices=("auto", "decord", "pyav", "torchcodec"), identity=False)
    decode_timeout: float = flag(120.0, "seconds that a decoder may take over a clip, in a process of its own; past "
                                 "them it is ended and the video counts as unreadable. 0: no process, no limit",
                                 within="[0, inf)", identity=False)
    frame_pattern: str = flag("", FRAME_PATTERN)
    num_workers: int = flag(10, "loader processes a rank", within="[0, inf)", identity=False)
    cache_dir: str = flag("", "folder in which what is fetched from addresses (s3://, https://, ...) is kept; none: "
                          "fetched anew each time", identity=False)
    cache_gb: float = flag(50.0, "how much is kept there; the least recently used goes", within="(0, inf)",
                           identity=False)
    index_cache: str = flag("", "folder in which the places of the packets of long videos are kept, up to 1 GB; none: "
                            "nowhere. Not given: --cache_dir, else tats in XDG_CACHE_HOME or ~/.cache", identity=False)
    pin_mem: bool = flag(True, "pinned host memory for faster copies to a GPU", identity=False)

    @property
    def decoding(self) -> Decoding:
        """The decoder's settings as the data sets take them."""
        return Decoding(self.video_backend, self.decode_timeout, self.frame_pattern)


@dataclass(frozen=True)
class TrainLoaderConfig(LoaderConfig):
    """Loading for training"""

    cache_decoded: float = flag(0.0, "for small sets: GB of decoded frames that the loader's workers of a rank keep in "
                                "memory, the same bits as decoding them again. A share each, and each worker keeps "
                                "what it has decoded: num_workers times the set's size keep all of it. 0: none",
                                within="[0, inf)", identity=False)
    max_bad_fraction: float = flag(0.01, "unreadable videos are replaced in training and noted in bad_videos.txt; a "
                                   "larger share of the list stops the run. 0: the first one does",
                                   within="[0, 1]", identity=False)
    verify_decode: int = flag(0, "before training, read this many random videos with a second decoder too, and end "
                              "with 2 where the two see different pictures", within="[0, inf)", identity=False)


@dataclass(frozen=True)
class OptimConfig:
    """Optimisation"""

    batch_size: int = flag(64, "clips a step on one GPU", within="[1, inf)", identity=BATCH)
    update_freq: int = flag(1, "micro-batches accumulated into a step, in both phases", aliases=("--accum_iter",),
                            within="[1, inf)", identity=BATCH)
    epochs: int = flag(800, "epochs", within="[1, inf)", identity=LONGER)
    opt: str = flag("adamw", "optimiser of the MAE, any of timm's", identity=FIXED)
    opt_eps: float = flag(1e-8, "optimiser epsilon", within="[0, inf)")
    opt_betas: list[float] | None = flag(None, "optimiser betas; None: 0.9 0.95", nargs="+", type=float,
                                         within="[0, 1)")
    clip_grad: float | None = flag(None, "largest gradient norm, of each network", within="(0, inf)")
    momentum: float = flag(0.9, "momentum, for SGD", within="[0, 1)")
    weight_decay: float = flag(0.05, "weight decay", within="[0, inf)")
    weight_decay_end: float | None = flag(None, "weight decay at the end (cosine); None: constant", within="[0, inf)")
    lr: float = flag(1.5e-4, "learning rate for 256 clips a step; scaled by batch_size * update_freq * processes / 256",
                     within="(0, inf)")
    min_lr: float = flag(1e-5, "learning rate at the end, scaled likewise", within="[0, inf)")
    warmup_epochs: int = flag(40, "epochs of linear warm-up from 0", within="[0, inf)")
    warmup_steps: int = flag(-1, "steps of warm-up instead, if not negative", within="[-1, inf)")
    amp: str = flag("auto", "compute dtype: bf16 on GPUs that have it, fp32 on the CPU",
                    choices=("auto", "fp32", "bf16", "fp16"))

    default_betas: ClassVar[tuple[float, float]] = (0.9, 0.95)

    @property
    def betas(self) -> tuple[float, ...]:
        """--opt_betas, else the program's own. Raises ValueError: it is one number."""
        if self.opt_betas is not None and len(self.opt_betas) < 2:
            raise ValueError(f"--opt_betas needs two numbers, got {self.opt_betas[0]:g} alone")
        return tuple(self.opt_betas or self.default_betas)

    def clips_a_step(self, processes: int) -> int:
        """Clips of an optimiser step, of all processes; --lr is for 256 of them."""
        return self.batch_size * self.update_freq * processes


@dataclass(frozen=True)
class RunConfig:
    """Run"""

    output_dir: str = flag("", "where checkpoints, log.txt and settings.json go", identity=False)
    log_dir: str | None = flag(None, "where TensorBoard events go; None: output_dir", identity=False)
    save_ckpt_freq: int = flag(50, "epochs between checkpoints; the last epoch is always saved",
                               within="[1, inf)", identity=False)
    save_every_steps: int = flag(0, "optimiser steps between checkpoints within an epoch; 0: none",
                                 within="[0, inf)", identity=False)
    save_every_minutes: float = flag(0.0, "minutes between checkpoints within an epoch; 0: none", within="[0, inf)",
                                     identity=False)
    keep_last: int = flag(3, "number of newest checkpoints that are kept; 0: all. With 1 there is none to fall back on "
                          "when it is damaged",
                          within="[0, inf)", identity=False)
    keep_every: int = flag(1, "checkpoints at the end of every so many epochs are kept besides; 0: none. Checkpoints "
                           "from within an epoch are never kept besides", within="[0, inf)", identity=False)
    max_bad_steps: int = flag(20, "steps whose loss, gradient, probabilities or reward are not finite are skipped and "
                              "noted in bad_steps.jsonl; so many in a row end the run",
                              within="[1, inf)", identity=False)
    resume: str = flag("", "go on from this checkpoint; what output_dir holds from after it is kept in "
                      "output_dir/replaced-N", identity=False)
    auto_resume: bool = flag(True, "continue from the newest checkpoint in output_dir; false: start anew, what a "
                             "run left there is kept in output_dir/replaced-N", identity=False)
    change: list[list[str]] | None = flag(None, "go on with another value of a flag than the checkpoint was trained "
                                          "with, e.g. --change lr 1e-4; it is recorded. Repeatable", nargs=2,
                                          action="append", metavar=("FLAG", "VALUE"), identity=False)
    start_epoch: int = flag(0, "first epoch, from 0", within="[0, inf)", identity=FIXED)
    seed: int = flag(0, "seed", within="[0, 4294967295]", identity=FIXED)
    device: str = flag("auto", "where the networks run", choices=("auto", "cuda", "cpu"), identity=False)
    dist_url: str = flag("env://", "where the processes meet", identity=False)
    dist_timeout: float = flag(30.0, "minutes that a process waits for the others before all end with an error",
                               within="(0, inf)", identity=False)
    local_rank: int = flag(-1, "set by launchers; read from the environment", aliases=("--local-rank",),
                           within="[-1, inf)", identity=False)
    print_freq: int = flag(20, "steps between two lines of progress", within="[1, inf)", identity=False)


# Accepted because VideoMAE's scripts pass them, in both programs; each is named in a warning when given.
DEAD_FLAGS = {
    "warmup_lr": "the warm-up starts from 0, in VideoMAE too, which reads this flag nowhere",
    "imagenet_default_mean_and_std": "ImageNet's mean and std are always used",
    "world_size": "the launcher's environment decides",
    "dist_on_itp": "the launcher's environment decides",
}


def parser_of(program: str, description: str, configs: Sequence[type], dead: Mapping[str, str]) -> FlagParser:
    """The command line of a program: the flags of `configs`, and those of `dead`, which do nothing and say so."""
    parser = FlagParser(program, description=description.splitlines()[0])
    for config in configs:
        add_flags(parser, config)
    group = parser.add_argument_group("Accepted and without effect")
    for name, why in dead.items():
        group.add_argument(f"--{name}", nargs="?", default=None, const="true", help=why)
    return parser
