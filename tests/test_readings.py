"""What --tats_recipe paper runs, sentence by sentence, and that --explain and the page say so."""

import shutil

import pytest
import torch
from doc_pages import ROOT
from dry_runs import SCRIPTS
from paper_numbers import SAMPLER
from pretraining_setup import EpisodeBuffer, learner, loader, ppo_training, tiny_mae, tiny_sampler
from tats.engines.config import finetuning, pretraining, readings
from tats.engines.config.pretraining import MaskConfig, SamplerConfig, resolve_recipe
from tats.engines.core.meters import Meters
from tats.engines.engine_for_pretraining_ppo import train_one_epoch
from tats.engines.run_class_finetuning import get_parser as finetuning_parser
from tats.engines.run_class_finetuning import main as finetune_main
from tats.engines.run_mae_pretraining import get_parser, main
from tats.engines.runs.pretraining_build import sampler_config, sampler_config_in, sampler_schedule
from tats.masking import TATS
from tiny_runs import assert_equal_states, error_line, final_state, small_pretraining_flags

ROW = [f"@{SCRIPTS}/settings/pretrain.args", f"@{SCRIPTS}/settings/pretrain_ucf101.args", "--mask_type", "tats",
       "--mask_ratio", "0.95", "--tats_recipe", "paper"]
FINETUNING_ROW = [f"@{SCRIPTS}/settings/finetune.args", f"@{SCRIPTS}/settings/finetune_ucf101.args"]


def settings(*words):
    return pretraining.Settings.from_args(get_parser().parse_args(["--data_path", "x", *words]))


def test_the_papers_recipe():
    sampler = settings(*ROW).sampler
    assert {name: getattr(sampler, name) for name in SAMPLER} == SAMPLER


def test_values_of_trajectory_attention():
    """--no_tats_project_values reaches the network; a checkpoint from before the flag had projected values."""
    mask, printed, other = MaskConfig("tats"), *(resolve_recipe(SamplerConfig(tats_project_values=value))
                                                 for value in (True, False))
    for config, projected in ((printed, True), (other, False)):
        (block,) = TATS((2, 2, 2), 8, **sampler_config(mask, config)).blocks
        assert block.attn.project_values is projected
    old = {"sampler_config": {name: value for name, value in sampler_config(mask, printed).items()
                              if name != "project_values"}}
    assert sampler_config_in(old, mask) == sampler_config(mask, printed) != sampler_config(mask, other)
    assert sampler_config_in({}, mask) is None


def test_our_recipe_has_exact_attention():
    assert (resolve_recipe(SamplerConfig()).tats_approx, settings().sampler.tats_approx) == ("none", "none")
    assert settings("--tats_recipe", "paper", "--tats_approx", "none").sampler.tats_approx == "none"


@pytest.mark.parametrize(("words", "reading"), [
    (("--num_landmarks", "64"), "64 landmarks"),
    (("--no_tats_project_values",), "ṽ = ỹ, the values are not projected"),
    (("--ppo_ratio", "recorded"), "PPO's ratio, at I_m"),
    (("--ppo_weighting", "policy"), "the expectation under π_θold"),
    (("--adv_norm", "clip"), "errors standardised in each clip"),
    (("--reward", "clip"), "the clip's mean error"),
    (("--entropy_coef", "1e-3"), "c2 = 1 c1, c3 = 10 c1"),
    (("--sampler_lr", "1e-4"), "0.0001, not scaled with the batch"),
    (("--sampler_lr_final", "0", "--sampler_warmup_epochs", "40"), "a cosine to 0 and 40 epochs of warm-up"),
    (("--no_flush_buffer",), "what an epoch leaves in M_b waits for the next epoch's steps"),
    (("--policy_head_init", "xavier"), "a random head: a random, peaky policy"),
    (("--mae_only_epochs", "400"), "the policy never acts: all 400 epochs have random masks"),
    (("--random_share", ".5"), "with additions that the paper does not have"),
    (("--pos_embed", "sincos3d"), "of time, height and width"),
    (("--pretrain_aug", "rrc"), "resized crop and flip"),
    (("--batch_size", "4"), "4 a GPU; 0.00015 for 256 clips"),
    (("--decoder_depth", "1"), "1 block(s)"),
])
def test_another_value_of_a_flag_is_another_reading(words, reading):
    usual, other = (readings.explained(readings.PRETRAINING, settings(*ROW, *more)) for more in ((), words))
    (changed,) = [second for first, second in zip(usual, other, strict=True) if first != second]
    assert changed[1] == reading and words[0].replace("--no_", "--") in changed[2]


def reasons(words):
    return {row[2].split()[0]: row[3] for row in readings.explained(readings.PRETRAINING, settings(*words))}


@pytest.mark.parametrize("data_set", ["ucf101", "hmdb51", "k400", "ssv2"])
def test_the_reasons_are_given_for_what_the_rows_run(data_set):
    """"As printed" beside a reading that is not as printed would be wrong: the table then names the rows' own value."""
    row = [f"@{SCRIPTS}/settings/pretrain.args", f"@{SCRIPTS}/settings/pretrain_{data_set}.args", *ROW[2:]]
    assert not [why for why in reasons(row).values() if "instead" in why]
    args = [f"@{SCRIPTS}/settings/{name}.args" for name in ("finetune", f"finetune_{data_set}")]
    tuned = finetuning.Settings.from_args(finetuning_parser().parse_args(["--data_path", "x", *args]))
    assert not [row[3] for row in readings.explained(readings.FINETUNING, tuned) if "instead" in row[3]]


def test_another_reading_is_not_given_the_rows_reason():
    ours = reasons([*ROW, "--tats_recipe", "ours"])
    assert ours["--adv_norm"] == "The rows run `--adv_norm none` instead. Why: As printed."
    assert {flag for flag, why in ours.items() if "instead" in why} == {
        "--tats_approx", "--ppo_ratio", "--ppo_weighting", "--adv_norm", "--policy_coef", "--sampler_lr"}
    assert "instead" not in ours["--num_landmarks"]   # it plays no part
    assert reasons([*ROW, "--epochs", "800"])["--mae_only_epochs"].startswith(
        "The rows run `--mae_only_epochs 10 --update_every 1 --epochs 400` instead. Why: As printed")


@pytest.mark.parametrize(("words", "views", "stride"), [
    (["--data_set", "UCF101"], "2 x 3 views", "2"), (["--data_set", "UCF101", "--test_num_segment", "7"], "7 x 3 views",
                                                     "2"), (["--nb_classes", "5"], "5 x 3 views", "4")])
def test_what_is_left_to_the_data_set_is_explained_with_its_number(words, views, stride, capsys):
    assert finetune_main([*words, "--explain", "markdown"]) == {}
    told = capsys.readouterr().out
    assert f"| {views} |" in told and f"| stride {stride} in fine-tuning, too |" in told and "None" not in told


def test_a_reward_that_the_paper_has_not():
    (row,) = [row for row in readings.explained(readings.PRETRAINING, settings(*ROW, "--reward", "lasting"))
              if "--reward" in row[2].split()]
    assert row[1] == "lasting, which the paper does not have"


def test_the_papers_row_has_no_additions():
    """Of every flag of the row of extras the paper's value is the one that counts as none."""
    (row,) = [row for row in readings.explained(readings.PRETRAINING, settings(*ROW)) if "random shares" in row[0]]
    assert row[1] == "none of them"
    (words,) = [one.flags for one in readings.PRETRAINING if "random shares" in one.paper]
    assert len(words) == len(readings.EXTRAS_OFF)


def test_sentences_that_play_no_part_say_so():
    """Exact attention has no landmarks, joint attention no trajectories, a run without a policy none of its rows."""
    def changed(*words):
        usual, other = ({row[0]: row[1] for row in readings.explained(readings.PRETRAINING, settings(*ROW, *more))}
                        for more in ((), words))
        return [reading for paper, reading in other.items() if reading != usual[paper]]

    assert changed("--tats_approx", "none") == ["exact trajectory attention", "plays no part with --tats_approx none"]
    assert changed("--tats_attention", "mha") == [
        *["plays no part with --tats_attention mha"] * 3, "1 block(s) of mha attention",
        "plays no part with --tats_attention mha"]
    others = readings.explained(readings.PRETRAINING, settings(*ROW, "--mask_type", "tube"))
    assert [row[2].split()[0] for row in others] == ["--pos_embed", "--pretrain_aug", "--batch_size", "--decoder_depth",
                                                     "-", "--weight_decay"]


@pytest.mark.parametrize(("words", "said"), [
    (("--reward", "clip", "--adv_norm", "clip"), "leaves no advantage"),
    (("--reward", "none"), "unknown reward 'none'"),
    (("--mask_type", "tts"), "unknown mask_type 'tts'"),
    (("--mae_only_epochs", "0", "--mae_only_explained", ".1"), "--mae_only_explained starts from --mae_only_epochs"),
    (("--target_kl", ".1"), "needs --ppo_epochs above 1"),
    (("--tats_approx", "exact"), "--tats_approx"),
])
def test_flags_that_contradict_one_another_are_not_explained(capsys, words, said):
    assert said in error_line(capsys, main, *ROW, *words, "--explain")


def finetuning_rows(*words):
    args = finetuning_parser().parse_args([*FINETUNING_ROW, "--data_path", "x", *words])
    return readings.explained(readings.FINETUNING, finetuning.Settings.from_args(args))


@pytest.mark.parametrize(("aa", "layers"), [("rand-m9-mstd0.5-inc1", 2), ("rand-m9-n4-mstd0.5-inc1", 4)])
def test_layers_of_rand_augment(aa, layers):
    """The name says what timm builds."""
    from timm.data.auto_augment import rand_augment_transform

    assert rand_augment_transform(aa, {}).num_layers == layers
    assert finetuning_rows("--aa", aa)[0][1] == f"magnitude 9, deviation 0.5, {layers} operations a clip"


def test_explain_prints_and_trains_nothing(capsys, tmp_path):
    main([*ROW, "--explain", "--output_dir", str(tmp_path / "out")])
    out = capsys.readouterr().out
    assert "--tats_approx orthoformer" in out and "Motionformer's own setting is 128" in out
    assert not (tmp_path / "out").exists()
    main([*ROW, "--mask_type", "tube", "--explain"])
    out = capsys.readouterr().out
    assert "--tats_approx" not in out and "left out: --mask_type tube has none" in out


def test_the_table_on_the_page_is_current():
    page = (ROOT / "docs/reproducing.md").read_text()
    tables = [readings.to_markdown(readings.explained(readings.PRETRAINING, settings(*ROW))),
              readings.to_markdown(finetuning_rows())]
    for name, table in zip(("pre-training", "fine-tuning"), tables, strict=True):
        own = page.split(f"<!-- readings of {name} -->\n")[1].split(f"\n<!-- /readings of {name} -->")[0]
        assert own == table, "put there what --explain markdown prints with the row's flags"


def test_warm_up_of_theta_by_hand():
    """1 epoch of m_o, 4 of theta, 5 steps each: 2 epochs of warm-up are its first 10 updates, the peak is the tenth."""
    config = resolve_recipe(SamplerConfig(sampler_lr=9.0, sampler_warmup_epochs=2, mae_only_epochs=1))
    rate = sampler_schedule(config, epochs=5, steps_per_epoch=5)
    assert [rate(step) for step in range(10)] == pytest.approx([float(step) for step in range(10)])
    assert [rate(step) for step in (10, 15, 19, 99)] == [9.0] * 4
    down = sampler_schedule(resolve_recipe(SamplerConfig(sampler_lr=9.0, sampler_lr_final=1.0, sampler_warmup_epochs=2,
                                                         mae_only_epochs=1)), 5, 5)
    assert down(10) == 9.0 and down(15) == pytest.approx(5.0)


@pytest.mark.parametrize(("flush", "lengths", "steps"), [(True, [0, 0], 10), (False, [2, 1], 9)])
def test_what_an_epoch_leaves_in_the_buffer(flush, lengths, steps):
    """5 steps an epoch, k = 3: 2 episodes are left; with the next epoch's 5 they are 7, and one is left."""
    mae, tats = learner(tiny_mae()), learner(tiny_sampler())
    training, buffer, seen = ppo_training(mae.module, update_every=3, flush_buffer=flush), EpisodeBuffer(), []
    for epoch in range(2):
        train_one_epoch(epoch, loader(5, 2), mae, tats, buffer, training, Meters())
        seen.append(len(buffer))
    assert (seen, tats.steps) == (lengths, steps)


def test_the_episodes_that_wait_outlive_a_checkpoint(shapes, tmp_path):
    """Six steps an epoch, k = 4: an epoch ends with two episodes, which the next needs."""
    flags = ("--mask_type", "tats", "--mae_only_epochs", "0", "--update_every", "4", "--no_flush_buffer",
             "--sampler_lr", "1e-2", "--save_ckpt_freq", "1", "--epochs", "2")
    main(small_pretraining_flags(shapes, tmp_path / "whole", *flags))
    (tmp_path / "again").mkdir()
    first = shutil.copy(tmp_path / "whole/checkpoint-0.pth", tmp_path / "again")
    state = torch.load(first, weights_only=True)
    assert len(state["progress"][0]["share"]["episodes"]) == 2
    del state["sampler_config"]["project_values"], state["settings"]["sampler"]["tats_project_values"]
    torch.save(state, first)   # as a version wrote it that did not have the flag
    main(small_pretraining_flags(shapes, tmp_path / "again", *flags))
    whole, again = (final_state(tmp_path / name) for name in ("whole", "again"))
    assert_equal_states(whole["sampler"], again["sampler"])
    assert whole["progress"][0]["share"]["episodes"] == []   # 12 steps are 3 times 4
