"""What a loop does with a hook by mistake: refused or said, and what validation and a resume must leave as it is."""

import copy
import logging
import pickle
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from tats.engines.hook import SamplingHook, validation_mask
from tats.engines.hook.options import HookOptions

GRID = (2, 3, 4)
CLIPS = torch.randn(2, 3, 4, 12, 16, generator=torch.Generator().manual_seed(0))
ERRORS = torch.rand(2, 24, generator=torch.Generator().manual_seed(1))


def hook(mask_type="tats", **settings):
    given = {"tokens": "pixels", "width": 16, "mae_only_epochs": 0, "tats_heads": 2, "sampler_lr": .01}
    if mask_type != "tats":
        given = {"tokens": "pixels", "width": 96, "sampler_lr": .01}
    torch.manual_seed(3)
    return SamplingHook(None, mask_type, GRID, .75, **given | settings)


def step(sampling, epoch=0, clips=CLIPS):
    mask = sampling.choose(None, clips, None, epoch)
    sampling.learn(ERRORS)
    return mask


def weights(sampling):
    return copy.deepcopy(sampling.sampler.module.state_dict())


@pytest.mark.parametrize(("settings", "name"), [
    ({"adv_norm": "clp"}, "adv_norm"), ({"ppo_weighting": "polcy"}, "ppo_weighting"),
    ({"tats_recipe": "papr"}, "tats_recipe"), ({"ppo_ratio": "record"}, "ppo_ratio"),
    ({"flush_buffer": "false"}, "flush_buffer"), ({"num_visible": 0}, "num_visible"),
    ({"update_freq": 0}, "update_freq"), ({"update_freq": 1.5}, "update_freq"), ({"amp": "bf61"}, "amp"),
    ({"sampler_lr": "1e-3"}, "sampler_lr"), ({"weight_decay": -5}, "weight_decay"), ({"clip_grad": -1}, "clip_grad"),
    ({"std": (0, 0, 0)}, "std"), ({"mae_only_epochs": 2.5}, "mae_only_epochs"), ({"follow": "x"}, "follow")])
def test_a_setting_that_its_declaration_does_not_allow(settings, name):
    with pytest.raises(ValueError, match=f"--{name} "):
        hook(**settings)


def test_the_page_names_every_keyword():
    page = (Path(__file__).parents[1] / "docs/fork.md").read_text(encoding="utf-8")
    assert [item.name for item in fields(HookOptions) if f"`{item.name}`" not in page] == []


def test_validation_leaves_no_trace(caplog):
    one, two = hook(), hook()
    for sampling in (one, two):
        torch.manual_seed(5)
        for _ in range(3):
            mask = sampling.choose(None, CLIPS, None, 0)
            if sampling is two:
                state = torch.get_rng_state()
                with torch.inference_mode():
                    seen = validation_mask(sampling, None, CLIPS[:1].repeat(3, 1, 1, 1, 1))
                torch.set_rng_state(state)
                assert seen.shape == (3, 24) and (seen.sum(dim=1) == mask.sum(dim=1)[0]).all()
            sampling.learn(ERRORS)
    assert not caplog.records
    assert one.end_epoch() == two.end_epoch()
    torch.testing.assert_close(weights(one), weights(two), rtol=0, atol=0)


def test_what_is_probably_not_meant_is_said_once_an_epoch(caplog):
    sampling = hook()
    for _ in range(3):
        sampling.choose(None, CLIPS, None, 1)
    sampling.learn(ERRORS)
    assert [record.message.count("again before learn") for record in caplog.records] == [1]
    caplog.clear()
    step(sampling, epoch=0)
    assert any("go back" in record.message for record in caplog.records)
    with torch.inference_mode(), pytest.raises(ValueError, match="validation_mask"):
        sampling.choose(None, CLIPS, None, 1)


@pytest.mark.parametrize("epoch", [-1, 1.5, float("nan"), True])
def test_an_epoch_is_a_whole_number(epoch):
    with pytest.raises(ValueError, match="whole number"):
        hook().choose(None, CLIPS, None, epoch)


@pytest.mark.parametrize("mask_type", ["tats", "adamae"])
def test_micro_batches_that_fill_no_step_are_named(mask_type, caplog):
    sampling = hook(mask_type, update_freq=4)
    for _ in range(6):
        step(sampling)
    sampling.end_epoch()
    assert any("6 micro-batches, of which 2 fill no step" in record.message for record in caplog.records)


@pytest.mark.parametrize("mask_type", ["tats", "adamae"])
@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_resume_between_two_micro_batches_goes_on_to_the_bit(mask_type, cut):
    one, other = hook(mask_type, update_freq=2), hook(mask_type, update_freq=2)
    torch.manual_seed(7)
    for _ in range(cut):
        step(one)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    random = torch.get_rng_state()
    for sampling in (one, other):
        torch.set_rng_state(random)
        for _ in range(4 - cut):
            step(sampling)
    torch.testing.assert_close(weights(one), weights(other), rtol=0, atol=0)


def test_a_state_of_another_policy_is_refused_and_other_settings_are_named(caplog):
    state = hook(entropy_coef=.1).state_dict()
    other = hook(entropy_coef=.9, update_every=2)
    other.load_state_dict(state)
    assert "entropy_coef=0.1 (now 0.9)" in caplog.text and "update_every=1 (now 2)" in caplog.text
    assert float(other.training.entropy.value) == pytest.approx(.9)
    torch.manual_seed(3)
    turned = SamplingHook(None, "tats", (2, 4, 3), .75, tokens="pixels", width=16, mae_only_epochs=0, tats_heads=2)
    with pytest.raises(ValueError, match="grid"):
        turned.load_state_dict(state)
    for wrong in ({"state": state}, {"weight": torch.zeros(1)}):
        with pytest.raises(ValueError, match="state_dict"):
            other.load_state_dict(wrong)


@pytest.mark.parametrize(("call", "words"), [
    (lambda own: own.choose(None, CLIPS[:0], None, 0), "without videos"),
    (lambda own: own.choose(CLIPS, None, None, 0), "no tensor"),
    (lambda own: (own.choose(None, CLIPS, None, 0), own.learn(ERRORS, torch.ones(24).bool())), "known of shape")])
def test_arguments_of_another_shape_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call(hook())


def test_given_tokens_are_as_many_as_the_videos():
    sampling = hook(tokens="given")
    sampling.choose(torch.randn(2, 24, 16), CLIPS, None, 0)
    with pytest.raises(ValueError, match="tokens of 1 clips"):
        sampling.choose(torch.randn(1, 24, 16), CLIPS, None, 0)


def test_errors_may_be_an_array_and_a_hook_may_be_pickled():
    one, two = hook(), hook()
    for sampling, errors in ((one, ERRORS), (two, ERRORS.numpy())):
        torch.manual_seed(1)
        sampling.choose(None, CLIPS, None, 0)
        sampling.learn(errors)
    torch.testing.assert_close(weights(one), weights(two), rtol=0, atol=0)
    torch.testing.assert_close(weights(pickle.loads(pickle.dumps(one))), weights(one), rtol=0, atol=0)


@pytest.mark.parametrize(("clips", "words"), [
    (CLIPS * 60 + 128, "instead of 0 and 1"), (CLIPS, "")])
def test_videos_that_are_not_normalised_are_named(clips, words, caplog):
    hook().choose(None, clips, None, 0)
    assert ("instead of 0 and 1" in caplog.text) == bool(words)


def test_a_grid_that_does_not_divide_the_videos_is_named(caplog):
    sampling = hook(tokens=lambda videos: torch.zeros(len(videos), 24, 16))
    sampling.choose(None, CLIPS[..., :15], None, 0)
    assert "does not divide" in caplog.text


def test_errors_that_say_nothing_are_named(caplog):
    sampling = hook()
    sampling.choose(None, CLIPS, None, 0)
    sampling.learn(torch.ones_like(ERRORS))
    sampling.end_epoch()
    assert "no signal" in caplog.text


@pytest.mark.parametrize("of_the_masked", [False, True])
def test_errors_of_visible_tokens_alone_are_refused_at_once(of_the_masked):
    """As of a model that predicts the features of visible tokens; later batches may have none by chance."""
    sampling = hook(mae_only_epochs=5)
    mask = sampling.choose(None, CLIPS, None, 0)
    known = torch.zeros(2, 18, dtype=torch.bool) if of_the_masked else ~mask
    errors = torch.rand(2, 18) if of_the_masked else torch.rand(2, 6)     # K = 6 visible tokens
    with pytest.raises(ValueError, match="known marks no masked token"):
        sampling.learn(errors, known)
    step(sampling)
    sampling.choose(None, CLIPS, None, 0)
    sampling.learn(errors, known)


def test_what_a_strategy_takes_no_notice_of_is_named(caplog):
    caplog.set_level(logging.WARNING)
    hook("adamae", update_every=3)
    assert "takes no notice of update_every" in caplog.text
    caplog.clear()
    hook("tube", reward="easy", mae_only_epochs=3)
    assert [record.message.split("of ")[1] for record in caplog.records] == ["sampler_lr, mae_only_epochs, reward"]


@pytest.mark.parametrize(("change", "said"), [
    ({"grid": (float("nan"), 3, 4)}, "grid must be"), ({"ratio": "0.75"}, "mask_ratio must lie"),
    ({"ratio": None}, "mask_ratio must lie"), ({"model": "vit"}, "the model is a str"),
    ({"device": "gpu"}, "device='gpu' is none")])
def test_arguments_of_another_type_are_named(change, said):
    given = {"model": None, "grid": (2, 3, 4), "ratio": .75} | change
    with pytest.raises(ValueError, match=said):
        SamplingHook(given.pop("model"), "tats", given.pop("grid"), given.pop("ratio"), tokens="pixels", **given)


@pytest.mark.parametrize(("mask", "said"), [
    (torch.ones(2, 24), "hides 24 of 24"), (torch.zeros(2, 24), "hides 0 of 24"), ({"mask": 1}, "is a dict"),
    (["a", "b"], "is a list")])
def test_masks_that_mean_nothing_are_refused(mask, said):
    with pytest.raises(ValueError, match=said):
        hook(mae_only_epochs=1).choose(None, CLIPS, mask, 0)


def test_errors_and_states_that_are_none():
    sampling = hook()
    sampling.choose(None, CLIPS, None, 0)
    with pytest.raises(ValueError, match="errors is a NoneType"):
        sampling.learn(None)
    with pytest.raises(ValueError, match="not what state_dict.* a int"):
        sampling.load_state_dict(5)


def test_an_entropy_that_blocks_cannot_have_is_refused():
    """Of 24 tokens in blocks of 12 the sharpest policy has log 12 / log 24 = .782 of the largest entropy."""
    with pytest.raises(ValueError, match="--target_entropy 0.78 cannot be reached.* 0.782 of log N"):
        hook(tats_block=(1, 3, 4), num_visible=12, target_entropy=.78)
    hook(tats_block=(1, 3, 4), num_visible=12, target_entropy=.79)
