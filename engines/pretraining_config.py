"""Every flag of `run_mae_pretraining`, declared once. VideoMAE's names and meanings where VideoMAE has them."""

from dataclasses import dataclass, replace

from ..masking import ALIASES, MASKINGS
from .flags import flag


def mask_types() -> list[str]:
    """What `--mask_type` offers: the registry's rows, those registered by a user too."""
    return sorted(MASKINGS) + sorted(ALIASES)


@dataclass(frozen=True)
class ModelConfig:
    """Model"""

    model: str = flag("pretrain_videomae_base_patch16_224", "name in the model table (tats.models.model_names())")
    decoder_depth: int | None = flag(None, "decoder blocks; None: the model's own (4 for ViT-B)")
    drop_path: float = flag(0.0, "stochastic depth of the encoder")
    num_frames: int = flag(16, "frames of a clip")
    input_size: int | None = flag(None, "height and width of a clip in pixels; None: the model's own (224)")
    tubelet_size: int = flag(2, "frames of a token")
    pos_embed: str | None = flag(None, "fixed positions: sincos1d, VideoMAE's over the flattened index, or sincos3d as "
                                 "the paper says; None: the model's own", choices=("sincos1d", "sincos3d"))
    use_checkpoint: bool = flag(False, "activation checkpointing: less memory, more time")
    init_from: str = flag("", "start from these weights (VideoMAE, AdaMAE, ours)")
    trust_checkpoint: bool = flag(False, "allow pickled objects in --init_from (old VideoMAE files); runs their code")
    allow_partial: bool = flag(False, "with --init_from: load the tensors that fit, however few, instead of refusing")


@dataclass(frozen=True)
class MaskConfig:
    """Masking"""

    mask_type: str = flag("tube", "masking strategy: a row of tats.masking.MASKINGS")
    mask_ratio: float = flag(0.75, "rho, share of tokens hidden from the encoder")
    num_visible: int | None = flag(None, "number of visible tokens instead of mask_ratio: one budget for all strategies")


@dataclass(frozen=True)
class DataConfig:
    """Data"""

    data_path: str = flag("", "list file: a video path a line, an optional label behind it")
    data_set: str = flag("", "UCF101, HMDB51, Kinetics-400 or SSV2: gives sampling_rate, and whether flips are allowed")
    sampling_rate: int | None = flag(None, "stride between frames; None: that of --data_set, else 4")
    pretrain_aug: str = flag("multiscale", "MultiScaleCrop (Table 4), resized crop and flip (Sec. 8.1), the centre, or all",
                             choices=("multiscale", "rrc", "center", "resize"))
    video_backend: str = flag("auto", "video decoder", choices=("auto", "decord", "pyav", "torchcodec"))
    max_bad_fraction: float = flag(0.01, "unreadable videos are replaced and noted in bad_videos.txt; a larger share of "
                                   "the list stops the run. 0: the first one does")
    num_workers: int = flag(10, "loader processes a rank")
    pin_mem: bool = flag(True, "pinned host memory for faster copies to a GPU")


@dataclass(frozen=True)
class LossConfig:
    """Reconstruction loss"""

    loss: str = flag("mse", "error of a masked token (Table 3d)", choices=("mse", "l1"))
    normlize_target: bool = flag(True, "normalise the target inside each patch (VideoMAE's spelling)",
                                 aliases=("--normalize_target",))


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
class SamplerConfig:
    """Learned sampler (TATS; AdaMAE takes its published settings)"""

    tats_recipe: str = flag("ours", "'ours' works; 'paper' is the printed form: resampled ratio, uniform weighting, "
                            "value baseline, c1 = c2 = c3, sampler_lr 1.5e-6. Single flags override either",
                            choices=("ours", "paper"))
    sampler_lr: float | None = flag(None, "learning rate of theta, not scaled; None: 1.5e-6 (paper) or 1e-4 (ours)")
    mae_only_epochs: int = flag(10, "m_o, epochs of random masking before the policy acts", aliases=("--m_o",))
    update_every: int = flag(1, "k, steps between two updates of the policy",
                             aliases=("--sampler_update_interval",))
    ppo_epochs: int = flag(1, "passes over the buffer in each update of the policy")
    clip_epsilon: float = flag(0.2, "epsilon of the clipped ratio")
    policy_coef: float = flag(1e-4, "c1")
    value_coef: float = flag(1e-4, "c2")
    entropy_coef: float | None = flag(None, "c3; None: c1 (paper) or 0.6 c1 (ours)")
    target_entropy: float | None = flag(None, "adapt c3 to hold the entropy at this share of log N, e.g. 0.94")
    ppo_ratio: str | None = flag(None, "pi_theta at the recorded I_m (ours), or of a fresh draw I_m' (paper)",
                                 choices=("recorded", "resampled"))
    ppo_weighting: str | None = flag(None, "distribution over tokens of Eq. 8's expectation: pi_old (ours) or uniform",
                                     choices=("policy", "uniform"))
    adv_norm: str | None = flag(None, "advantage: errors standardised in each clip (ours), in the batch, or "
                                "L_R - psi as printed (none)", choices=("clip", "batch", "none"))
    reward: str = flag("token", "each masked token's own error, or the clip's mean (Eq. 6; learns nothing)",
                       choices=("token", "clip"))
    policy_head_init: str = flag("zeros", "zeros: start from the uniform policy; xavier: from a random one",
                                 choices=("zeros", "xavier"))
    tats_depth: int = flag(1, "trajectory attention blocks (Table 3e)")
    tats_attention: str = flag("trajectory", "trajectory or joint space-time attention (Table 3a)",
                               choices=("trajectory", "mha"))
    tats_heads: int | None = flag(None, "attention heads of the sampler; None: 64 channels each")
    tats_approx: str = flag("none", "exact trajectory attention or its approximation",
                            choices=("none", "orthoformer"))
    num_landmarks: int = flag(128, "landmarks of the approximation")
    softmax_temp: float = flag(1.0, "temperature of the policy's softmax")
    reuse_forward: bool = flag(True, "keep phase 1's forward of the policy for phase 2 where the two are equal: "
                               "faster, more memory")


@dataclass(frozen=True)
class RunConfig:
    """Run"""

    output_dir: str = flag("", "where checkpoints, log.txt and settings.json go")
    log_dir: str | None = flag(None, "where TensorBoard events go; None: output_dir")
    save_ckpt_freq: int = flag(50, "epochs between checkpoints; the last epoch is always saved")
    resume: str = flag("", "continue from this checkpoint")
    auto_resume: bool = flag(True, "continue from the newest checkpoint in output_dir")
    start_epoch: int = flag(0, "first epoch, from 0")
    seed: int = flag(0, "seed")
    device: str = flag("auto", "auto, cuda or cpu")
    dist_url: str = flag("env://", "where the processes meet")
    local_rank: int = flag(-1, "set by launchers; read from the environment", aliases=("--local-rank",))
    print_freq: int = flag(20, "steps between two lines of progress")


PRETRAINING = (ModelConfig, MaskConfig, DataConfig, LossConfig, OptimConfig, SamplerConfig, RunConfig)

# Accepted because VideoMAE's scripts pass them; each is named in a warning when given.
DEAD_FLAGS = {
    "warmup_lr": "the warm-up starts from 0, in VideoMAE too, which reads this flag nowhere",
    "color_jitter": "pre-training uses no colour jitter, in VideoMAE neither",
    "train_interpolation": "pre-training resizes bilinearly, in VideoMAE too",
    "imagenet_default_mean_and_std": "ImageNet's mean and std are always used",
    "world_size": "the launcher's environment decides",
    "dist_on_itp": "the launcher's environment decides",
}


def add_dead_flags(parser) -> None:
    """Accept, and later warn about, the flags that do nothing."""
    group = parser.add_argument_group("Accepted and without effect")
    for name, why in DEAD_FLAGS.items():
        group.add_argument(f"--{name}", nargs="?", default=None, const="true", help=why)


def resolve_recipe(config: SamplerConfig) -> SamplerConfig:
    """Fill in what is None from `tats_recipe`.

    Raises:
        ValueError: settings that cannot learn anything together.
    """
    paper = config.tats_recipe == "paper"
    chosen = {
        "sampler_lr": 1.5e-6 if paper else 1e-4,
        "entropy_coef": config.policy_coef * (1.0 if paper else 0.6),
        "ppo_ratio": "resampled" if paper else "recorded",
        "ppo_weighting": "uniform" if paper else "policy",
        "adv_norm": "none" if paper else "clip",
    }
    config = replace(config, **{name: value for name, value in chosen.items() if getattr(config, name) is None})
    if config.reward == "clip" and config.adv_norm == "clip":
        raise ValueError("--reward clip with --adv_norm clip leaves no advantage: one reward a clip, centred in the "
                         "clip, is 0; use --adv_norm batch or none")
    for name in ("mae_only_epochs", "update_every", "ppo_epochs"):
        if getattr(config, name) < (0 if name == "mae_only_epochs" else 1):
            raise ValueError(f"--{name} must be at least {0 if name == 'mae_only_epochs' else 1}, "
                             f"got {getattr(config, name)}")
    if not 0 < config.clip_epsilon < 1:
        raise ValueError(f"--clip_epsilon must lie between 0 and 1, got {config.clip_epsilon}")
    return config


