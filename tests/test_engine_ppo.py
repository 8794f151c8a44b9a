"""Algorithm 1, phase by phase."""

import pytest
import torch
from pretraining_setup import (
    CPU,
    EpisodeBuffer,
    changed,
    learner,
    loader,
    ppo_training,
    snapshot,
    tiny_mae,
    tiny_sampler,
)
from tats.engines import engine_for_pretraining_ppo as engine
from tats.engines.config.pretraining import SamplerConfig
from tats.engines.core.meters import Meters
from tats.engines.engine_for_pretraining_ppo import phase_one, phase_two, train_one_epoch
from tats.engines.runs.pretraining_build import sampler_schedule
from tats.engines.training.batches import ClipBatch
from tats.masking import gumbel_top_k, masked_indices


def both(update_freq=1, **options):
    mae, tats = learner(tiny_mae()), learner(tiny_sampler())
    return mae, tats, ppo_training(mae.module, update_freq, **options)


@pytest.mark.parametrize("options", [{}, {"reuse_forward": False}, {"ppo_ratio": "resampled"}, {"ppo_epochs": 2}],
                         ids=str)
def test_phase_one_moves_phi_only_and_phase_two_theta_only(options):
    mae, tats, training = both(**options)
    batch = training.setup.normalizer.prepare(loader(1, 4)[0], training.setup.device)
    buffer = EpisodeBuffer()
    phi, theta = snapshot(mae.module), snapshot(tats.module)
    buffer.update(phase_one(mae, tats, batch, False, training, Meters()))
    assert changed(mae.module, phi) and not changed(tats.module, theta)
    phi = snapshot(mae.module)
    phase_two(tats, buffer, training, Meters())
    assert changed(tats.module, theta) and not changed(mae.module, phi)
    assert len(buffer) == 0


def test_until_m_o_the_policy_does_not_move():
    mae, tats, training = both(mae_only_epochs=2)
    theta = snapshot(tats.module)
    for epoch in (0, 1):
        train_one_epoch(epoch, loader(3, 4), mae, tats, EpisodeBuffer(), training, Meters())
    assert not changed(tats.module, theta) and mae.steps == 6
    train_one_epoch(2, loader(3, 4), mae, tats, EpisodeBuffer(), training, Meters())
    assert changed(tats.module, theta) and tats.steps == 3


TABLE_5 = [(0, 1), (1, 1), (5, 1), (10, 1), (25, 1), (100, 1), (50, 5), (50, 10), (50, 25)]


@pytest.mark.parametrize(("m_o", "k"), TABLE_5)
def test_buffer_length_after_every_step(m_o, k):
    """After step s of an adaptive epoch M_b holds s mod k episodes, and nothing before epoch m_o."""
    seen, buffer = [], EpisodeBuffer()

    class Watched(list):
        """Batches; when one is asked for, the step before has ended."""

        def __iter__(self):
            for batch in super().__iter__():
                seen.append(len(buffer))
                yield batch

    mae, tats, training = both(mae_only_epochs=m_o, update_every=k)
    batches = Watched(loader(27, 2))
    if m_o:
        train_one_epoch(m_o - 1, batches, mae, tats, buffer, training, Meters())
        assert seen == [0] * 27 and tats.steps == 0
        seen.clear()
    train_one_epoch(m_o, batches, mae, tats, buffer, training, Meters())
    assert seen == [step % k for step in range(27)]
    assert len(buffer) == 0  # flushed at the epoch's end, by one more phase 2 where episodes were left
    assert tats.steps == 27  # one step for each episode


def test_recorded_ratio_is_one_before_the_first_update():
    """Phase 2's own forward of an unmoved theta gives phase 1's probabilities; the clip has nothing to do."""
    mae, tats, training = both(reuse_forward=False)
    log = Meters()
    train_one_epoch(0, loader(1, 4), mae, tats, EpisodeBuffer(), training, log)
    means = log.means()
    assert abs(means["ratio"] - 1) < 1e-6 and abs(means["ratio_max"] - 1) < 1e-6
    assert means["clip_fraction"] == 0 and abs(means["approx_kl"]) < 1e-6


def test_recorded_ratio_is_one_after_a_checkpoint_round_trip(tmp_path):
    """An episode recorded before saving, read by the policy that comes back from the file."""
    mae, tats, training = both(reuse_forward=False)
    train_one_epoch(0, loader(3, 4), mae, tats, EpisodeBuffer(), training, Meters())
    batch = training.setup.normalizer.prepare(loader(1, 4, seed=7)[0], training.setup.device)
    buffer, log = EpisodeBuffer(), Meters()
    buffer.update(phase_one(mae, tats, batch, False, training, Meters()))
    torch.save({"sampler": tats.module.state_dict(), "optimizer": tats.state_dict()}, tmp_path / "theta.pth")
    state = torch.load(tmp_path / "theta.pth", weights_only=True)
    again = learner(tiny_sampler(seed=99))
    again.module.load_state_dict(state["sampler"])
    again.load_state_dict(state["optimizer"])
    phase_two(again, buffer, training, log)
    means = log.means()
    assert abs(means["ratio"] - 1) < 1e-6 and abs(means["ratio_max"] - 1) < 1e-6


def test_ratio_leaves_one_with_several_passes_and_with_fresh_draws():
    for options in ({"ppo_epochs": 3, "update_every": 2}, {"ppo_ratio": "resampled"}):
        mae, tats, training = both(**options)
        log = Meters()
        train_one_epoch(0, loader(2, 4), mae, tats, EpisodeBuffer(), training, log)
        assert abs(log.means()["ratio_max"] - 1) > 1e-3


@pytest.mark.parametrize(("target_kl", "passes"), [(1e-9, 2), (1e9, 4), (None, 4)])
def test_passes_end_when_the_policy_has_moved_far_enough(target_kl, passes):
    mae, tats, training = both(ppo_epochs=4, target_kl=target_kl)   # in the first pass the KL is exactly 0
    log = Meters()
    train_one_epoch(0, loader(1, 4), mae, tats, EpisodeBuffer(), training, log)
    assert tats.steps == log.means()["ppo_passes"] == passes


def test_kept_forward_equals_a_second_one():
    results = []
    for reuse in (True, False):
        mae, tats, training = both(reuse_forward=reuse)
        assert training.reuses is reuse
        for epoch in range(2):
            train_one_epoch(epoch, loader(3, 4), mae, tats, EpisodeBuffer(), training, Meters())
        results.append((mae.module.state_dict(), tats.module.state_dict()))
    for first, second in zip(*results, strict=True):
        for name in first:
            torch.testing.assert_close(first[name], second[name], msg=lambda m, n=name: f"{n}: {m}")


def test_accumulation_2x4_equals_1x8():
    runs = []
    for batch_size, update_freq in ((8, 1), (4, 2)):
        mae, tats, training = both(update_freq)
        batches = loader(6 * 8 // batch_size, batch_size)
        losses = []
        for start in range(0, len(batches), update_freq):
            log = Meters()
            train_one_epoch(0, batches[start:start + update_freq], mae, tats, EpisodeBuffer(), training, log)
            losses.append(log.means()["loss"])
        assert mae.steps == tats.steps == 6
        tokens = torch.randn(4, 36, 24, generator=torch.Generator().manual_seed(5))
        runs.append((losses, snapshot(mae.module), tats.module(tokens, log=True)[0].detach()))
    (losses, phi, log_pi), (losses_2, phi_2, log_pi_2) = runs
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(losses_2), atol=1e-5, rtol=0)
    for name in phi:
        torch.testing.assert_close(phi[name], phi_2[name], atol=2e-4, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")
    # theta by what it says: key biases fall out of every softmax, and AdamW turns their rounding noise into steps.
    torch.testing.assert_close(log_pi, log_pi_2, atol=1e-3, rtol=1e-3)


def test_sampling_gradient_does_not_reach_the_mae():
    mae, tats, training = both()
    batch = training.setup.normalizer.prepare(loader(1, 4)[0], training.setup.device)
    buffer = EpisodeBuffer()
    buffer.update(phase_one(mae, tats, batch, False, training, Meters()))
    phase_two(tats, buffer, training, Meters())
    assert all(parameter.grad is None for parameter in mae.module.parameters())


@pytest.mark.parametrize("flags", [
    {"ppo_weighting": "uniform", "adv_norm": "none"}, {"reward": "clip", "adv_norm": "batch"}, {"adv_norm": "batch"},
    {"ppo_weighting": "uniform"},
], ids=str)
def test_every_reading_trains(flags):
    mae, tats, training = both(entropy=1e-4, **flags)
    theta = snapshot(tats.module)
    log = Meters()
    train_one_epoch(0, loader(3, 4), mae, tats, EpisodeBuffer(), training, log)
    assert changed(tats.module, theta)
    assert all(value == value for value in log.means().values())


def test_planted_hard_token_is_found():
    """One place whose pixels no one can predict, all else constant: the policy must come to look there."""
    torch.manual_seed(0)
    videos, masks, keys = (torch.cat(part) for part in zip(*loader(40, 8), strict=True))
    noise = videos[:, :, 2:4, 4:8, 4:8].clone()  # token (1, 1, 1) of the grid (4, 3, 3): index 13
    videos[:] = torch.linspace(0, 255, 12).to(torch.uint8)
    videos[:, :, 2:4, 4:8, 4:8] = noise
    batches = list(zip(videos.split(8), masks.split(8), keys.split(8), strict=True))
    mae, tats = learner(tiny_mae(), lr=3e-3), learner(tiny_sampler(head_init="zeros"), lr=3e-3)
    training = ppo_training(mae.module, mae_only_epochs=1)
    for epoch in range(3):
        train_one_epoch(epoch, batches, mae, tats, EpisodeBuffer(), training, Meters())
    from tats.engines.pretrain.interface import tokenize

    normalized = training.setup.normalizer.prepare(batches[0], training.setup.device).videos
    probabilities, _ = tats.module(tokenize(mae.module, normalized))
    assert probabilities.mean(0).argmax() == 13 and probabilities[:, 13].mean() > 2 / 36


def test_random_share_by_hand():
    """Of four clips those that get the loader's mask are the same in any batch; their chance of being hidden is rho."""
    videos, mask, keys = loader(1, 64)[0]
    batch = ClipBatch(videos, videos, mask, keys)
    policy = torch.zeros_like(mask)
    none, which = engine.with_random_masks(policy, batch, 0.)
    assert torch.equal(none, policy) and not which.any()
    every, which = engine.with_random_masks(policy, batch, 1.)
    assert torch.equal(every, mask) and which.all()
    half, which = engine.with_random_masks(policy, batch, .5)
    assert 16 < which.sum() < 48
    assert torch.equal(half[which[:, 0]], mask[which[:, 0]]) and not half[~which[:, 0]].any()
    alone, _ = engine.with_random_masks(policy[5:6], ClipBatch(videos[5:6], videos[5:6], mask[5:6], keys[5:6]), .5)
    assert torch.equal(alone, half[5:6])


def test_a_randomly_masked_clip_is_weighted_by_the_policy_alone():
    mae, tats, training = both(random_share=1.)
    batch = training.setup.normalizer.prepare(loader(1, 4)[0], CPU)
    episode = phase_one(mae, tats, batch, False, training, Meters(), random_share=1.)
    assert torch.equal(masked_indices(batch.mask, 27), episode.masked)   # .75 of 36
    torch.testing.assert_close(episode.masked_probability, torch.full((4, 27), .75))


@pytest.mark.parametrize("ratio", ["recorded", "resampled"])
def test_context_is_drawn_from_anywhere_and_the_episode_knows(ratio, monkeypatch):
    """With nearly all of the draw from anywhere the mask is that of a uniform policy, and so is each token's chance of
    being hidden, exp(-exp(-log N - kappa)); log pi_old stays the policy's own."""
    mae, tats, training = both(context_share=1 - 1e-7, ppo_ratio=ratio)
    batch = training.setup.normalizer.prepare(loader(1, 4)[0], CPU)
    episode = phase_one(mae, tats, batch, False, training, Meters())
    uniform = torch.full((4, 36), 1 / 36).log()
    draw = gumbel_top_k(uniform, 9, batch.keys)
    assert torch.equal(masked_indices(draw.mask, 27), episode.masked)
    chance = torch.exp(-torch.exp(uniform[:, :1] - draw.threshold[:, None])).expand(4, 27)
    torch.testing.assert_close(episode.masked_probability, chance)
    log_pi, _ = tats(episode.tokens, log=True)
    assert log_pi.std() > .1
    torch.testing.assert_close(episode.old_log_prob, log_pi.detach().gather(1, episode.masked))
    read, real = [], engine.sampling_loss
    monkeypatch.setattr(engine, "sampling_loss", lambda *arguments: read.append(arguments[2]) or real(*arguments))
    buffer = EpisodeBuffer()
    buffer.update(episode)
    phase_two(tats, buffer, training, Meters())
    fresh = gumbel_top_k(uniform, 9, batch.keys, stream=1)   # I_m', as printed
    assert torch.equal(read[0], masked_indices(fresh.mask, 27) if ratio == "resampled" else episode.masked)


@pytest.mark.parametrize(("options", "shares"), [
    ({}, [0, 0, 0, 0, 0]), ({"random_share": .5}, [.5] * 5),
    ({"random_share_final": 1., "mae_only_epochs": 2}, [0, 0, 0, .5, 1]),
    ({"random_share": 1., "random_share_final": 0., "mae_only_epochs": 0}, [1, .75, .5, .25, 0])], ids=str)
def test_random_share_over_the_epochs(options, shares):
    training = ppo_training(tiny_mae(), epochs=5, **{"mae_only_epochs": 10} | options)
    assert [training.random_share(epoch) for epoch in range(5)] == shares


def test_the_policys_rate_falls_over_its_own_updates():
    """Epochs 2 and 3 of 4, three steps each, two passes: 12 updates; halfway a cosine is at the mean of its ends."""
    config = SamplerConfig(sampler_lr=3e-3, sampler_lr_final=1e-3, mae_only_epochs=2, ppo_epochs=2, update_every=2)
    rate = sampler_schedule(config, epochs=4, steps_per_epoch=3)
    assert (rate(0), rate(6)) == (3e-3, pytest.approx(2e-3))
    assert 1e-3 < rate(11) < 1.1e-3 and rate(99) == rate(11)
    constant = sampler_schedule(SamplerConfig(sampler_lr=3e-3, mae_only_epochs=9), 4, 3)
    assert constant(0) == constant(50) == 3e-3


def test_the_buffer_goes_into_a_checkpoint_and_back():
    mae, tats, training = both(reuse_forward=False)
    batch = training.setup.normalizer.prepare(loader(1, 4)[0], CPU)
    buffer, again = EpisodeBuffer(), EpisodeBuffer()
    for value in (None, torch.zeros(4)):   # a strategy without a value network has None there
        buffer.update(phase_one(mae, tats, batch, False, training, Meters())._replace(old_value=value))
    again.load(buffer.state(), CPU)
    for before, after in zip(buffer, again, strict=True):
        assert (before.old_value is None) == (after.old_value is None) and after.forward is None
        for name in ("tokens", "masked", "old_log_prob", "reward", "masked_probability", "keys"):
            assert torch.equal(getattr(before, name), getattr(after, name)), name


@pytest.mark.parametrize(("flags", "reuses"), [
    ({}, True), ({"ppo_ratio": "resampled"}, False), ({"ppo_epochs": 2}, False), ({"update_every": 2}, False),
    ({"reuse_forward": False}, False)])
def test_phase_ones_forward_serves_only_where_theta_has_not_moved(flags, reuses):
    assert ppo_training(tiny_mae(), **flags).reuses == reuses
    assert not ppo_training(tiny_mae(), update_freq=2, **flags).reuses


def test_the_last_epoch_alone_is_the_policys():
    assert ppo_training(tiny_mae(), epochs=3, mae_only_epochs=2, random_share=.5,
                        random_share_final=1.).random_share(2) == .5


def test_the_explained_variance_is_read_in_every_tenth_step(monkeypatch):
    read = []
    monkeypatch.setattr("tats.engines.engine_for_pretraining.explained_variance",
                        lambda *_: read.append(1) or torch.tensor(0.))
    mae, tats, training = both(mae_only_epochs=9)
    train_one_epoch(0, loader(21, 2), mae, tats, EpisodeBuffer(), training, Meters())
    assert len(read) == 3   # steps 0, 10, 20
