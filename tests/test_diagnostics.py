"""The numbers that a run reports about its masks, by hand."""

import math
from dataclasses import replace

import pytest
import torch
from pretraining_setup import CPU, EpisodeBuffer, learner, loader, ppo_training, tiny_mae, tiny_sampler
from tats.engines.config.pretraining import SamplerConfig, resolve_recipe
from tats.engines.core.meters import Meters
from tats.engines.engine_for_pretraining_ppo import train_one_epoch
from tats.engines.pretrain.diagnostics import Diagnostics, correlation, frame_difference
from tats.engines.pretrain.ppo import Episode, sampling_loss
from tats.engines.pretrain.reconstruction import explained_variance
from tats.masking import MASKINGS, TokenGrid
from tats.models import create_model
from torch.utils._python_dispatch import TorchDispatchMode

GRID = TokenGrid(2, 1, 2)


def masks(*rows):
    """True = masked, from strings: '#' masked, '.' visible."""
    return torch.tensor([[sign == "#" for sign in row] for row in rows])


def test_coverage_and_overlap_by_hand():
    watch = Diagnostics(GRID, CPU)
    for _ in range(100):
        watch.mask(masks("..##", ".##."))
    numbers, coverage = watch.read()
    # Of 400 visible tokens: token 0 has 200, token 1 and token 3 have 100 each; uniform would be 100.
    assert coverage.tolist() == [[[2.0, 1.0]], [[0.0, 1.0]]]
    assert (numbers["visible_tokens"], numbers["visible_share"]) == (2, 0.5)
    assert (numbers["coverage_frame_min"], numbers["coverage_frame_max"]) == (0.5, 1.5)
    assert (numbers["coverage_place_min"], numbers["coverage_place_max"]) == (1.0, 1.0)
    assert numbers["mask_overlap"] == 2.0   # both visible tokens again; chance is 2 * 2/4 = 1 of them
    watch.reset()
    watch.mask(masks("..##", ".##."))
    watch.mask(masks(".##.", "#..#"))       # one visible token again, then none: 1 of 4, chance 2 of 4
    assert watch.read()[0]["mask_overlap"] == 0.5


def test_too_few_masks_say_nothing_about_coverage():
    watch = Diagnostics(GRID, CPU)
    assert watch.read()[0] == {}
    watch.mask(masks("..##"))
    assert set(watch.read()[0]) == {"visible_tokens", "visible_share"}


def test_frame_difference_of_a_step():
    """Four frames of two tokens; the right one jumps by 0.6 between frames 1 and 2, which is token slice 1."""
    pixels = torch.zeros(1, 3, 4, 2, 4)
    pixels[:, :, 2:, :, 2:] = 0.6
    torch.testing.assert_close(frame_difference(pixels, GRID), torch.tensor([[0.0, 0.0, 0.0, 0.3]]))


def test_correlation():
    a = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 1.0, 1.0]])
    b = torch.tensor([[2.0, 4.0, 6.0], [3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    torch.testing.assert_close(correlation(a, b), torch.tensor([1.0, -1.0, torch.nan]), equal_nan=True)


def test_a_uniform_policy_and_a_still_clip_have_no_correlation_with_motion():
    """Left out, not counted as 0: of three clips here one has a number, which is 1."""
    grid = TokenGrid(2, 1, 2)
    pixels = torch.zeros(3, 3, 4, 4, 8)
    pixels[:2, :, 3, :, 4:] = 1.0
    watch = Diagnostics(grid, torch.device("cpu"), every=1)
    moving = frame_difference(pixels[:1], grid)
    watch.policy(torch.zeros(3, 4).log_softmax(dim=1), pixels)
    assert "motion_correlation" not in watch.read()[0]
    watch.mask(torch.tensor([[True, True, True, False]] * 3))
    assert "motion_correlation" not in watch.read()[0]
    log_pi = torch.cat([moving + 1.0, torch.ones(1, 4), moving + 1.0])
    watch.policy((log_pi / log_pi.sum(dim=1, keepdim=True)).log(), pixels)   # clips: read, uniform, still
    assert watch.read()[0]["motion_correlation"] == pytest.approx(1.0)


def test_motion_correlation_is_read_every_so_many_calls():
    watch = Diagnostics(GRID, CPU, every=2)
    pixels = torch.zeros(1, 3, 4, 2, 4)
    pixels[:, :, 2:, :, 2:] = 0.6
    looks, looks_away = torch.tensor([[0.1, 0.1, 0.1, 0.7]]).log(), torch.tensor([[0.3, 0.3, 0.3, 0.1]]).log()
    watch.policy(looks, pixels)
    watch.policy(looks_away, pixels)
    assert watch.read()[0] == {}            # no masks yet
    watch.mask(masks("..##"))
    assert watch.read()[0]["motion_correlation"] == pytest.approx(1.0)
    watch.policy(looks_away, pixels)
    assert watch.read()[0]["motion_correlation"] == pytest.approx(0.0, abs=1e-6)


def test_clips_in_which_nothing_moves_are_no_part_of_the_motion_correlation():
    watch = Diagnostics(GRID, CPU, every=1)
    pixels = torch.zeros(2, 3, 4, 2, 4)
    pixels[0, :, 2:, :, 2:] = 0.6   # the second clip is still
    watch.mask(masks("..##"))
    watch.policy(torch.tensor([[0.1, 0.1, 0.1, 0.7]] * 2).log(), pixels)
    assert watch.read()[0]["motion_correlation"] == pytest.approx(1.0)
    watch.reset()
    watch.mask(masks("..##"))
    watch.policy(torch.full((2, 4), 0.25).log(), pixels)   # a uniform policy ranks nothing
    assert "motion_correlation" not in watch.read()[0]


def test_targets_that_are_all_the_same_explain_nothing():
    """Black and grey clips: a logged share of -1e12 would be the mean of its epoch."""
    target = torch.rand(2, 5, 6)
    assert float(explained_variance(target.mean(dim=(1, 2), keepdim=True).expand_as(target), target)) == pytest.approx(
        0, abs=1e-6)
    for value in (0.0, 0.3):
        assert explained_variance(target, torch.full((2, 5, 6), value)).isnan()


def test_value_explained():
    watch = Diagnostics(GRID, CPU)
    watch.mask(masks("..##"))
    rewards = torch.tensor([1.0, 2.0, 3.0])
    watch.value(rewards, rewards)
    assert watch.read()[0]["value_explained_variance"] == pytest.approx(1.0)
    watch.reset()
    watch.mask(masks("..##"))
    watch.value(torch.full((3,), 2.0), rewards)
    assert watch.read()[0]["value_explained_variance"] == pytest.approx(0.0)
    same = Diagnostics(GRID, CPU)
    same.mask(masks("..##"))
    same.value(torch.zeros(3), torch.tensor([0.97, 0.97001, 0.96999]))   # an autoencoder on its plateau
    assert "value_explained_variance" not in same.read()[0]
    watch.value(torch.full((3,), 4.0), rewards)   # residuals 2 + (9 + 4 + 1), spread 4: 1 - 16/4
    assert watch.read()[0]["value_explained_variance"] == pytest.approx(-3.0)


def test_terms_of_the_sampling_loss():
    """pi = (1/2, 1/4, 1/4), pi_old uniform, tokens 0 and 1 masked: ratios 1.5 and 0.75."""
    log_pi = torch.tensor([[0.5, 0.25, 0.25]]).log()
    third = torch.full((1, 2), 1 / 3)
    episode = Episode(torch.zeros(1, 3, 1), torch.tensor([[0, 1]]), third.log(), torch.tensor([[1.0, 3.0]]),
                      torch.tensor([0.5]), torch.ones(1, 2))
    config = resolve_recipe(SamplerConfig(adv_norm="none", ppo_weighting="uniform"))
    _, terms = sampling_loss(log_pi, torch.tensor([0.5]), episode.masked, episode, config, 6e-5)
    expected = {"ratio": 1.125, "ratio_min": 0.75, "ratio_max": 1.5, "clip_fraction": 1.0,
                "approx_kl": (0.5 - math.log(1.5) - 0.25 - math.log(0.75)) / 2, "advantage": 1.5, "reward": 2.0,
                "reward_std": math.sqrt(2), "effective_tokens": math.exp(1.5 * math.log(2)),
                "entropy_share": 1.5 * math.log(2) / math.log(3)}
    for name, value in expected.items():
        assert float(terms[name]) == pytest.approx(value, rel=1e-5), name


def test_the_gradient_norm_is_known_without_clipping():
    net = torch.nn.Linear(2, 1, bias=False)
    one = learner(net)
    before = net.weight.detach().clone()
    assert float(one.optimize(net(torch.tensor([[3.0, 4.0]])).sum())) == pytest.approx(5.0)
    assert not torch.equal(net.weight, before)


def test_an_epoch_reports_without_changing_what_is_learned():
    weights = []
    for watched in (True, False):
        mae, tats = learner(tiny_mae()), learner(tiny_sampler())
        training = ppo_training(mae.module)
        watch = Diagnostics(TokenGrid(4, 3, 3), CPU) if watched else None
        object.__setattr__(training.setup, "diagnostics", watch)
        train_one_epoch(0, loader(3, 4), mae, tats, EpisodeBuffer(), training, Meters())
        weights.append(tats.module.state_dict())
        if watched:
            numbers, coverage = watch.read()
            assert coverage.shape == (4, 3, 3) and numbers["visible_tokens"] == 9
            assert -1 <= numbers["motion_correlation"] <= 1 and "value_explained_variance" in numbers
    for name in weights[0]:
        assert torch.equal(weights[0][name], weights[1][name]), name


def test_the_state_leaves_the_device(monkeypatch):
    """It goes into other processes, which have devices of their own."""
    watch, moved = Diagnostics(GRID, CPU), []
    watch.mask(masks("..##", ".##."))
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: moved.append(tensor) or tensor)
    tensors = [value for value in watch.state().values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == len(moved) == 5


class CountedValues(TorchDispatchMode):
    """`count` after the context: values that all operations in it wrote."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        results = func(*args, **(kwargs or {}))
        for result in results if isinstance(results, tuple | list) else (results,):
            self.count += result.numel() if isinstance(result, torch.Tensor) else 0
        return results


def test_watching_adds_two_thousandths_of_what_the_steps_write():
    """What diagnostics add to an epoch, counted in values, which no other load of the machine changes."""
    grid, counts = TokenGrid(8, 6, 6), {}
    batches = loader(10, 4, grid=grid)
    for watched in (False, True):
        mae = create_model("pretrain_tats_tiny")
        tats = MASKINGS["tats"].sampler(grid, 96, mask_ratio=0.75)
        watch = Diagnostics(grid, CPU) if watched else None
        training = ppo_training(mae)
        training.setup = replace(training.setup, diagnostics=watch)
        with CountedValues() as counted:
            train_one_epoch(0, batches, learner(mae), learner(tats), EpisodeBuffer(), training, Meters())
            if watched:
                assert watch.read()[0]["visible_tokens"] == 72
        counts[watched] = counted.count
    assert counts[False] < counts[True] < 1.002 * counts[False]
