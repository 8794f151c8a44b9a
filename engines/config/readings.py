"""What the paper says, how each sentence is read here, and the flag that holds the reading: what --explain prints.

A sentence that text and tables disagree on, or that says nothing of what is needed to run it, has one row with all its
readings.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from tabulate import tabulate

OTHER = "none of the readings known here"
HEADS = ("the paper", "our reading", "flags", "why the rows read it so, and the other readings")


class Reading(NamedTuple):
    """A sentence of the paper.

    Fields:
        paper: its words or numbers, with their place.
        flags: names of the flags that hold the reading.
        readings: what their values stand for; the key is the value of the one flag, or the tuple of their values.
        why: of the choice, with the flags of the other readings.
        needs: values of other flags without which it plays no part. With another mask_type it is not of this run, and
            left out.
        rows: the values of `flags` in the scripts of the paper's rows, one tuple for each set of values that they
            have. With other values the table says that `why` is not about them.
    """

    paper: str
    flags: tuple[str, ...]
    readings: Mapping[Any, str] | Callable[..., str]
    why: str
    needs: Mapping[str, Any] = {}
    rows: tuple[tuple, ...] = ()


TATS = {"mask_type": "tats"}
TRAJECTORY = TATS | {"tats_attention": "trajectory"}


def _beginning(mae_only: int, every: int, epochs: int) -> str:
    if mae_only >= epochs:
        return f"the policy never acts: all {epochs} epochs have random masks"
    return f"{mae_only} epochs of random masks, then an update of θ after every {every} step(s)"


def _extras(*values: Any) -> str:
    return "none of them" if values == EXTRAS_OFF else "with additions that the paper does not have"


EXTRAS_OFF = (0, None, 0, 0, 1, None, None, None, None, 0)   # in the order of the row's flags
PRETRAINING = (
    Reading("TA; \"in practice, we employ an approximation of TA (Orthoformer)\" (Sec. 3.2)", ("tats_approx",),
            {"orthoformer": "Orthoformer's landmarks", "none": "exact trajectory attention"},
            "The sentence. Eqs. 1 and 2 are the exact form: `--tats_approx none`.", TRAJECTORY,
            rows=(("orthoformer",),)),
    Reading("no number of landmarks", ("num_landmarks",), "{} landmarks".format,
            "Motionformer's own setting is 128.", TRAJECTORY | {"tats_approx": "orthoformer"}, rows=((128,),)),
    Reading("q̃, k̃, ṽ are projections of ỹ (Eq. 2)", ("tats_project_values",),
            {True: "ṽ = W̃ ỹ", False: "ṽ = ỹ, the values are not projected"},
            "As printed. The default of Motionformer's code leaves the values as they are: "
            "`--no_tats_project_values`.", TRAJECTORY, rows=((True,),)),
    Reading("r = π_θ(I_m′) / π_θold(I_m), I_m′ a fresh draw (Eq. 8, Alg. 1 line 18)", ("ppo_ratio",),
            {"resampled": "a fresh draw, paired with I_m in ascending token order", "recorded": "PPO's ratio, at I_m"},
            "As printed. PPO's own ratio is of the action that was taken: `--ppo_ratio recorded`.", TATS,
            rows=(("resampled",),)),
    Reading("E[...] over tokens (Eq. 8)", ("ppo_weighting",),
            {"uniform": "the plain mean over the masked tokens", "policy": "the expectation under π_θold",
             "undivided": "weighted by π_θold, not divided by P(masked)"},
            "Nothing else is printed. Under the policy: `--ppo_weighting policy`.", TATS, rows=(("uniform",),)),
    Reading("A = L_R − ψ_θold(X_μ) (Sec. 3.3)", ("adv_norm",),
            {"none": "the difference as it is", "clip": "errors standardised in each clip",
             "batch": "the difference, standardised over the batch"},
            "As printed.", TATS, rows=(("none",),)),
    Reading("L_R is \"the reward\" (Sec. 3.3), one number a clip in Eq. 6", ("reward",),
            lambda reward: {"token": "each masked token's own error", "clip": "the clip's mean error"}.get(
                reward, f"{reward}, which the paper does not have"),
            "\"tokens with higher reconstruction error\" must be told apart, and one number a clip tells none apart: "
            "the policy then learns nothing. Eq. 6 to the letter: `--reward clip`.", TATS, rows=(("token",),)),
    Reading("c1, c2, c3 = 1e-4 (Table 4)", ("policy_coef", "value_coef", "entropy_coef"),
            lambda c1, c2, c3: "all equal" if c1 == c2 == c3 else f"c2 = {c2 / c1:g} c1, c3 = {c3 / c1:g} c1",
            "As printed. The loss is divided by c1, which AdamW takes no notice of.", TATS, rows=((1e-4, 1e-4, 1e-4),)),
    Reading("ε = 0.2, softmax temperature 1 (Sec. 3.3, Table 4)", ("clip_epsilon", "softmax_temp"),
            "{:g} and {:g}".format, "As printed.", TATS, rows=((0.2, 1),)),
    Reading("learning rate for g_θ: 1.5e-6 (Table 4)", ("sampler_lr",), "{:g}, not scaled with the batch".format,
            "The other rate is called \"base\", this one is not.", TATS, rows=((1.5e-6,),)),
    Reading("\"cosine decay\", \"warmup epochs 40\" (Table 4), of which network is not said",
            ("sampler_lr_final", "sampler_warmup_epochs"),
            lambda final, warmup: " and ".join(["θ's rate is constant" if final is None else f"a cosine to {final:g}",
                                                f"{warmup} epochs of warm-up" if warmup else "has no warm-up"]),
            "Table 4 gives θ a rate of its own. With the schedule of φ: `--sampler_lr_final 0 "
            "--sampler_warmup_epochs 40`, counted from θ's first update.", TATS, rows=((None, 0),)),
    Reading("m_o = 10, k = 1 (Table 4), 400 epochs (Sec. 4)", ("mae_only_epochs", "update_every", "epochs"), _beginning,
            "As printed; e ≤ m_o counts epochs from 1.", TATS, rows=((10, 1, 400),)),
    Reading("M_b is reset \"if step mod k = 0\" (Alg. 1 lines 14 and 22)", ("flush_buffer",),
            {True: "what an epoch leaves in M_b is learned from at its end",
             False: "what an epoch leaves in M_b waits for the next epoch's steps"},
            "No difference for k = 1. Else the MAE has moved on by then; on 8 GPUs HMDB51 has 13 steps an epoch, so "
            "that k = 25 acts as 13. As printed: `--no_flush_buffer`.", TATS, rows=((True,),)),
    Reading("the first state of g_θ is not said (Alg. 1 line 1)", ("policy_head_init",),
            {"zeros": "the head starts at zero: a uniform policy", "xavier": "a random head: a random, peaky policy"},
            "At 1.5e-6 θ hardly leaves a random start. The usual start of a layer: `--policy_head_init xavier`.", TATS,
            rows=(("zeros",),)),
    Reading("one block of TA (Table 3e)", ("tats_depth", "tats_attention"),
            "{} block(s) of {} attention".format, "As printed; Table 3a compares `--tats_attention mha`.", TATS,
            rows=((1, "trajectory"),)),
    Reading("Z = TA(X) (Eq. 3)", (), "pre-norm TA and MLP, both residual: AdaMAE's sampler block".format,
            "\"Following AdaMAE\"; a prototype without them ranked moving tokens worse (AUROC .84, not .92). No flag.",
            TATS),
    Reading("no word of random shares, several passes, cells or blocks of tokens, rewards of neighbours, or a target "
            "of the entropy or KL divergence",
            ("mae_only_explained", "num_visible", "random_share", "context_share", "ppo_epochs", "target_kl",
             "target_entropy", "tats_merge", "tats_block", "reward_reach"), _extras, "Ours, off in the rows.", TATS),
    Reading("\"fixed 3D periodic positional encoding\" (Sec. 3.1)", ("pos_embed",),
            {None: "the model's own: sine and cosine of the flattened index", "sincos1d": "of the flattened index",
             "sincos3d": "of time, height and width"},
            "The code that the paper builds on has the flattened index. To the letter: `--pos_embed sincos3d`.",
            rows=((None,),)),
    Reading("MultiScaleCrop (Table 4); \"random resized cropping\", "
            "\"scaling in [0.5, 1]\", \"horizontal flipping\" (Sec. 8.1)", ("pretrain_aug",),
            {"multiscale": "MultiScaleCrop", "rrc": "resized crop and flip"},
            "Sec. 8.1 \"closely follows AdaMAE\", whose code has MultiScaleCrop. The text: `--pretrain_aug rrc`, "
            "without flips on SSv2.", rows=(("multiscale",),)),
    Reading("batch size 32 \"on 8 GPUs\", base learning rate 1.5e-4 (Sec. 4, Table 4)",
            ("batch_size", "lr"), "{} a GPU; {:g} for 256 clips".format,
            "As a total, the rate would be 1.9e-5: `--batch_size 4`.", rows=((32, 1.5e-4),)),
    Reading("decoder: 4 blocks (Tables 3b and 8), \"# Blocks = 1\" is best (Sec. 4.2)", ("decoder_depth",),
            lambda depth: "the model's own (4 for ViT-B)" if depth is None else f"{depth} block(s)",
            "Two tables against a sentence: `--decoder_depth 1`.", rows=((4,),)),
    Reading("\"Projection: MHA(384)\" (Table 8)", (), "a linear layer, as in VideoMAE and AdaMAE".format,
            "Table 8 is AdaMAE's, whose code has a linear layer. No flag."),
    Reading("exp⟨q, k⟩ (Eqs. 1 and 2)", (), "exp(⟨q, k⟩ / √d)".format,
            "So does Motionformer's code; without it softmax saturates. No flag.", TRAJECTORY),
    Reading("weight decay, smallest learning rate: not said", ("weight_decay", "min_lr"), "{:g} and {:g}".format,
            "As in the code of VideoMAE and AdaMAE.", rows=((0.05, 1e-5),)),
)

FINETUNING = (
    Reading("RandAug \"9, 0.5\" (Table 7)", ("aa",),
            lambda aa: f"magnitude 9, deviation 0.5, {4 if '-n4' in aa else 2} operations a clip"
            if "-m9-" in aa and "mstd0.5" in aa else OTHER,
            "Their number is not said; 2 is timm's. VideoMAE's code has 4: `--aa rand-m9-n4-mstd0.5-inc1`.",
            rows=(("rand-m9-mstd0.5-inc1",),)),
    Reading("batch size 8, base learning rate 1e-3 (Table 7)", ("batch_size", "lr"),
            "{} a GPU on 8 GPUs; {:g} for 256 clips".format, "As in pre-training. As a total: `--batch_size 1`.",
            rows=((8, 1e-3),)),
    Reading("# Temporal clips 5 (K400), 2 (SSv2/HMDB/UCF), spatial crops 3 (Table 7)",
            ("test_num_segment", "test_num_crop"), "{} x {} views".format,
            "As printed; VideoMAE's script for UCF101 takes 5 x 3.", rows=((2, 3), (5, 3))),
    Reading("temporal stride 4 (K400), 2 (HMDB51/UCF101/SSv2), \"for pre-training\" (Sec. 8.1)", ("sampling_rate",),
            "stride {} in fine-tuning, too".format,
            "Nothing else is said of fine-tuning. Of no effect on SSv2, whose clips are sampled by segments.",
            rows=((2,), (4,))),
    Reading("CutMix, random erasing, repeated augmentation, smallest learning rate: not said",
            ("cutmix", "reprob", "num_sample", "min_lr"), "{:g}, {:g}, {} clip(s) a video, {:g}".format,
            "The defaults of VideoMAE's and AdaMAE's code; AdaMAE's scripts take one clip a video, VideoMAE's default "
            "is `--num_sample 2`. Without: `--cutmix 0`, `--reprob 0`.", rows=((1, 0.25, 1, 1e-6),)),
    Reading("smoothing 0.1, mixup 0.8, drop path 0.1, layer decay 0.75, weight decay 0.05 (Table 7)",
            ("smoothing", "mixup", "drop_path", "layer_decay", "weight_decay"),
            "{:g}, {:g}, {:g}, {:g}, {:g}".format, "As printed.", rows=((0.1, 0.8, 0.1, 0.75, 0.05),)),
)


def explained(readings: Iterable[Reading], settings: Any) -> list[tuple[str, str, str, str]]:
    """A row for each of `readings`, cells as in `HEADS`; settings: of the program, recipe resolved."""
    values = {item.name: getattr(topic, item.name) for name in fields(settings)
              for topic in (getattr(settings, name.name),) for item in fields(topic)}
    own = [one for one in readings if "mask_type" not in one.needs or one.needs["mask_type"] == values["mask_type"]]
    return [(one.paper, _reading(one, values), _flags(values, one.flags) or "-", _why(one, values)) for one in own]


def _why(one: Reading, values: Mapping[str, Any]) -> str:
    """`why`, which is of what the rows run; this is said where the command line runs something else."""
    if not one.rows or tuple(values[name] for name in one.flags) in one.rows or _without(one, values):
        return one.why
    rows = " or ".join(f"`{_flags(dict(zip(one.flags, row, strict=True)), one.flags)}`" for row in one.rows)
    return f"The rows run {rows} instead. Why: {one.why}"


def _flags(values: Mapping[str, Any], names: Iterable[str]) -> str:
    return " ".join(f"--{name} {_shown(values[name])}" for name in names)


def _reading(one: Reading, values: Mapping[str, Any]) -> str:
    if without := _without(one, values):
        return f"plays no part with {without}"
    own = [values[name] for name in one.flags]
    if callable(one.readings):
        return one.readings(*own)
    return one.readings.get(own[0] if len(own) == 1 else tuple(own), OTHER)


def _without(one: Reading, values: Mapping[str, Any]) -> str:
    """The flags whose values leave the sentence without a part."""
    return _flags(values, [name for name, needed in one.needs.items() if values[name] != needed])


def _shown(value: Any) -> str:
    if value is None:
        return "(not given)"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def to_text(rows: Sequence[Sequence[str]]) -> str:
    """For a terminal."""
    plain = [[cell.replace("`", "") for cell in row] for row in rows]
    return tabulate(plain, HEADS, tablefmt="grid", maxcolwidths=[38, 32, 34, 44], disable_numparse=True) + "\n"


def to_markdown(rows: Sequence[Sequence[str]]) -> str:
    """For docs/reproducing.md; flags in code style."""
    cells = [(paper, reading, f"`{flags}`" if flags != "-" else "", why) for paper, reading, flags, why in rows]
    lines = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in (HEADS, *cells)]
    return "\n".join([f"| {lines[0]} |", "|---" * len(HEADS) + "|", *(f"| {line} |" for line in lines[1:])])
