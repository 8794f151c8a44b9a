"""Which arguments give a run a folder of its own: bash's answer against the programs' declarations."""

import subprocess
from dataclasses import fields

import pytest
from dry_runs import SCRIPTS, dry_run
from tats.engines import flag_table
from tats.engines.config import finetuning, pretraining

SETTINGS = SCRIPTS / "settings"
PROGRAMS = {"run_mae_pretraining": pretraining.PRETRAINING, "run_class_finetuning": finetuning.FINETUNING}


def bash(*words):
    lines = f'settings={SETTINGS}; source {SCRIPTS}/lib/variants.sh; "$@"'
    return subprocess.run(["bash", "-euc", lines, "bash", *words], check=True, capture_output=True, text=True).stdout


def test_the_list_of_the_scripts_is_that_of_the_declarations():
    assert (SETTINGS / "identity.txt").read_text() == flag_table.identities()


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_flag_with_another_value(program):
    """All at once: one argument each, in the order of their declaration."""
    items = [item for config in PROGRAMS[program] for item in fields(config)]
    words = [word for item in items for word in (f"--{item.name}", "77")]
    expected = [item.name for item in items if item.metadata["identity"] not in (False, "setup")]
    assert bash("variant_of", program, "--", *words) == "".join(f"__{name}=77" for name in expected)


@pytest.mark.parametrize(("row", "words", "variant"), [
    ("--lr 1.5e-4", "--lr 0.00015", ""),
    ("--lr 1.5e-4", "--lr=3E-4", "__lr=0.0003"),
    ("", "--seed 0", ""),
    ("", "--seed 0 --seed 1", "__seed=1"),
    ("", "--m_o 3", "__mae_only_epochs=3"),
    ("", "--no_normlize_target", "__normlize_target=false"),
    ("", "--normalize_target yes", ""),
    ("--normlize_target false", "--normlize_target", "__normlize_target=true"),
    ("--opt_betas 0.9 0.95", "--opt_betas 0.9 .95", ""),
    ("--opt_betas 0.9 0.95", "--opt_betas .8 .99 --num_workers 2", "__opt_betas=0.8,0.99"),
    ("", "--init_from /a/b.pth --color_jitter 0.4 --change lr 1", "__init_from=b.pth"),
    ("", "--plugin mine.py", ""),
    ("--epochs 400", "--epochs 400", ""),
])
def test_values_that_are_the_same_and_others(row, words, variant):
    assert bash("variant_of", "run_mae_pretraining", *row.split(), "--", *words.split()) == variant


def test_values_of_settings_files_count(tmp_path):
    (tmp_path / "row.args").write_text("# --seed 3\n--lr   1e-3   # its lr\n--aa none\n")
    words = ("run_class_finetuning", f"@{tmp_path / 'row.args'}", "--")
    assert bash("variant_of", *words, "--lr", ".001", "--aa", "none", "--seed", "3") == "__seed=3"
    assert bash("variant_of", *words, "--aa", "") == "__aa="


def test_a_program_gets_of_a_tables_arguments_what_it_knows():
    words = ["--seed", "1", "--m_o", "5", "--aa", "none", "--nonsense", "2"]
    assert bash("known_arguments", "run_class_finetuning", *words).split() == [
        "--seed", "1", "--aa", "none", "--nonsense", "2"]
    assert bash("known_arguments", "run_mae_pretraining", *words).split() == ["--seed", "1", "--m_o", "5", "--nonsense",
                                                                             "2"]


@pytest.mark.parametrize(("arguments", "environment", "pretraining_folder", "folder"), [
    ((), {"SEED": "2"}, "tats/pretrain_ucf101_r095__seed=2", "tats/finetune_ucf101_r095__seed=2"),
    (("--seed", "2"), {}, "tats/pretrain_ucf101_r095__seed=2", "tats/finetune_ucf101_r095__seed=2"),
    (("--seed", "2"), {"SEED": "1"}, "tats/pretrain_ucf101_r095__seed=2", "tats/finetune_ucf101_r095__seed=2"),
    (("--lr", "5e-2"), {}, "tats/pretrain_ucf101_r095", "tats/finetune_ucf101_r095__lr=0.05"),
    (("--tats_recipe", "ours"), {}, "tats_ours/pretrain_ucf101_r095", "tats_ours/finetune_ucf101_r095"),
    ((), {"TATS_RECIPE": "ours"}, "tats_ours/pretrain_ucf101_r095", "tats_ours/finetune_ucf101_r095"),
])
def test_fine_tuning_follows_the_seed_and_the_recipe(arguments, environment, pretraining_folder, folder):
    (command,) = dry_run("finetune_ucf101_r095.sh", *arguments, **environment)
    assert command.args.output_dir == f"/out/{folder}"
    assert command.args.finetune == f"/out/{pretraining_folder}/checkpoint-399.pth"
    (command,) = dry_run("pretrain_ucf101_r095.sh", *(arguments if "--lr" not in arguments else ()), **environment)
    assert command.args.output_dir == f"/out/{pretraining_folder}"
