"""Ending a run at any step and going on: nothing may differ, bit by bit, from the run that was left alone."""

import json
import logging
import os
import signal

import pytest
import torch
from tats.engines.core import checkpointing, runtime
from tats.engines.run_class_finetuning import main as finetune
from tats.engines.run_mae_pretraining import main as pretrain
from tats.engines.runs import resumable
from tats.engines.runs.pretraining_run import Pretraining
from tiny_runs import assert_equal_states, final_state, finetuning_flags, log_lines
from tiny_runs import small_pretraining_flags as flags

EVERY_STEP = ("--save_every_steps", "1", "--keep_last", "0")


ROWS = [("tats", "--update_every", "4"), ("adamae", "--batch_size", "8", "--num_sample", "2"), ("tube",),
        ("tats", "--update_freq", "2", "--batch_size", "2", "--target_entropy", "0.9", "--reward", "progress")]


@pytest.mark.parametrize("row", ROWS, ids=" ".join)
def test_every_step_is_a_place_to_go_on_from(row, shapes, tmp_path):
    """Six steps an epoch, a checkpoint after each; from three of them the end, log.txt included, is the same."""
    arguments = ("--mask_type", *row, "--epochs", "3", "--save_ckpt_freq", "1")
    whole = tmp_path / "whole"
    pretrain(flags(shapes, whole, *arguments, *EVERY_STEP))
    checkpoints = [path for _, path in reversed(checkpointing.numbered_checkpoints(whole))]
    assert len(checkpoints) == 18 + 3
    for place in (2, 8, 13):
        out = tmp_path / str(place)
        out.mkdir()
        (out / checkpoints[place].name).write_bytes(checkpoints[place].read_bytes())
        epoch = torch.load(checkpoints[place], weights_only=True)["epoch"]
        lines = (whole / "log.txt").read_text().splitlines(keepends=True)
        (out / "log.txt").write_text("".join(lines[:epoch + 1]) + '{"torn')
        pretrain(flags(shapes, out, *arguments))
        assert_equal_states(final_state(out), final_state(whole))
        assert log_lines(out) == log_lines(whole)


def test_fine_tuning_goes_on_within_an_epoch(shapes, tmp_path):
    more = ("--model_ema", "--model_ema_decay", "0.5", "--save_ckpt_freq", "1")
    result = finetune(finetuning_flags(shapes, tmp_path / "whole", *more, *EVERY_STEP))
    out = tmp_path / "again"
    out.mkdir()
    name = "epoch-0-step-2.pth"
    (out / name).write_bytes((tmp_path / "whole" / name).read_bytes())
    again = finetune(finetuning_flags(shapes, out, *more))
    assert {**again, "checkpoint_sha256": 0} == {**result, "checkpoint_sha256": 0}
    assert_equal_states(final_state(out), final_state(tmp_path / "whole"))
    assert log_lines(out) == log_lines(tmp_path / "whole")


@pytest.mark.faults
@pytest.mark.parametrize(("program", "number"), [("pre-training", signal.SIGUSR1), ("fine-tuning", signal.SIGTERM)])
def test_a_signal_saves_ends_and_the_same_command_goes_on(program, number, shapes, tmp_path, monkeypatch, caplog,
                                                              fault):
    caplog.set_level(logging.INFO)
    if program == "pre-training":
        main, arguments = pretrain, lambda out: flags(shapes, out, "--mask_type", "tats", "--epochs", "2")
    else:
        main, arguments = finetune, lambda out: finetuning_flags(shapes, out)
    main(arguments(tmp_path / "whole"))
    real, steps = resumable.Resumable.after_step, []

    def signalled(run):
        steps.append(run.main.steps)
        if len(steps) == 2:
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)   # torchrun hands on what its processes may have got themselves
        real(run)

    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(resumable.Resumable, "after_step", signalled)
        with pytest.raises(SystemExit) as stopped:
            main(arguments(tmp_path / "out"))
    assert stopped.value.code == 0
    assert steps == [1, 2] and signal.getsignal(number) is before
    assert [path.name for _, path in checkpointing.numbered_checkpoints(tmp_path / "out")] == ["epoch-0-step-2.pth"]
    assert (tmp_path / "out" / "stopped").read_text() == f"{number.name} in epoch 0, after step 2\n"
    main(arguments(tmp_path / "out"))
    assert "within epoch 0" in caplog.text and not (tmp_path / "out" / "stopped").exists()
    assert_equal_states(final_state(tmp_path / "out"), final_state(tmp_path / "whole"))
    fault(f"{number.name} within an epoch of {program}", "saved at the next step, exit code 0; went on bit-exactly",
          "nothing")


@pytest.mark.faults
def test_damaged_checkpoints_fall_back_to_the_step_before(shapes, tmp_path, caplog, fault):
    arguments = ("--mask_type", "tats", "--epochs", "2")
    pretrain(flags(shapes, tmp_path, *arguments, *EVERY_STEP))
    whole = final_state(tmp_path)
    checkpoints = checkpointing.numbered_checkpoints(tmp_path)
    for cut, (_, path) in enumerate(checkpoints[:3]):
        path.write_bytes(path.read_bytes()[:[0, 1000, -100][cut]])
    caplog.set_level(logging.INFO)
    pretrain(flags(shapes, tmp_path, *arguments))
    assert caplog.text.count("falling back") == 3 and f"resumed from {checkpoints[3][1]}" in caplog.text
    assert_equal_states(final_state(tmp_path), whole)
    fault("the three newest checkpoints cut short", "a warning each; went on from the fourth", "3 steps, made again")


def test_another_batch_goes_on_at_the_same_share_of_the_run(shapes, tmp_path, caplog):
    """From the middle of an epoch of six steps to one of twelve: the same rows are left, the schedule is as far."""
    pretrain(flags(shapes, tmp_path, "--epochs", "1", "--save_every_steps", "3"))
    (tmp_path / "checkpoint-0.pth").unlink()
    (tmp_path / "epoch-0-step-6.pth").unlink()
    pretrain(flags(shapes, tmp_path, "--epochs", "1", "--change", "batch_size", "2"))
    assert "6 steps an epoch, this run 12" in caplog.text
    assert final_state(tmp_path)["step"] == 12


def test_the_policy_waits_until_the_model_explains_enough_over_a_resume_too(shapes, tmp_path, monkeypatch):
    judge = Pretraining.judge_error_map
    monkeypatch.setattr(Pretraining, "judge_error_map",
                        lambda run, means: judge(run, means | {"explained_variance": .1 * run.epoch}))
    arguments = ("--mask_type", "tats", "--mae_only_epochs", "1", "--mae_only_explained", ".15", "--save_ckpt_freq",
                 "1")
    for epochs in ("2", "4"):
        pretrain(flags(shapes, tmp_path, *arguments, "--epochs", epochs))
    assert ["train_ratio" in line for line in log_lines(tmp_path)] == [False, False, False, True]


def test_which_checkpoints_are_kept(tmp_path):
    def names(keep_last, keep_every):
        for name in ("checkpoint-0", "epoch-1-step-8", "checkpoint-1", "epoch-2-step-12", "epoch-2-step-14",
                     "checkpoint-2", "epoch-10-step-99"):
            (tmp_path / f"{name}.pth").touch()
        checkpointing.thin_out(tmp_path, keep_last, keep_every)
        return {path.stem for path in tmp_path.glob("*.pth")}

    (tmp_path / "checkpoint-best.pth").touch()
    best = {"checkpoint-best"}
    assert len(names(0, 0)) == 8
    assert names(1, 0) == best | {"epoch-10-step-99"}
    assert names(3, 0) == best | {"epoch-10-step-99", "checkpoint-2", "epoch-2-step-14"}
    assert names(1, 1) == best | {"epoch-10-step-99", "checkpoint-2", "checkpoint-1", "checkpoint-0"}
    assert names(1, 2) == best | {"epoch-10-step-99", "checkpoint-1"}


def test_policy_moved_is_there_in_the_first_epoch_after_a_resume(shapes, tmp_path):
    arguments = ("--mask_type", "tats", "--save_ckpt_freq", "1")
    pretrain(flags(shapes, tmp_path, *arguments, "--epochs", "2"))
    pretrain(flags(shapes, tmp_path, *arguments, "--epochs", "3"))
    assert ["train_policy_moved" in line for line in log_lines(tmp_path)] == [False, True, True]


def test_resuming_from_a_foreign_pickle_names_flags_that_exist(tmp_path):
    torch.save({"model": {}, "args": signal.SIGTERM}, tmp_path / "theirs.pth")
    with pytest.raises(ValueError, match="--init_from .* or --finetune, with --trust_checkpoint"):
        checkpointing.load(tmp_path / "theirs.pth")


def test_going_on_where_fewer_devices_are_visible(monkeypatch):
    given = []
    state = runtime.rng_state() | {"cuda": [torch.zeros(16, dtype=torch.uint8), torch.ones(16, dtype=torch.uint8)]}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", given.extend)
    runtime.set_rng_state(state)
    assert len(given) == 1 and torch.equal(given[0], state["cuda"][0])


def test_the_seconds_of_an_epoch_are_those_of_all_its_parts(shapes, tmp_path):
    pretrain(flags(shapes, tmp_path, "--epochs", "1", "--save_every_steps", "3"))
    (tmp_path / "checkpoint-0.pth").unlink()
    (tmp_path / "epoch-0-step-6.pth").unlink()
    half = tmp_path / "epoch-0-step-3.pth"
    state = torch.load(half, weights_only=True)
    assert 0 < state["progress"][0]["seconds"] < 1000
    state["progress"][0]["seconds"] = 1000.
    torch.save(state, half)
    pretrain(flags(shapes, tmp_path, "--epochs", "2"))
    first, second = (json.loads(line)["seconds"] for line in (tmp_path / "log.txt").read_text().splitlines())
    assert 1000 < first < 2000 and second < 1000
