"""Every row of the registry trains, on every grid; the plain engine's own promises."""

import pytest
import torch
from pretraining_setup import (
    EpisodeBuffer,
    changed,
    learner,
    loader,
    ppo_training,
    setup,
    snapshot,
    tiny_mae,
    tiny_sampler,
)
from tats.datasets.clips import PretrainSample
from tats.engines import engine_for_pretraining, engine_for_pretraining_ppo
from tats.engines.core.meters import Meters
from tats.engines.engine_for_pretraining import PretrainSetup
from tats.engines.pretrain.reconstruction import Reconstruction, explained_variance
from tats.engines.training.learner import Learner
from tats.masking import MASKINGS, Draw, TokenGrid, TokenSampler

GRIDS = [(8, 14, 14), (4, 14, 14), (8, 10, 20), (2, 4, 4)]


def train(name, mae, sampler, batches):
    row = MASKINGS[name]
    log = Meters()
    if row.learner == "ppo":
        training = ppo_training(mae.module)
        engine_for_pretraining_ppo.train_one_epoch(0, batches, mae, sampler, EpisodeBuffer(), training, log)
    else:
        engine_for_pretraining.train_one_epoch(0, batches, mae, sampler, setup(mae.module), log)
    return log.means()


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("name", MASKINGS)
def test_every_row_trains_a_step_on_every_grid(name, grid):
    mae = learner(tiny_mae(grid))
    sampler = learner(tiny_sampler(name, grid)) if MASKINGS[name].sampler else None
    batches = loader(1, 2, grid=grid)
    per_clip = MASKINGS[name].per_clip(TokenGrid(*grid), 0.75)
    batches = [PretrainSample(videos, torch.stack([per_clip(), per_clip()]), keys) for videos, _, keys in batches]
    phi = snapshot(mae.module)
    theta = snapshot(sampler.module) if sampler else None
    means = train(name, mae, sampler, batches)
    assert changed(mae.module, phi) and means["loss"] == means["loss"]
    if sampler:
        assert changed(sampler.module, theta)


def test_a_sampler_without_parameters_is_used_and_not_trained():
    """A user's own strategy that only looks: the tokens of largest norm are seen."""

    class Loudest(TokenSampler):
        own_positions = True

        def policy(self, tokens):
            return tokens.norm(dim=-1), None

        def draw(self, log_pi, keys=None, stream=0, visible=None):
            top = log_pi.topk(visible or self.num_visible, dim=1)
            return Draw(torch.ones_like(log_pi, dtype=torch.bool).scatter(1, top.indices, False), top.values[:, -1])

    mae, loudest = learner(tiny_mae()), Learner(Loudest(TokenGrid(4, 3, 3), visible=9))
    log = Meters()
    engine_for_pretraining.train_one_epoch(0, loader(2, 4), mae, loudest, setup(mae.module), log)
    assert mae.steps == 2 and "sampling_loss" not in log.means()


def test_float_videos_are_taken_as_normalised():
    """VideoMAE's own loader yields normalised float clips: the same training as from uint8."""
    results = []
    for as_float in (False, True):
        mae = learner(tiny_mae())
        common = setup(mae.module)
        batches = [(common.normalizer.normalize(videos / 255) if as_float else videos, masks)
                   for videos, masks, _ in loader(2, 4)]
        log = Meters()
        engine_for_pretraining.train_one_epoch(0, batches, mae, None, common, log)
        results.append(log.means()["loss"])
    torch.testing.assert_close(*map(torch.tensor, results), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("loss", "expected"), [("mse", (0.25 + 4) / 2), ("l1", (0.5 + 2) / 2)])
def test_token_errors_by_hand(loss, expected):
    errors = Reconstruction(loss).errors(torch.tensor([[[1.0, 1.0]]]), torch.tensor([[[1.5, -1.0]]]))
    torch.testing.assert_close(errors, torch.tensor([[expected]]))


def test_explained_variance():
    target = torch.tensor([[[1.0, -1.0]], [[3.0, 5.0]]])
    torch.testing.assert_close(explained_variance(target, target), torch.tensor(1.0))
    means = torch.tensor([[[0.0, 0.0]], [[4.0, 4.0]]])
    torch.testing.assert_close(explained_variance(means, target), torch.tensor(0.0))


def test_gradient_clipping_bounds_the_step():
    """Plain SGD at rate 1 moves the weights by the gradient itself: whole without clipping, of norm 1e-3 with it."""
    moves = []
    for clip_grad in (None, 1e-3):
        net = tiny_mae()
        mae = Learner(net, torch.optim.SGD(net.parameters()), lambda step: 1.0, clip_grad=clip_grad)
        before, log = snapshot(net), Meters()
        engine_for_pretraining.train_one_epoch(0, loader(1, 4), mae, None, setup(net), log)
        moves.append(torch.cat([(value - before[name]).flatten() for name, value in net.state_dict().items()]))
        if clip_grad is None:
            norm = moves[0].norm()
        torch.testing.assert_close(torch.tensor(log.means()["grad_norm"]), norm)   # as measured before clipping
    assert norm > 0.01
    torch.testing.assert_close(moves[1], moves[0] * 1e-3 / norm, rtol=1e-3, atol=1e-6)


def test_leftover_micro_batches_are_not_a_step():
    mae = learner(tiny_mae())
    common = setup(mae.module, update_freq=2)
    assert isinstance(common, PretrainSetup)
    engine_for_pretraining.train_one_epoch(0, loader(5, 2), mae, None, common, Meters())
    assert mae.steps == 2
