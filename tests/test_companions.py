"""Flags that were given and do nothing without another one are named."""

from pathlib import Path

import pytest
from tats.engines import run_class_finetuning, run_mae_pretraining
from tats.engines.config import companions, finetuning, pretraining
from tiny_runs import small_pretraining_flags

SETTINGS = Path(__file__).parents[1] / "run_scripts/settings"
PROGRAMS = {"pretrain": (run_mae_pretraining.get_parser, pretraining.Settings),
            "finetune": (run_class_finetuning.get_parser, finetuning.Settings)}


def vain(program, *words):
    parser, settings = PROGRAMS[program]
    return companions.given_in_vain(settings.from_args(parser().parse_args(["--data_path", "x", *words])))


@pytest.mark.parametrize(("program", "alone", "needed"), [
    ("pretrain", "--cache_gb 5", "--cache_dir c"),
    ("pretrain", "--momentum 0.8", "--opt sgd"),
    ("pretrain", "--vis_freq 2", "--output_dir o"),
    ("finetune", "--model_ema_decay 0.9", "--model_ema"),
    ("finetune", "--model_ema_force_cpu", "--model_ema"),
    ("finetune", "--knn_k 5", "--eval_mode knn"),
    ("finetune", "--knn_temperature 0.1", "--eval_mode knn"),
    ("finetune", "--zero_stage 1", "--enable_deepspeed"),
])
def test_a_flag_that_waits_for_another(program, alone, needed):
    (named,) = vain(program, *alone.split())
    assert named.startswith(f"{alone.split()[0]} (it needs ")
    assert vain(program, *alone.split(), *needed.split()) == []


@pytest.mark.parametrize(("program", "words", "without"), [
    ("pretrain", "--vis_path v.csv", "--vis_clips 0"),
    ("finetune", "--remode rand", "--reprob 0"), ("finetune", "--recount 2", "--reprob 0"),
    ("finetune", "--train_interpolation bilinear", "--aa none"),
    ("finetune", "--mixup_prob 0.5", "--mixup 0 --cutmix 0"), ("finetune", "--mixup_mode pair", "--mixup 0 --cutmix 0"),
    ("finetune", "--mixup_switch_prob 0.4", "--mixup 0"),
])
def test_a_flag_whose_other_one_is_off(program, words, without):
    assert vain(program, *words.split()) == []
    (named,) = vain(program, *words.split(), *without.split())
    assert named.startswith(f"{words.split()[0]} (it needs ")


def test_defaults_and_the_rows_of_the_paper_have_none():
    assert vain("pretrain") == vain("finetune") == []
    for data_set in ("ucf101", "hmdb51", "k400", "ssv2"):
        for program in PROGRAMS:
            files = (SETTINGS / f"{program}.args", SETTINGS / f"{program}_{data_set}.args")
            assert vain(program, *(f"@{file}" for file in files)) == []


def test_a_run_says_it(shapes, tmp_path, caplog):
    caplog.set_level("INFO")
    more = "--epochs 1 --vis_clips 0 --momentum 0.8"
    run_mae_pretraining.main(small_pretraining_flags(shapes, tmp_path, *more.split()))
    assert "without effect in this run: --momentum (it needs another --opt)" in caplog.text
