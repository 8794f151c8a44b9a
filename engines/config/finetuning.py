"""Every flag of `run_class_finetuning`, declared once. VideoMAE's names and meanings where VideoMAE has them."""

import argparse
from dataclasses import dataclass, replace
from typing import ClassVar

from . import common as common_config
from .common import TrainLoaderConfig
from .flags import BATCH, CONTENT, FIXED, LONGER, SETUP, SOURCE, PluginConfig, flag, settings_from_args


@dataclass(frozen=True)
class ClassifierConfig:
    """Model"""

    model: str = flag("vit_base_patch16_224", "vit_SIZE_patch16_224 with SIZE small, base, large or huge; "
                      "vit_giant_patch14_224; for a CPU vit_tats_tiny (clips of 24 x 24 pixels) and vit_tats_mini "
                      "(64 x 64)", identity=FIXED)
    finetune: str = flag("", "start from this checkpoint: pre-trained or fine-tuned, ours, VideoMAE's, AdaMAE's",
                         identity=SOURCE)
    model_key: str = flag("model|module", "where the weights are in that file", identity=FIXED)
    allow_partial: bool = flag(False, "load what fits of --finetune, even where it is another network's",
                               identity=FIXED)
    trust_checkpoint: bool = flag(False, "allow pickled objects in checkpoints (old VideoMAE files); runs their code",
                                  identity=False)
    num_frames: int = flag(16, "frames of a clip", within="[1, inf)", identity=FIXED)
    input_size: int | None = flag(None, "height and width of a clip in pixels; None: the model's own (224)",
                                  within="[1, inf)", identity=FIXED)
    tubelet_size: int = flag(2, "frames of a token", within="[1, inf)", identity=FIXED)
    pos_embed: str | None = flag(None, "fixed positions; None: those of --finetune where it says, else the model's own",
                                 choices=("sincos1d", "sincos3d"), identity=FIXED)
    fc_drop_rate: float = flag(0.0, "dropout before the head", aliases=("--head_drop_rate",), within="[0, 1)",
                               identity=FIXED)
    drop: float = flag(0.0, "dropout of projections and MLPs", within="[0, 1)", identity=FIXED)
    attn_drop_rate: float = flag(0.0, "dropout of attention weights", within="[0, 1)", identity=FIXED)
    drop_path: float = flag(0.1, "stochastic depth", within="[0, 1)", identity=FIXED)
    init_scale: float = flag(0.001, "scale of the head's first weights", within="[0, inf)", identity=FIXED)
    use_mean_pooling: bool = flag(True, "the mean of all tokens goes to the head", identity=FIXED)
    use_cls: bool = flag(False, "token 0 goes to the head instead, as VideoMAE's --use_cls (it is no class token)",
                         identity=FIXED)
    use_checkpoint: bool = flag(False, "activation checkpointing: less memory, more time",
                                aliases=("--with_checkpoint",), identity=False)
    model_ema: bool = flag(False, "keep an exponential moving average of the weights")
    model_ema_decay: float = flag(0.9999, "its decay", within="[0, 1)")
    model_ema_force_cpu: bool = flag(False, "keep it in host memory", identity=False)


@dataclass(frozen=True)
class LabelledDataConfig(TrainLoaderConfig):
    """Data"""

    data_path: str = flag("", "folder with train.csv, val.csv and test.csv: a video path and a label a line",
                          identity=CONTENT)
    data_set: str = flag("", "UCF101, HMDB51, Kinetics-400, SSV2, ...: gives classes, stride, views, sampling, flips")
    nb_classes: int | None = flag(None, "number of classes; None: that of --data_set. Enough for any other list",
                                  within="[2, inf)", identity=FIXED)
    sampling: str | None = flag(None, "a clip at a fixed stride, or one frame out of each of num_frames equal parts of "
                                "the video (SSV2's); None: that of --data_set, else dense",
                                choices=("dense", "segments"))
    sampling_rate: int | None = flag(None, "stride between frames; None: that of --data_set, else 4", within="[1, inf)")
    flip: bool = flag(True, "mirror training clips where the data set allows it; --no_flip: never, for classes that "
                      "tell left from right")
    num_sample: int = flag(2, "repeated augmentation: training clips made of one decode", within="[1, inf)")
    short_side_size: int | None = flag(None, "shorter side in evaluation, before the crop; None: input_size",
                                       within="[1, inf)")
    test_num_segment: int | None = flag(None, "clips of a test video in time; None: that of --data_set, else 5",
                                        within="[1, inf)")
    test_num_crop: int | None = flag(None, "crops of a test clip; None: that of --data_set, else 3", within="[1, inf)")


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation"""

    aa: str = flag("rand-m7-n4-mstd0.5-inc1", "RandAugment, one draw for all frames of a clip; '' or none: none")
    train_interpolation: str = flag("bicubic", "RandAugment's resampling", choices=("random", "bilinear", "bicubic"))
    crop_scale: list[float] | None = flag(None, "shares of a frame's area that the random crop takes; None: 0.08 1, "
                                          "VideoMAE's. 1 1: whole frames", nargs=2, type=float, within="(0, 1]")
    smoothing: float = flag(0.1, "label smoothing", within="[0, 1)")
    reprob: float = flag(0.25, "probability of random erasing, one box through time", within="[0, 1]")
    remode: str = flag("pixel", "what erasing fills with", choices=("pixel", "rand", "const"))
    recount: int = flag(1, "largest number of erased boxes", within="[1, inf)")
    mixup: float = flag(0.8, "mixup alpha; 0: off", within="[0, inf)")
    cutmix: float = flag(1.0, "CutMix alpha; 0: off", within="[0, inf)")
    cutmix_minmax: list[float] | None = flag(None, "CutMix box sides, shares; None: by alpha", nargs="+",
                                             type=float, within="[0, 1]")
    mixup_prob: float = flag(1.0, "probability of either", within="[0, 1]")
    mixup_switch_prob: float = flag(0.5, "probability of CutMix where both are on", within="[0, 1]")
    mixup_mode: str = flag("batch", "one draw for the batch, a pair or a clip", choices=("batch", "pair", "elem"))


@dataclass(frozen=True)
class ClassifierOptimConfig(common_config.OptimConfig):
    """Optimisation"""

    update_freq: int = flag(1, "micro-batches accumulated into a step", aliases=("--accum_iter",), within="[1, inf)",
                            identity=BATCH)
    epochs: int = flag(30, "epochs", within="[1, inf)", identity=LONGER)
    opt: str = flag("adamw", "optimiser, any of timm's", identity=FIXED)
    opt_betas: list[float] | None = flag(None, "optimiser betas; None: 0.9 0.999", nargs="+", type=float,
                                         within="[0, 1)")
    clip_grad: float | None = flag(None, "largest gradient norm", within="(0, inf)")
    lr: float = flag(1e-3, "learning rate for 256 clips a step; scaled by batch_size * update_freq * processes / 256 "
                     "(num_sample is not counted)", within="(0, inf)")
    min_lr: float = flag(1e-6, "learning rate at the end, scaled likewise", within="[0, inf)")
    warmup_epochs: int = flag(5, "epochs of linear warm-up from 0", within="[0, inf)")
    default_betas: ClassVar[tuple[float, float]] = (0.9, 0.999)
    layer_decay: float = flag(0.75, "factor of the learning rate from one block to the one below; 1: none",
                              within="(0, 1]")


@dataclass(frozen=True)
class EvaluationConfig:
    """Evaluation"""

    eval: bool = flag(False, "only test: the weights of --resume, else of --finetune, else of output_dir",
                      identity=False)
    eval_mode: str = flag("finetune", "train all, only the head on frozen features (linear probe), or nothing: "
                          "nearest neighbours among the training features", choices=("finetune", "linear", "knn"),
                          identity=FIXED)
    test_weights: str = flag("last", "what is tested: the last epoch's weights, the best in validation, or the moving "
                             "average", choices=("last", "best", "ema"))
    disable_eval_during_finetuning: bool = flag(False, "no validation after each epoch", identity=False)
    knn_k: int = flag(20, "neighbours of --eval_mode knn", within="[1, inf)")
    knn_temperature: float = flag(0.07, "temperature of their votes", within="(0, inf)")


@dataclass(frozen=True)
class ZeroConfig:
    """DeepSpeed"""

    enable_deepspeed: bool = flag(False, "train with DeepSpeed", identity=SETUP)
    zero_stage: int = flag(0, "what the processes share out: nothing, optimiser states (1), gradients too (2), "
                           "parameters too (3)", choices=(0, 1, 2, 3), identity=SETUP)


@dataclass(frozen=True)
class ClassifierRunConfig(common_config.RunConfig):
    """Run"""

    save_ckpt: bool = flag(True, "write checkpoints", identity=False)
    save_ckpt_freq: int = flag(100, "epochs between checkpoints; the last epoch is always saved",
                               within="[1, inf)", identity=False)


FINETUNING = (ClassifierConfig, LabelledDataConfig, AugmentConfig, ClassifierOptimConfig, EvaluationConfig, ZeroConfig,
              ClassifierRunConfig)

DEAD_FLAGS = common_config.DEAD_FLAGS | {
    "dist_eval": "evaluation is always shared out over the processes, exactly",
    "color_jitter": "RandAugment is all the colour there is, in VideoMAE too, which reads this flag nowhere",
    "crop_pct": "read nowhere, in VideoMAE neither",
    "resplit": "read nowhere, in VideoMAE neither",
    "eval_data_path": "the lists are those of --data_path, in VideoMAE too",
    "num_segments": "a clip is one segment; the test's are --test_num_segment",
    "model_prefix": "known prefixes are taken off by themselves",
}


@dataclass(frozen=True)
class Settings:
    """The settings of a fine-tuning run, by topic."""

    model: ClassifierConfig
    data: LabelledDataConfig
    augment: AugmentConfig
    optim: ClassifierOptimConfig
    evaluation: EvaluationConfig
    zero: ZeroConfig
    run: ClassifierRunConfig
    plugins: PluginConfig = PluginConfig()

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> "Settings":
        """Read and check the parsed flags.

        Raises:
            ValueError: a value that cannot be run with.
        """
        settings = settings_from_args(cls, args)
        settings.check_evaluation()
        return settings

    def check_evaluation(self) -> None:
        """Refuse weights that will not be there, and combinations that cannot run.

        Raises:
            ValueError: in one line.
        """
        evaluation, kept = self.evaluation, self.run.output_dir and self.run.save_ckpt
        if evaluation.test_weights == "ema" and not (self.model.model_ema or evaluation.eval):
            raise ValueError("--test_weights ema needs --model_ema")
        if evaluation.test_weights == "best" and not evaluation.eval and (
                evaluation.disable_eval_during_finetuning or not kept):
            raise ValueError("--test_weights best needs validation, --output_dir and --save_ckpt")
        if self.zero.enable_deepspeed and evaluation.eval_mode == "linear":
            raise ValueError("--eval_mode linear trains a single layer: run it without --enable_deepspeed")
        if self.zero.enable_deepspeed and self.zero.zero_stage == 3 and self.model.model_ema:
            raise ValueError("--model_ema needs whole weights on every process: use --zero_stage 0, 1 or 2")


def without_training(settings: Settings) -> Settings:
    """The same for `--eval`: nothing of what only training needs is started."""
    return replace(settings, zero=ZeroConfig())
