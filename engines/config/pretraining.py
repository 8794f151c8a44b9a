"""Every flag of `run_mae_pretraining`, declared once. VideoMAE's names and meanings where VideoMAE has them."""

import argparse
from dataclasses import dataclass, replace

from . import common as common_config
from .common import OptimConfig, RunConfig, TrainLoaderConfig
from .flags import CONTENT, FIXED, SOURCE, PluginConfig, flag, settings_from_args


@dataclass(frozen=True)
class ModelConfig:
    """Model"""

    model: str = flag("pretrain_videomae_base_patch16_224", "pretrain_videomae_SIZE_patch16_224 with SIZE small, base, "
                      "large or huge; pretrain_videomae_giant_patch14_224; for a CPU pretrain_tats_tiny (clips of 24 x "
                      "24 pixels) and pretrain_tats_mini (64 x 64)", identity=FIXED)
    decoder_depth: int | None = flag(None, "decoder blocks; None: the model's own (4 for ViT-B)", within="[0, inf)",
                                     identity=FIXED)
    drop_path: float = flag(0.0, "stochastic depth of the encoder", within="[0, 1)", identity=FIXED)
    num_frames: int = flag(16, "frames of a clip", within="[1, inf)", identity=FIXED)
    input_size: int | None = flag(None, "height and width of a clip in pixels; None: the model's own (224)",
                                  within="[1, inf)", identity=FIXED)
    tubelet_size: int = flag(2, "frames of a token", within="[1, inf)", identity=FIXED)
    pos_embed: str | None = flag(None, "fixed positions: sincos1d, VideoMAE's over the flattened index, or sincos3d as "
                                 "the paper says; None: the model's own", choices=("sincos1d", "sincos3d"),
                                 identity=FIXED)
    use_checkpoint: bool = flag(False, "activation checkpointing: less memory, more time", identity=False)
    plain_attention: bool = flag(False, "attention of the blocks as two products and a softmax, which keeps its N x N "
                                 "weights as the paper's code does: slower, to measure memory as the paper may have")
    compile: bool = flag(False, "compile the MAE and the sampler with torch.compile: a first step of a minute, then "
                         "faster ones", identity=False)
    init_from: str = flag("", "start from these weights (VideoMAE, AdaMAE, ours)", identity=SOURCE)
    trust_checkpoint: bool = flag(False, "allow pickled objects in --init_from (old VideoMAE files); runs their code",
                                  identity=False)
    allow_partial: bool = flag(False, "with --init_from: load the tensors that fit, however few, instead of refusing",
                               identity=FIXED)


@dataclass(frozen=True)
class MaskConfig:
    """Masking"""

    mask_type: str = flag("tube", "random, tube, frame, adamae, tats, or a row added by register_masking",
                          identity=FIXED)
    mask_ratio: float = flag(0.75, "rho, share of tokens hidden from the encoder", within="(0, 1)", identity=FIXED)
    num_visible: int | None = flag(None, "visible tokens, instead of mask_ratio; tube and frame take multiples",
                                   within="[1, inf)", identity=FIXED)


@dataclass(frozen=True)
class DataConfig(TrainLoaderConfig):
    """Data"""

    data_path: str = flag("", "list file: a video path a line, an optional label behind it", identity=CONTENT)
    data_set: str = flag("", "UCF101, HMDB51, Kinetics-400 or SSV2: gives sampling_rate, and whether flips are allowed")
    sampling_rate: int | None = flag(None, "stride between frames; None: that of --data_set, else 4", within="[1, inf)")
    num_sample: int = flag(1, "clips of each opened video, each with its own start, crop, flip and mask. --batch_size "
                           "goes on counting clips: a batch is batch_size / num_sample videos (in fine-tuning it is "
                           "batch_size videos), and an epoch has num_sample times the steps", within="[1, inf)")
    flip: bool = flag(True, "mirror clips with --pretrain_aug rrc, where the data set allows it; --no_flip: never")
    pretrain_aug: str = flag("multiscale", "MultiScaleCrop (Table 4), resized crop and flip (Sec. 8.1), centre, or all",
                             choices=("multiscale", "rrc", "center", "resize"))


@dataclass(frozen=True)
class LossConfig:
    """Reconstruction loss"""

    loss: str = flag("mse", "error of a masked token (Table 3d)", choices=("mse", "l1"))
    normlize_target: bool = flag(True, "normalise the target inside each patch (VideoMAE's spelling)",
                                 aliases=("--normalize_target",))
    decoder_mask_ratio: float = flag(0.0, "share of the masked tokens, drawn anew for each clip, that the decoder "
                                     "leaves out: a faster step, loss and reward of the others (VideoMAEv2's dual "
                                     "masking; its ratio is of all tokens; not in the paper)", within="[0, 1)")


@dataclass(frozen=True)
class SamplerConfig:
    """Learned sampler (TATS; AdaMAE takes its published settings)"""

    tats_recipe: str = flag("ours", "'ours' works; 'paper' is what the paper says it ran: Orthoformer, resampled "
                            "ratio, uniform weighting, value baseline, c1 = c2 = c3, sampler_lr 1.5e-6. Single flags "
                            "override either; --explain lists them",
                            choices=("ours", "paper"))
    sampler_lr: float | None = flag(None, "learning rate of theta, not scaled; None: 1.5e-6 (paper) or 1e-4 (ours)",
                                    within="(0, inf)")
    sampler_lr_final: float | None = flag(None, "learning rate of theta at the last update of the policy, reached "
                                          "along a cosine; None: sampler_lr stays constant. A run whose policy makes "
                                          "fewer updates (--mae_only_explained, --target_kl) ends at a higher rate",
                                          within="[0, inf)")
    sampler_warmup_epochs: int = flag(0, "epochs of linear warm-up of theta's learning rate from 0, counted from the "
                                      "policy's first; Table 4 lists 40 and does not say whether theta has them",
                                      within="[0, inf)")
    mae_only_epochs: int = flag(10, "m_o, epochs of random masking before the policy acts", aliases=("--m_o",),
                                within="[0, inf)")
    mae_only_explained: float = flag(0.0, "lengthen m_o, epoch by epoch, until the autoencoder explains this share of "
                                     "its targets' variance, e.g. 0.1: before that its error map is flat. 0: m_o as "
                                     "given",
                                     within="[0, 1)")
    update_every: int = flag(1, "k, steps between two updates of the policy",
                             aliases=("--sampler_update_interval",), within="[1, inf)")
    flush_buffer: bool = flag(True, "learn at an epoch's end from the episodes of fewer than k steps that are left; "
                              "false: they wait for the next epoch's, as Algorithm 1 prints it")
    ppo_epochs: int = flag(1, "passes over the buffer in each update of the policy", within="[1, inf)")
    target_kl: float | None = flag(None, "with several passes: stop after the first whose KL(pi_old || pi) exceeds "
                                   "this, e.g. 0.01; None: make all passes", within="(0, inf)")
    clip_epsilon: float = flag(0.2, "epsilon of the clipped ratio", within="(0, 1)")
    policy_coef: float = flag(1e-4, "c1", within="(0, inf)")
    value_coef: float = flag(1e-4, "c2", within="[0, inf)")
    entropy_coef: float | None = flag(None, "c3; None: c1 (paper) or 0.6 c1 (ours)", within="[0, inf)")
    target_entropy: float | None = flag(None, "adapt c3 to hold the entropy at this share of log N, e.g. 0.94",
                                        within="(0, 1)")
    ppo_ratio: str | None = flag(None, "pi_theta at the recorded I_m (ours), or of a fresh draw I_m' (paper)",
                                 choices=("recorded", "resampled"))
    ppo_weighting: str | None = flag(None, "distribution over tokens of Eq. 8's expectation: pi_old (ours), the same "
                                     "without the division by P(masked), or uniform",
                                     choices=("policy", "undivided", "uniform"))
    adv_norm: str | None = flag(None, "advantage: errors standardised in each clip (ours), in the batch, or "
                                "L_R - psi as printed (none)", choices=("clip", "batch", "none"))
    reward: str = flag("token", "what the policy is paid for: token, each masked token's own error; clip, the clip's "
                       "mean error (Eq. 6; learns nothing); easy, the token's negative error, which hides what is "
                       "hard; learnable, the token's error less what stays of it when far more is visible (two more "
                       "forwards); lasting, what stays of it (two more forwards); telling, what showing the token "
                       "takes off the errors around it (two more forwards); progress, the error of a slow copy of the "
                       "model less that of the model (one more forward); or a row added by register_reward")
    reward_reach: float = flag(0., "each masked token is paid the mean reward of the masked tokens around it, weighted "
                               "by a normal distribution of this standard deviation, in tokens; 0: its own, as in the "
                               "paper", within="[0, inf)")
    policy_head_init: str = flag("zeros", "zeros: start from the uniform policy; xavier: from a random one",
                                 choices=("zeros", "xavier"), identity=FIXED)
    tats_depth: int = flag(1, "trajectory attention blocks (Table 3e)", within="[1, inf)", identity=FIXED)
    tats_attention: str = flag("trajectory", "trajectory or joint space-time attention (Table 3a)",
                               choices=("trajectory", "mha"), identity=FIXED)
    tats_heads: int | None = flag(None, "attention heads of the sampler; None: 64 channels each", within="[1, inf)",
                                  identity=FIXED)
    tats_approx: str | None = flag(None, "exact trajectory attention (none) or its approximation; None: exact (ours), "
                                   "orthoformer (paper)",
                                   choices=("none", "orthoformer"), identity=FIXED)
    num_landmarks: int = flag(128, "landmarks of the approximation (Motionformer's 128; the paper names no "
                              "number)", within="[1, inf)", identity=FIXED)
    tats_merge: list[int] | None = flag(None, "tokens along time, height and width that the policy sees as one: a step "
                                        "is faster the more they are, and the policy coarser; None: each by itself, as "
                                        "in the paper", nargs=3, type=int, metavar=("T", "H", "W"),
                                        within="[1, inf)", identity=FIXED)
    tats_block: list[int] | None = flag(None, "tokens along time, height and width that TATS shows or hides as one; 1 "
                                        "H' W' of the token grid: whole frames; None: each by itself, as in the paper",
                                        nargs=3, type=int, metavar=("T", "H", "W"), within="[1, inf)", identity=FIXED)
    tats_project_values: bool = flag(True, "v~ of Eq. 2 is W~ y~; false: y~ itself, as Motionformer's code has it",
                                     identity=FIXED)
    trajectory_kernel: str = flag("plain", "exact trajectory attention by operations of torch, or triton: by fused "
                                  "kernels for NVIDIA GPUs, which no GPU has run yet", choices=("plain", "triton"),
                                  identity=False)
    softmax_temp: float = flag(1.0, "temperature of the policy's softmax", within="(0, inf)", identity=FIXED)
    random_share: float = flag(0.0, "share of the clips that get a random mask instead, once the policy acts",
                               within="[0, 1]")
    random_share_final: float | None = flag(None, "that share in the last epoch, linear in between; None: it stays",
                                            within="[0, 1]")
    context_share: float = flag(0.0, "share of each clip's visible tokens that comes from anywhere, beside those "
                                "that the policy chose", within="[0, 1)")
    reuse_forward: bool = flag(True, "keep phase 1's forward of the policy for phase 2 where the two are equal: "
                               "faster, more memory", identity=False)


@dataclass(frozen=True)
class WatchConfig:
    """Watching a run"""

    vis_freq: int = flag(0, "epochs between two sheets of the fixed clips, in output_dir/pictures and TensorBoard; "
                         "0: none", within="[0, inf)", identity=False)
    vis_path: str = flag("", "list of the fixed clips, for sheets, train_fixed_error and train_policy_moved; none: the "
                         "first rows of data_path", identity=False)
    vis_clips: int = flag(8, "number of fixed clips; the first four are drawn. 0: none",
                          within="[0, inf)", identity=False)


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
        "tats_approx": "orthoformer" if paper else "none",
    }
    config = replace(config, **{name: value for name, value in chosen.items() if getattr(config, name) is None})
    if config.mae_only_explained and not config.mae_only_epochs:
        raise ValueError("--mae_only_explained starts from --mae_only_epochs, which must be 1 or more; got 0")
    if config.trajectory_kernel == "triton" and (config.tats_attention != "trajectory" or config.tats_approx != "none"
                                                 or not config.tats_project_values):
        raise ValueError("--trajectory_kernel triton is exact trajectory attention with projected values: it goes with "
                         "--tats_attention trajectory --tats_approx none --tats_project_values true alone")
    if config.target_kl is not None and config.ppo_epochs == 1:
        raise ValueError(f"--target_kl {config.target_kl:g} ends the passes over the buffer early: it needs "
                         "--ppo_epochs above 1")
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
    plugins: PluginConfig = PluginConfig()

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> "Settings":
        """Read and check the parsed flags.

        Raises:
            ValueError: a value that cannot be run with.
        """
        settings = settings_from_args(cls, args)
        settings = replace(settings, sampler=resolve_recipe(settings.sampler))
        if not settings.data.data_path:
            raise ValueError("--data_path is missing: give a list file with a video path a line "
                             "(python -m tats.datasets.build_lists makes one, tats.datasets.moving_shapes a toy set)")
        if settings.optim.batch_size % settings.data.num_sample:
            raise ValueError(f"--batch_size {settings.optim.batch_size} counts clips, and {settings.data.num_sample} "
                             "of them come from one video (--num_sample): make it a multiple")
        return settings
