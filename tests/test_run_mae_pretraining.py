"""The program: from a list file to checkpoints, and every way in which its input can be wrong."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from processes import wait_for
from tats.datasets.program import run_program
from tats.engines.config.pretraining import SamplerConfig, Settings, resolve_recipe
from tats.engines.core import checkpointing, runtime
from tats.engines.core.logs import RunLog
from tats.engines.pretrain.unused_flags import policy_in_words, unused_flags
from tats.engines.run_mae_pretraining import get_parser, main
from tats.engines.runs.pretraining_run import Pretraining
from tats.masking import MASKINGS
from tiny_runs import PRETRAINING as TINY
from tiny_runs import assert_equal_states, error_line, final_state
from tiny_runs import pretraining_flags as flags
from tiny_runs import small_pretraining_flags as small_flags


@pytest.mark.parametrize("name", MASKINGS)
def test_every_row_runs_from_list_to_checkpoint(name, shapes, tmp_path):
    main(flags(shapes, tmp_path, "--mask_type", name, "--epochs", "2", "--save_ckpt_freq", "1"))
    lines = [json.loads(line) for line in (tmp_path / "log.txt").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1] and all(line["train_loss"] > 0 for line in lines)
    if name == "tats":
        assert "train_entropy_share" not in lines[0] and lines[1]["train_entropy_share"] > 0.9
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert settings["settings"]["mask"]["mask_type"] == name and settings["versions"]["torch"] == torch.__version__
    state = torch.load(tmp_path / "checkpoint-1.pth", weights_only=True)
    assert state["epoch"] == 1 and state["step"] == 12
    assert (state["sampler"] is None) == (MASKINGS[name].sampler is None)
    assert list(tmp_path.glob("events.out.tfevents.*"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tats", "adamae"])
def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(name, shapes, tmp_path, caplog):
    """kill -9 after the second checkpoint; the resumed run ends in the very same state (AdaMAE's dropout included)."""
    def arguments(out):
        return small_flags(shapes, out, "--mask_type", name, "--epochs", "12", "--save_ckpt_freq", "1", "--vis_clips",
                           "0")

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    main(arguments(whole))
    process = subprocess.Popen([sys.executable, "-m", "tats.engines.run_mae_pretraining", *arguments(broken)],
                               env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    wait_for(lambda: (broken / "checkpoint-1.pth").exists() or process.poll() is not None, 400)
    process.kill()
    assert process.wait() == -signal.SIGKILL   # it had not ended by itself
    caplog.set_level("INFO")
    main(arguments(broken))
    assert "resumed from" in caplog.text
    assert_equal_states(final_state(broken), final_state(whole))


def test_bad_input_is_one_line_and_exit_code_2(shapes, tmp_path, capsys):
    out = ["--output_dir", str(tmp_path / "out")]
    empty = tmp_path / "empty.csv"
    empty.write_text("\n")
    broken = tmp_path / "broken.csv"
    broken.write_text("a.mp4 0\n\x00 1\n")
    good = ["--data_path", shapes / "train.csv"]
    assert "--data_path" in error_line(capsys, main, *TINY, *out)
    assert "nowhere.csv" in error_line(capsys, main, *TINY, *out, "--data_path", tmp_path / "nowhere.csv")
    assert "empty.csv" in error_line(capsys, main, *TINY, *out, "--data_path", empty)
    assert "broken.csv" in error_line(capsys, main, *TINY, *out, "--data_path", broken)
    assert "mask_ratio" in error_line(capsys, main, *TINY, *out, *good, "--mask_ratio", "1.0")
    assert "mask_ratio" in error_line(capsys, main, *TINY, *out, *good, "--mask_ratio", "0")
    assert "tubelet" in error_line(capsys, main, *TINY, *out, *good, "--num_frames", "15")
    assert "patch" in error_line(capsys, main, *TINY, *out, *good, "--input_size", "25")
    line = error_line(capsys, main, *TINY, *out, *good, "--model", "vit_tats_tiny")
    assert "vit_tats_tiny is a classifier, and one for pre-training is wanted here: choose one of pretrain_" in line
    line = error_line(capsys, main, *TINY, *out, *good, "--mask_type", "cube")
    assert "cube" in line and "tats" in line
    assert "pretrain_tats_tiny" in error_line(capsys, main, *out, *good, "--model", "resnet50")
    line = error_line(capsys, main, *TINY, *out, *good, "--mask_type", "tube", "--num_visible", "73")
    assert "give --num_visible 72, the nearest" in line
    assert "batch_size" in error_line(capsys, main, *TINY, *out, *good, "--batch_size", "64")
    line = error_line(capsys, main, *TINY, *out, *good, "--num_sample", "3")
    assert "--batch_size" in line and "--num_sample" in line
    assert "epochs" in error_line(capsys, main, *TINY, *out, *good, "--epochs", "0")
    assert "--reward clip" in error_line(capsys, main, *TINY, *out, *good, "--mask_type", "tats", "--reward", "clip")
    assert "true or false" in error_line(capsys, main, *TINY, *out, *good, "--normlize_target", "maybe")
    assert "unrecognized arguments: --no_such_flag (see" in error_line(capsys, main, *TINY, *out, *good,
                                                                       "--no_such_flag")
    line = error_line(capsys, main, *TINY, *out, *good, "--mask_ration=.5", "--epoch", "3")
    assert line.endswith("(did you mean --mask_ratio --epochs? see --help)")
    assert "keep_last" in error_line(capsys, main, *TINY, *out, *good, "--keep_last", "-1")
    assert "max_bad_steps" in error_line(capsys, main, *TINY, *out, *good, "--max_bad_steps", "0")
    assert "missing.pth" in error_line(capsys, main, *TINY, *out, *good, "--resume", tmp_path / "missing.pth")


def test_checkpoint_of_another_grid_is_refused(shapes, tmp_path, capsys):
    main(flags(shapes, tmp_path, "--epochs", "1"))
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        run_program(lambda: main(flags(shapes, tmp_path, "--epochs", "2", "--num_frames", "8")))
    assert stopped.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "num_frames" in last and "checkpoint-0.pth" in last


def test_damaged_newest_checkpoint_falls_back(shapes, tmp_path, caplog):
    main(flags(shapes, tmp_path, "--epochs", "2", "--save_ckpt_freq", "1"))
    newest = tmp_path / "checkpoint-1.pth"
    newest.write_bytes(newest.read_bytes()[:1000])
    caplog.set_level("INFO")
    main(flags(shapes, tmp_path, "--epochs", "2", "--save_ckpt_freq", "1"))
    assert "falling back" in caplog.text and "checkpoint-0.pth, after epoch 0" in caplog.text
    assert torch.load(newest, weights_only=True)["epoch"] == 1


@pytest.mark.parametrize("wanted, explained, epoch, m_o, message", [
    (0., -.1, 1, 2, "still flat"),      # m_o as given, though the model is worse than the mean
    (.3, .2, 1, 3, "one more epoch"), (.3, .2, 0, 2, ""), (.3, .4, 1, 2, "")])
def test_m_o_grows_only_where_that_is_asked_for(wanted, explained, epoch, m_o, message, shapes, caplog):
    caplog.set_level("INFO")
    arguments = flags(shapes, "", "--mask_type", "tats", "--mae_only_epochs", "2", "--epochs", "9",
                      "--mae_only_explained", str(wanted), "--vis_clips", "0")
    run = Pretraining(Settings.from_args(get_parser().parse_args(arguments)), runtime.start("cpu"))
    run.epoch = epoch
    caplog.clear()
    run.judge_error_map({"explained_variance": explained})
    assert run.training.mae_only_epochs == m_o
    assert message in caplog.text and bool(message) == bool(caplog.text)


def test_a_policy_that_never_acts_is_named(shapes, tmp_path, caplog):
    main(flags(shapes, tmp_path, "--epochs", "1", "--mask_type", "tats", "--vis_clips", "0"))
    assert "the policy never acts: all 1 epochs have random masks (--mae_only_epochs 1)" in caplog.text


def test_a_run_says_what_it_is_what_has_no_effect_and_where_it_ended(shapes, tmp_path, caplog):
    """6 steps of 4 clips: 24 videos. Random masks read none of the policy's flags, m_o included."""
    caplog.set_level("INFO")
    arguments = flags(shapes, tmp_path, "--epochs", "1", "--mask_type", "random", "--ppo_epochs", "4", "--reward",
                      "easy", "--vis_clips", "0", "--warmup_epochs", "3")
    main(arguments)
    assert "pretrain_tats_tiny on 24 videos: 1 epochs of 6 steps; clips of 16 frames at stride 1, --mask_type random " \
        "shows 72 of 288 tokens" in caplog.text
    assert "without effect in this run (--mask_type random does not read it): --mae_only_epochs, --ppo_epochs, " \
        "--reward" in caplog.text
    assert "the warm-up takes all 6 steps" in caplog.text
    assert f"the last checkpoint is {tmp_path / 'checkpoint-0.pth'}" in caplog.text
    assert "nothing is left to train" not in caplog.text
    main(arguments)
    assert "all 1 epochs of this run are done: nothing is left to train" in caplog.text


@pytest.mark.parametrize(("name", "given", "unused"), [
    ("tats", {}, []), ("tats", {"reward": "easy", "ppo_epochs": 4, "tats_recipe": "paper"}, []),
    ("tats", {"num_landmarks": 64}, ["num_landmarks"]), ("tats", {"num_landmarks": 64, "tats_recipe": "paper"}, []),
    ("tats", {"tats_attention": "mha", "tats_recipe": "paper"}, []),
    ("tats", {"tats_attention": "mha", "tats_project_values": False}, ["tats_project_values"]),
    ("adamae", {"reward": "easy", "reward_reach": 1.0, "ppo_epochs": 4}, ["ppo_epochs"]),
    ("adamae", {"tats_recipe": "paper"}, ["tats_recipe"]), ("tube", {"trajectory_kernel": "triton"},
                                                            ["trajectory_kernel"]),
])
def test_flags_that_nothing_reads(name, given, unused):
    assert unused_flags(MASKINGS[name], resolve_recipe(SamplerConfig(**given))) == unused


@pytest.mark.parametrize(("name", "given", "words"), [
    ("tats", {}, "--tats_recipe ours"),
    ("tats", {"tats_recipe": "paper", "reward": "lasting", "reward_reach": 1.0, "tats_block": [1, 4, 4],
              "flush_buffer": False, "sampler_lr": 1e-3},
     "--tats_recipe paper, --sampler_lr 0.001, --flush_buffer false, --reward lasting, --reward_reach 1, "
     "--tats_block 1 4 4"),
    ("adamae", {"reward": "easy", "ppo_epochs": 4}, "reinforce, --reward easy"),
])
def test_the_policy_in_a_line_of_the_log(name, given, words):
    assert policy_in_words(MASKINGS[name], resolve_recipe(SamplerConfig(**given))) == words


@pytest.mark.parametrize(("name", "epoch", "said"), [("tats", 7, False), ("tats", 8, True), ("adamae", 2, False),
                                                     ("adamae", 3, True)])
def test_a_policy_that_has_just_begun_is_not_called_uniform(name, epoch, said, shapes, caplog):
    """After m_o = 5 random epochs the policy acts in 5, 6, 7 (from 0); AdaMAE's acts from the first on."""
    arguments = small_flags(shapes, "", "--mask_type", name, "--mae_only_epochs", "5", "--vis_clips", "0")
    run = Pretraining(Settings.from_args(get_parser().parse_args(arguments)), runtime.start("cpu"))
    run.epoch = epoch
    run.after_epoch(RunLog(run.flags), {"train_entropy_share": 0.9999, "train_loss": 1.0, "train_data_share": 0.0,
                                             "seconds": 1.0})
    assert ("as good as uniform" in caplog.text) == said


def test_dead_flags_warn_by_name(shapes, tmp_path, caplog):
    main(flags(shapes, tmp_path, "--epochs", "1", "--warmup_lr", "1e-6", "--color_jitter=0.4", "--local-rank", "0"))
    assert "--warmup_lr has no effect" in caplog.text and "--color_jitter has no effect" in caplog.text
    assert "local" not in caplog.text


@pytest.mark.parametrize("backend", ["pyav", "decord"])
def test_real_clips(backend, given, tmp_path, capsys):
    """An epoch over real videos; the broken ones are named with their cause, in one file, and the run goes on."""
    if backend == "decord":
        pytest.importorskip("decord")
    clips = sorted(path for path in (given / "clips").iterdir() if path.suffix in (".mp4", ".mkv", ".avi", ".mov"))
    rows = tmp_path / "list.csv"
    rows.write_text("".join(f"{path}\n" for path in clips) * 2 + f"{tmp_path / 'gone.mp4'}\n")
    main([*TINY, "--data_path", str(rows), "--output_dir", str(tmp_path), "--mask_type", "tats", "--epochs", "2",
          "--sampling_rate", "4", "--video_backend", backend, "--max_bad_fraction", "0.5", "--num_workers", "1"])
    bad = (tmp_path / "bad_videos.txt").read_text()
    assert f"{tmp_path / 'gone.mp4'}: " in bad
    assert all(": " in line and len(line.split(": ", 1)[1]) > 5 for line in bad.splitlines())
    assert "demo.mp4" not in bad and len(set(bad.splitlines())) == len(bad.splitlines())
    assert len(json.loads((tmp_path / "log.txt").read_text().splitlines()[-1])) > 5
    with pytest.raises(SystemExit) as stopped:
        run_program(lambda: main([*TINY, "--data_path", str(rows), "--output_dir", str(tmp_path / "strict"),
                                  "--video_backend", backend, "--max_bad_fraction", "0"]))
    assert stopped.value.code == 2
    assert "max_bad_fraction" in capsys.readouterr().err


def test_paper_recipe_is_the_printed_form():
    def sampler(*more):
        return Settings.from_args(get_parser().parse_args(["--data_path", "x", *more])).sampler

    paper, ours = sampler("--tats_recipe", "paper"), sampler()
    assert (paper.ppo_ratio, paper.ppo_weighting, paper.adv_norm, paper.sampler_lr, paper.entropy_coef,
            paper.reward) == ("resampled", "uniform", "none", 1.5e-6, 1e-4, "token")
    assert (ours.ppo_ratio, ours.ppo_weighting, ours.adv_norm) == ("recorded", "policy", "clip")
    assert ours.entropy_coef == pytest.approx(6e-5)
    mixed = sampler("--tats_recipe", "paper", "--ppo_ratio", "recorded", "--sampler_lr", "1e-3")
    assert (mixed.ppo_ratio, mixed.ppo_weighting, mixed.sampler_lr) == ("recorded", "uniform", 1e-3)


def test_settings_files_and_both_spellings_of_booleans(tmp_path):
    settings = tmp_path / "a.args"
    settings.write_text("# Table 4\n--epochs 7   # few\n--opt_betas 0.8 0.9\n\n--normlize_target false\n")
    args = get_parser().parse_args([f"@{settings}", "--no_auto_resume", "--use_checkpoint", "--epochs", "9"])
    assert (args.epochs, args.opt_betas, args.normlize_target) == (9, [0.8, 0.9], False)
    assert (args.auto_resume, args.use_checkpoint, args.pin_mem) == (False, True, True)


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint-0.pth"
    checkpointing.save_atomically({"epoch": 0}, path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        checkpointing.save_atomically({"epoch": 1}, path)
    assert checkpointing.load(path) == {"epoch": 0}
    assert [entry.name for entry in Path(tmp_path).iterdir()] == [path.name]


def test_tube_masks_at_a_ratio_that_random_masks_round_otherwise(shapes, tmp_path):
    """.95 of 288 tokens: 274 at random, 8 x 34 = 272 in tubes; the fixed clips are measured under random ones."""
    main(flags(shapes, tmp_path, "--mask_type", "tube", "--mask_ratio", ".95", "--epochs", "1"))
    assert "train_fixed_error" in (tmp_path / "log.txt").read_text()


def test_a_run_that_saves_nothing_says_so_and_one_without_epochs_is_refused(shapes, tmp_path, caplog):
    main(small_flags(shapes, "", "--epochs", "1"))
    assert "there is no --output_dir" in caplog.text
    with pytest.raises(ValueError, match="nothing is left to train"):
        main(small_flags(shapes, tmp_path, "--epochs", "2", "--start_epoch", "2"))
