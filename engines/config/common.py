"""The flags that pre-training and fine-tuning share, declared once; each program's own defaults are in its file."""

from dataclasses import dataclass

from .flags import flag


@dataclass(frozen=True)
class LoaderConfig:
    """Loading"""

    video_backend: str = flag("auto", "video decoder", choices=("auto", "decord", "pyav", "torchcodec"))
    decode_timeout: float = flag(120.0, "seconds that a decoder may take over a clip, in a process of its own; past "
                                 "them it is ended and the video counts as unreadable. 0: no process, no limit")
    num_workers: int = flag(10, "loader processes a rank")
    cache_dir: str = flag("", "folder in which what is fetched from addresses (s3://, https://, ...) is kept; none: "
                          "fetched anew each time")
    cache_gb: float = flag(50.0, "how much is kept there; the least recently used goes")
    pin_mem: bool = flag(True, "pinned host memory for faster copies to a GPU")


@dataclass(frozen=True)
class TrainLoaderConfig(LoaderConfig):
    """Loading for training"""

    max_bad_fraction: float = flag(0.01, "unreadable videos are replaced in training and noted in bad_videos.txt; a "
                                   "larger share of the list stops the run. 0: the first one does")
    verify_decode: int = flag(0, "before training, read this many random videos with a second decoder too, and end "
                              "with 2 where the two see different pictures")


@dataclass(frozen=True)
class OptimConfig:
    """Optimisation"""

    batch_size: int = flag(64, "clips a step on one GPU")
    update_freq: int = flag(1, "micro-batches accumulated into a step, in both phases", aliases=("--accum_iter",))
    epochs: int = flag(800, "epochs")
    opt: str = flag("adamw", "optimiser of the MAE, any of timm's")
    opt_eps: float = flag(1e-8, "optimiser epsilon")
    opt_betas: list[float] | None = flag(None, "optimiser betas; None: 0.9 0.95", nargs="+", type=float)
    clip_grad: float | None = flag(None, "largest gradient norm, of each network")
    momentum: float = flag(0.9, "momentum, for SGD")
    weight_decay: float = flag(0.05, "weight decay")
    weight_decay_end: float | None = flag(None, "weight decay at the end (cosine); None: constant")
    lr: float = flag(1.5e-4, "learning rate for 256 clips a step; scaled by batch_size * update_freq * processes / 256")
    min_lr: float = flag(1e-5, "learning rate at the end, scaled likewise")
    warmup_epochs: int = flag(40, "epochs of linear warm-up from 0")
    warmup_steps: int = flag(-1, "steps of warm-up instead, if not negative")
    amp: str = flag("auto", "compute dtype: bf16 on GPUs that have it, fp32 on the CPU",
                    choices=("auto", "fp32", "bf16", "fp16"))


@dataclass(frozen=True)
class RunConfig:
    """Run"""

    output_dir: str = flag("", "where checkpoints, log.txt and settings.json go")
    log_dir: str | None = flag(None, "where TensorBoard events go; None: output_dir")
    save_ckpt_freq: int = flag(50, "epochs between checkpoints; the last epoch is always saved")
    save_every_steps: int = flag(0, "optimiser steps between checkpoints within an epoch; 0: none")
    keep_last: int = flag(3, "checkpoints kept, the newest ones; 0: all. Fewer than 2 leave none before a damaged one")
    keep_every: int = flag(1, "the checkpoint of every so many epochs is kept besides; 0: none. Those within an epoch "
                           "never are")
    max_bad_steps: int = flag(20, "steps whose loss, gradient, probabilities or reward are not finite are skipped and "
                              "noted in bad_steps.jsonl; so many in a row end the run")
    resume: str = flag("", "continue from this checkpoint")
    auto_resume: bool = flag(True, "continue from the newest checkpoint in output_dir")
    start_epoch: int = flag(0, "first epoch, from 0")
    seed: int = flag(0, "seed")
    device: str = flag("auto", "auto, cuda or cpu")
    dist_url: str = flag("env://", "where the processes meet")
    dist_timeout: float = flag(30.0, "minutes that a process waits for the others before all end with an error")
    local_rank: int = flag(-1, "set by launchers; read from the environment", aliases=("--local-rank",))
    print_freq: int = flag(20, "steps between two lines of progress")

    def check(self) -> None:
        """Raises ValueError: a number that counts what cannot be."""
        for name in ("save_every_steps", "keep_last", "keep_every"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name} must not be negative, got {getattr(self, name)}")
        for name in ("save_ckpt_freq", "max_bad_steps", "print_freq", "dist_timeout"):
            if getattr(self, name) <= 0:
                raise ValueError(f"--{name} must be positive, got {getattr(self, name)}")


# Accepted because VideoMAE's scripts pass them, in both programs; each is named in a warning when given.
DEAD_FLAGS = {
    "warmup_lr": "the warm-up starts from 0, in VideoMAE too, which reads this flag nowhere",
    "imagenet_default_mean_and_std": "ImageNet's mean and std are always used",
    "world_size": "the launcher's environment decides",
    "dist_on_itp": "the launcher's environment decides",
}


def add_dead_flags(parser, dead: dict[str, str]) -> None:
    """Accept, and later warn about, the flags that do nothing."""
    group = parser.add_argument_group("Accepted and without effect")
    for name, why in dead.items():
        group.add_argument(f"--{name}", nargs="?", default=None, const="true", help=why)
