"""Rewards for what can be learned, by hand, and what a run keeps of them."""

import math

import pytest
import torch
from pretraining_setup import CPU, EpisodeBuffer, clips, learner, loader, ppo_training, setup, tiny_mae, tiny_sampler
from tats.engines.config.pretraining import SamplerConfig, resolve_recipe
from tats.engines.core.meters import Meters
from tats.engines.engine_for_pretraining import train_mae
from tats.engines.engine_for_pretraining_ppo import train_one_epoch
from tats.engines.hook.sampling import SamplingHook
from tats.engines.pretrain.interface import patch_size_of
from tats.engines.pretrain.learnable import lasting, learnable
from tats.engines.pretrain.outcome import Again, Outcome
from tats.engines.pretrain.progress import Progress
from tats.engines.pretrain.reconstruction import Reconstruction
from tats.engines.pretrain.rewards import reward_of
from tats.engines.pretrain.telling import telling
from tats.engines.training.batches import ClipBatch
from tats.masking.grid import TokenGrid


class Told:
    """In the place of `Again`: the error of a token is `known` where it is asked about, and what was asked is kept."""

    def __init__(self, known):
        self.known, self.asked = known, []

    def errors(self, hidden):
        self.asked.append(hidden)
        return self.known.gather(1, hidden)


def outcome_of(errors, masked, again, tokens=8):
    batch = ClipBatch(None, None, torch.zeros(len(masked), tokens, dtype=torch.bool), torch.arange(len(masked)))
    return Outcome(torch.tensor(errors), torch.tensor(masked), batch, None, again)


def test_learnable_is_the_error_less_what_stays_of_it():
    """Noise costs 1 with and without its surroundings and pays 0; what its surroundings foretell pays what it costs."""
    told = Told(torch.tensor([[9., 1., .25, 9., 0., 0., 9., .5], [9., 9., 1., 1., 1., 9., 1., 1.]]))
    outcome = outcome_of([[1., 1., 2., 0., 1.], [1., 1., 1., 1., 3.]], [[1, 2, 4, 5, 7], [2, 3, 4, 6, 7]], told)
    assert learnable(outcome).tolist() == [[0., .75, 2., 0., .5], [0., 0., 0., 0., 2.]]
    first, second = told.asked   # each masked token is hidden in one of two forwards, in ascending order
    assert (first.shape[1], second.shape[1]) == (3, 2)
    assert torch.equal(torch.cat([first, second], dim=1).sort(dim=1).values, outcome.masked)
    assert all((half.diff(dim=1) > 0).all() for half in (first, second))
    assert len({tuple(row) for row in first.tolist()}) == 2   # a draw a clip
    assert lasting(outcome).tolist() == [[1., .25, 0., 0., .5], [1., 1., 1., 1., 1.]]   # the other part
    alone = outcome_of([[3.]], [[4]], Told(torch.full((1, 8), 1.)))
    assert learnable(alone).tolist() == [[2.]]   # one token has no other half


def test_telling_divides_the_fall_of_a_tokens_error_among_the_shown_ones_near_it():
    """Against sums of one clip after the other; what one half is paid is the whole fall of the other half's errors."""
    grid, masked = TokenGrid(2, 2, 2), torch.tensor([[0, 1, 3, 5, 6], [1, 2, 4, 5, 7]])
    told = Told(torch.rand(2, 8, generator=torch.Generator().manual_seed(0)))
    told.grid = lambda: grid
    outcome = outcome_of([[3., 1., 4., 1., 5.], [2., 7., 1., 8., 2.]], masked.tolist(), told)
    paid = telling(outcome)
    places = [(t, y, x) for t in range(2) for y in range(2) for x in range(2)]
    for clip in range(2):
        halves = [half[clip].tolist() for half in told.asked]   # the hidden half of each forward
        fall = {i: float(error) - float(told.known[clip, i])
                for i, error in zip(masked[clip].tolist(), outcome.errors[clip], strict=True)}
        expected = {}
        for hidden, shown in (halves, halves[::-1]):
            def k(i, j):
                return math.exp(-sum((a - b) ** 2 for a, b in zip(places[i], places[j], strict=True)) / 2)
            for i in shown:
                expected[i] = sum(fall[j] * k(i, j) / sum(k(other, j) for other in shown) for j in hidden)
            assert sum(expected[i] for i in shown) == pytest.approx(sum(fall[j] for j in hidden))
        assert paid[clip].tolist() == pytest.approx([expected[i] for i in masked[clip].tolist()])
    alone = outcome_of([[3.]], [[4]], told)
    assert telling(alone).tolist() == [[0.]]   # it has nobody to tell anything


def test_a_reach_averages_the_rewards_of_the_masked_tokens_around():
    """Three masked tokens of a row: k of neighbours is exp(-1 / 2), of the outer two exp(-2); the fourth is shown."""
    config = resolve_recipe(SamplerConfig(reward_reach=1.))
    near, far = math.exp(-.5), math.exp(-2)
    paid = reward_of(config, TokenGrid(1, 1, 4)).pay(outcome_of([[8., 2., 4.]], [[0, 1, 2]], None, tokens=4))[0]
    assert paid.tolist() == pytest.approx([(8 + 2 * near + 4 * far) / (1 + near + far),
                                           (8 * near + 2 + 4 * near) / (1 + 2 * near),
                                           (8 * far + 2 * near + 4) / (1 + near + far)])
    apart = outcome_of([[8., 4.]], [[0, 7]], None)   # along all three axes of the grid: |i - j|^2 is 3
    corner = math.exp(-3 / 2)
    assert reward_of(config, TokenGrid(2, 2, 2)).pay(apart)[0].tolist() == pytest.approx(
        [(8 + 4 * corner) / (1 + corner), (8 * corner + 4) / (1 + corner)])
    for tiny in (5e-324, 1e-30):
        alone = reward_of(resolve_recipe(SamplerConfig(reward_reach=tiny)), TokenGrid(2, 2, 2)).pay(apart)
        assert alone.tolist() == [[8., 4.]]
    for huge in (1e155, 1e308):
        alike = reward_of(resolve_recipe(SamplerConfig(reward_reach=huge)), TokenGrid(2, 2, 2)).pay(apart)
        assert alike.tolist() == [[6., 6.]]
    with pytest.raises(ValueError, match="--reward clip has one for the whole clip"):
        reward_of(resolve_recipe(SamplerConfig(reward="clip", adv_norm="batch", reward_reach=1.)))


def test_easy_is_the_negative_error():
    outcome = outcome_of([[1., 2.]], [[0, 1]], None)
    assert reward_of(resolve_recipe(SamplerConfig(reward="easy"))).pay(outcome).tolist() == [[-1., -2.]]


class Weights(torch.nn.Module):
    """A model of one weight, which is the error that it makes of every token."""

    def __init__(self, value):
        super().__init__()
        self.value = torch.nn.Parameter(torch.tensor(value))
        self.register_buffer("steps", torch.tensor(0))


class Asked:
    def __init__(self, model):
        self.mae = type("Learner", (), {"module": model})

    def errors(self, hidden, net):
        return net.value.detach().expand(hidden.shape)


def test_progress_is_what_a_slow_copy_is_behind():
    """The model's error falls 4, 2, 2: the copy is at 4, then 4, then 3 (decay 1/2); it pays 0, 2, 1."""
    model, reward = Weights(4.), Progress(decay=.5)
    paid = []
    for error in (4., 2., 2.):
        model.value.data.fill_(error)
        model.steps += 1
        paid.append(reward(outcome_of([[error, error]], [[0, 1]], Asked(model))).tolist())
    assert paid == [[[0., 0.]], [[2., 2.]], [[1., 1.]]]
    assert float(reward.slow.value) == 2.5 and int(reward.slow.steps) == 3 and not reward.slow.value.requires_grad
    again = Progress(decay=.5)   # in a run that goes on from a checkpoint
    assert again.state() is None
    again.load(reward.state())
    assert again.state() is not None
    assert again(outcome_of([[2., 2.]], [[0, 1]], Asked(model))).tolist() == [[.5, .5]]
    assert float(again.slow.value) == 2.25
    again.load(None)
    assert again(outcome_of([[2., 2.]], [[0, 1]], Asked(model))).tolist() == [[0., 0.]]


def test_a_further_look_is_the_models_error_under_that_mask():
    """Against the mean squared error of the model's own forward; another network makes another error."""
    mae = tiny_mae()
    phi, run = learner(mae, lr=1e-7), setup(mae)
    batch = run.normalizer.prepare(clips(2), CPU)
    again = Again(phi, batch, Reconstruction(), patch_size_of(mae))
    hidden = torch.tensor([[0, 5, 35], [1, 2, 3]])
    mask = torch.zeros_like(batch.mask).scatter_(1, hidden, True)
    target = run.reconstruction.target(batch, mask, run.patch)
    slow = ((mae(batch.videos, mask) - target) ** 2).mean(dim=2)
    found = again.errors(hidden)
    assert torch.allclose(found, slow) and not found.requires_grad
    mae.num_masked = 27   # a run knows the count of its own masks; this is another one
    assert torch.equal(again.errors(hidden), found)
    assert not torch.allclose(again.errors(hidden, tiny_mae(seed=3)), found)
    outcome = train_mae(phi, batch, batch.mask, False, run, Meters())
    assert torch.allclose(outcome.again.errors(outcome.masked), outcome.errors, atol=1e-4)   # one step later


@pytest.mark.parametrize("name", ["learnable", "lasting", "progress", "telling", "easy", "around"])
def test_a_policy_is_paid_by_it_and_the_model_is_not_moved_by_it(name):
    runs = {}
    for reward in (name, "token"):
        mae, sampler = tiny_mae(), tiny_sampler()
        phi, theta = learner(mae), learner(sampler)
        training = ppo_training(mae, **({"reward_reach": 1.} if reward == "around" else {"reward": reward}))
        for epoch in range(2):
            train_one_epoch(epoch, loader(3, 4, seed=0), phi, theta, EpisodeBuffer(), training, Meters())
        runs[reward] = mae.state_dict(), sampler.state_dict()
    assert any(not torch.equal(runs[name][1][key], value) for key, value in runs["token"][1].items())
    for run in runs.values():
        assert all(value.isfinite().all() for state in run for value in state.values())
    assert reward_of(resolve_recipe(SamplerConfig(reward="progress"))).of is not reward_of(
        resolve_recipe(SamplerConfig(reward="progress"))).of   # one a run


def test_a_loop_of_ones_own_is_told_that_it_cannot_look_again():
    with pytest.raises(ValueError, match="'progress' runs the autoencoder once more.* use one of clip, easy, token"):
        SamplingHook(None, "tats", (2, 3, 3), tokens="pixels", reward="progress")
