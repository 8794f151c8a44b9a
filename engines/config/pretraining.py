"""Every flag of `run_mae_pretraining`, declared once. VideoMAE's names and meanings where VideoMAE has them."""

import argparse
from dataclasses import dataclass, replace

from . import common as common_config
from .common import OptimConfig, RunConfig, TrainLoaderConfig
from .flags import flag, from_args


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

    mask_type: str = flag("tube", "random, tube, frame, adamae, tats, or a row added by register_masking")
    mask_ratio: float = flag(0.75, "rho, share of tokens hidden from the encoder")
    num_visible: int | None = flag(None, "visible tokens, instead of mask_ratio: one budget for all strategies")


@dataclass(frozen=True)
class DataConfig(TrainLoaderConfig):
    """Data"""

    data_path: str = flag("", "list file: a video path a line, an optional label behind it")
    data_set: str = flag("", "UCF101, HMDB51, Kinetics-400 or SSV2: gives sampling_rate, and whether flips are allowed")
    sampling_rate: int | None = flag(None, "stride between frames; None: that of --data_set, else 4")
    pretrain_aug: str = flag("multiscale", "MultiScaleCrop (Table 4), resized crop and flip (Sec. 8.1), centre, or all",
                             choices=("multiscale", "rrc", "center", "resize"))


@dataclass(frozen=True)
class LossConfig:
    """Reconstruction loss"""

    loss: str = flag("mse", "error of a masked token (Table 3d)", choices=("mse", "l1"))
    normlize_target: bool = flag(True, "normalise the target inside each patch (VideoMAE's spelling)",
                                 aliases=("--normalize_target",))


@dataclass(frozen=True)
class SamplerConfig:
    """Learned sampler (TATS; AdaMAE takes its published settings)"""

    tats_recipe: str = flag("ours", "'ours' works; 'paper' is the printed form: resampled ratio, uniform weighting, "
                            "value baseline, c1 = c2 = c3, sampler_lr 1.5e-6. Single flags override either",
                            choices=("ours", "paper"))
    sampler_lr: float | None = flag(None, "learning rate of theta, not scaled; None: 1.5e-6 (paper) or 1e-4 (ours)")
    sampler_lr_final: float | None = flag(None, "that rate at the last update of the policy, along a cosine; updates "
                                          "that --mae_only_explained or --target_kl leave out end above it. None: it "
                                          "stays")
    mae_only_epochs: int = flag(10, "m_o, epochs of random masking before the policy acts", aliases=("--m_o",))
    mae_only_explained: float = flag(0.0, "m_o grows, epoch by epoch, until the autoencoder explains this share of its "
                                     "targets' variance: before, its error map is flat; e.g. 0.1. 0: m_o as given")
    update_every: int = flag(1, "k, steps between two updates of the policy",
                             aliases=("--sampler_update_interval",))
    ppo_epochs: int = flag(1, "passes over the buffer in each update of the policy")
    target_kl: float | None = flag(None, "with several passes: none after one whose KL(pi_old || pi) is above this, "
                                   "e.g. 0.01; None: all of them")
    clip_epsilon: float = flag(0.2, "epsilon of the clipped ratio")
    policy_coef: float = flag(1e-4, "c1")
    value_coef: float = flag(1e-4, "c2")
    entropy_coef: float | None = flag(None, "c3; None: c1 (paper) or 0.6 c1 (ours)")
    target_entropy: float | None = flag(None, "adapt c3 to hold the entropy at this share of log N, e.g. 0.94")
    ppo_ratio: str | None = flag(None, "pi_theta at the recorded I_m (ours), or of a fresh draw I_m' (paper)",
                                 choices=("recorded", "resampled"))
    ppo_weighting: str | None = flag(None, "distribution over tokens of Eq. 8's expectation: pi_old (ours), the same "
                                     "without the division by P(masked), or uniform",
                                     choices=("policy", "undivided", "uniform"))
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
    random_share: float = flag(0.0, "share of the clips that get a random mask instead, once the policy acts")
    random_share_final: float | None = flag(None, "that share in the last epoch, linear in between; None: it stays")
    context_share: float = flag(0.0, "share of each clip's visible tokens that comes from anywhere, beside those "
                                "that the policy chose")
    reuse_forward: bool = flag(True, "keep phase 1's forward of the policy for phase 2 where the two are equal: "
                               "faster, more memory")


@dataclass(frozen=True)
class WatchConfig:
    """Watching a run"""

    vis_freq: int = flag(0, "epochs between two sheets of the fixed clips, in output_dir/pictures and TensorBoard; "
                         "0: none")
    vis_path: str = flag("", "list of the fixed clips, for sheets, train_fixed_error and train_policy_moved; none: the "
                         "first rows of data_path")
    vis_clips: int = flag(8, "number of fixed clips; the first four are drawn. 0: none")


PRETRAINING = (ModelConfig, MaskConfig, DataConfig, LossConfig, OptimConfig, SamplerConfig, WatchConfig, RunConfig)

# Accepted because VideoMAE's scripts pass them; each is named in a warning when given.
DEAD_FLAGS = common_config.DEAD_FLAGS | {
    "color_jitter": "pre-training uses no colour jitter, in VideoMAE neither",
    "train_interpolation": "pre-training resizes bilinearly, in VideoMAE too",
}


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
    if config.mae_only_explained and not (0 < config.mae_only_explained < 1 and config.mae_only_epochs):
        raise ValueError(f"--mae_only_explained must lie between 0 and 1, and --mae_only_epochs be 1 or more, which it "
                         f"starts from; got {config.mae_only_explained:g} and {config.mae_only_epochs}")
    for name in ("sampler_lr", "sampler_lr_final", "softmax_temp"):
        value = getattr(config, name)
        if value is not None and (value < 0 or not value and name != "sampler_lr_final"):
            raise ValueError(f"--{name} must be above 0, got {value:g}")
    for name in ("random_share", "random_share_final"):
        if not 0 <= (getattr(config, name) or 0) <= 1:
            raise ValueError(f"--{name} must lie between 0 and 1, got {getattr(config, name)}")
    if not 0 <= config.context_share < 1:
        raise ValueError(f"--context_share must lie between 0 and below 1 (that is --mask_type random), "
                         f"got {config.context_share}")
    if config.target_kl is not None and (config.ppo_epochs == 1 or config.target_kl <= 0):
        raise ValueError(f"--target_kl {config.target_kl:g} ends the passes over the buffer early: it must be above 0, "
                         "and --ppo_epochs above 1")
    if not 0 < config.clip_epsilon < 1:
        raise ValueError(f"--clip_epsilon must lie between 0 and 1, got {config.clip_epsilon}")
    return config


@dataclass(frozen=True)
class Settings:
    """The settings of a pre-training run, by topic."""

    model: ModelConfig
    mask: MaskConfig
    data: DataConfig
    loss: LossConfig
    optim: OptimConfig
    sampler: SamplerConfig
    watch: WatchConfig
    run: RunConfig

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> "Settings":
        """Read and check the parsed flags.

        Raises:
            ValueError: a value that cannot be run with.
        """
        settings = cls(from_args(ModelConfig, args), from_args(MaskConfig, args), from_args(DataConfig, args),
                       from_args(LossConfig, args), from_args(OptimConfig, args),
                       resolve_recipe(from_args(SamplerConfig, args)), from_args(WatchConfig, args),
                       from_args(RunConfig, args))
        if not settings.data.data_path:
            raise ValueError("--data_path is missing: give a list file with a video path a line "
                             "(python -m tats.datasets.build_lists makes one, tats.datasets.moving_shapes a toy set)")
        if settings.watch.vis_freq < 0 or settings.watch.vis_clips < 0:
            raise ValueError("--vis_freq and --vis_clips count epochs and clips: 0 for none, not below")
        for name in ("batch_size", "update_freq", "epochs"):
            if getattr(settings.optim, name) < 1:
                raise ValueError(f"--{name} must be at least 1, got {getattr(settings.optim, name)}")
        settings.run.check()
        return settings
