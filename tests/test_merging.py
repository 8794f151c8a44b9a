"""--tats_merge: a policy over cells of tokens; --tats_block: blocks of tokens that are shown or hidden as one."""

import math

import pytest
import torch
from pretraining_setup import EpisodeBuffer, learner, loader, ppo_training, tiny_mae
from tats.engines.core.meters import Meters
from tats.engines.engine_for_pretraining_ppo import train_one_epoch
from tats.engines.hook.sampling import SamplingHook
from tats.masking import TokenGrid, masked_probability
from tats.masking.merging import cells_of
from tats.masking.tats import TATS

GRID = TokenGrid(4, 4, 6)


def slow_cells(grid, size):
    """{cell: its tokens}, counted one by one; cells in the order of the coarse grid."""
    found = {}
    for t in range(grid[0]):
        for y in range(grid[1]):
            for x in range(grid[2]):
                found.setdefault((t // size[0], y // size[1], x // size[2]), []).append((t * grid[1] + y) * grid[2] + x)
    return [found[cell] for cell in sorted(found)]


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 1, 1), (1, 2, 3), (4, 2, 2)])
def test_cells_are_those_counted_one_by_one(size):
    cells, tokens = cells_of(GRID, size), torch.randn(2, GRID.num_tokens, 5)
    expected = slow_cells(GRID, size)
    torch.testing.assert_close(cells.mean(tokens), torch.stack([tokens[:, one].mean(1) for one in expected], dim=1))
    values = torch.randn(2, len(expected))
    for number, members in enumerate(expected):
        assert (cells.spread(values)[:, members] == values[:, number, None]).all()
        assert cells.of(torch.tensor(members)).eq(number).all()


@pytest.mark.parametrize("size", [(3, 1, 1), (1, 3, 1), (1, 1, 4), (0, 1, 1), (2, 2)])
def test_cells_that_do_not_divide_the_grid_are_refused(size):
    with pytest.raises(ValueError, match="--tats_merge wants three divisors"):
        TATS(GRID, 24, merge=size)


def test_a_logit_is_its_cells_and_what_the_token_differs_by():
    """Against the plain sampler with the same weights on the cells' grid; the value sees every token."""
    torch.manual_seed(0)
    merged = TATS(GRID, 24, 2, mask_ratio=.75, head_init="xavier", merge=(2, 2, 3))
    plain = TATS(TokenGrid(2, 2, 2), 24, 2, mask_ratio=.5, head_init="xavier")
    plain.load_state_dict({name: value for name, value in merged.state_dict().items() if "value" not in name}
                          | {name: value for name, value in plain.state_dict().items() if "value" in name})
    tokens = torch.randn(2, GRID.num_tokens, 24)
    means = torch.stack([tokens[:, one].mean(1) for one in slow_cells(GRID, (2, 2, 3))], dim=1)
    logits, value = merged.policy(tokens)
    of_cells, own = plain.policy(means)[0], tokens @ merged.policy_head.weight[0]
    for number, members in enumerate(slow_cells(GRID, (2, 2, 3))):
        expected = of_cells[:, number, None] + own[:, members] - own[:, members].mean(1, keepdim=True)
        torch.testing.assert_close(logits[:, members], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(value, merged.value_net(tokens.mean(-1))[:, 0])


def test_cells_of_one_token_are_the_plain_policy():
    torch.manual_seed(0)
    plain, one = TATS(GRID, 24, 2, head_init="xavier"), TATS(GRID, 24, 2, merge=(1, 1, 1))
    one.load_state_dict(plain.state_dict())
    tokens = torch.randn(2, GRID.num_tokens, 24)
    assert torch.equal(plain.policy(tokens)[0], one.policy(tokens)[0])


def test_a_trajectory_is_that_of_the_tokens_cell():
    """In every frame a distribution over all places, the same within a cell."""
    torch.manual_seed(0)
    sampler = TATS(GRID, 24, 2, merge=(2, 2, 2))
    tokens, query = torch.randn(1, GRID.num_tokens, 24), torch.tensor([0, 1, GRID.num_tokens - 1])
    maps = sampler.trajectories(tokens, query)
    assert maps.shape == (3, 4, 24)
    torch.testing.assert_close(maps.sum(-1), torch.ones(3, 4))
    torch.testing.assert_close(maps[0], maps[1])
    assert torch.equal(maps[:, 0], maps[:, 1]) and torch.equal(maps[..., 0], maps[..., 7])
    assert not torch.allclose(maps[0], maps[2])


@pytest.mark.parametrize("size", [(1, 4, 6), (2, 2, 2)])
def test_a_draw_of_blocks_shows_whole_ones_by_their_policy(size):
    torch.manual_seed(0)
    members = slow_cells(GRID, size)
    sampler = TATS(GRID, 24, 2, visible=2 * len(members[0]), head_init="xavier", block=size)
    tokens = 3 * torch.randn(1, GRID.num_tokens, 24)
    plain = TATS(GRID, 24, 2, visible=2 * len(members[0]))
    plain.load_state_dict(sampler.state_dict())
    logits = plain.policy(tokens)[0]
    log_pi = sampler(tokens, log=True)[0].detach()
    of_blocks = torch.stack([logits[0, one].mean() for one in members]).detach()
    expected = (of_blocks - of_blocks.exp().sum().log() - math.log(len(members[0])))
    torch.testing.assert_close(torch.stack([log_pi[0, one[0]] for one in members]), expected)
    assert all((log_pi[0, one] == log_pi[0, one[0]]).all() for one in members)

    draws = 4000
    drawn = sampler.draw(log_pi.expand(draws, -1), torch.arange(draws))
    shown = torch.stack([~drawn.mask[:, one] for one in members], dim=1)               # (draws, blocks, tokens)
    assert (shown.all(-1) == shown.any(-1)).all() and (shown.any(-1).sum(-1) == 2).all()
    share, chance = shown.any(-1).float().mean(0), of_blocks.softmax(0)
    for number, one in enumerate(chance):   # without replacement: first, or second after another
        second = sum(float(other / (1 - other) * one) for place, other in enumerate(chance) if place != number)
        assert float(share[number]) == pytest.approx(float(one) + second, abs=.03)
    # kappa belongs to log pi of tokens: sums over masked tokens, divided by P(masked), are without bias.
    probability = masked_probability(log_pi.expand(draws, -1), drawn.threshold, floor=0)
    estimate = (drawn.mask / probability).mean(0)
    torch.testing.assert_close(estimate, torch.ones_like(estimate), rtol=0, atol=.1)


def test_visible_tokens_that_are_no_whole_number_of_blocks_are_refused():
    with pytest.raises(ValueError, match="groups of 24: 9 visible .* --num_visible 24, the nearest"):
        TATS(GRID, 24, mask_ratio=.9, block=(1, 4, 6))
    with pytest.raises(ValueError, match="groups of 96 tokens are the whole token grid 4x4x6: nothing would be hidden"):
        TATS(GRID, 24, block=GRID)
    with pytest.raises(ValueError, match="--tats_block wants three divisors"):
        TATS(GRID, 24, block=(3, 1, 1))
    sampler = TATS(GRID, 24, mask_ratio=.75, block=(1, 4, 6))
    with pytest.raises(ValueError, match="groups of 24"):
        sampler.draw(torch.zeros(1, GRID.num_tokens), visible=30)


@pytest.mark.parametrize("size", [(1., 3, 3), ("1", "3", "3"), (True, True, True)])
def test_a_loop_of_ones_own_is_told_of_sides_that_are_no_whole_numbers(size):
    with pytest.raises(ValueError, match="--tats_block must be of type list"):
        SamplingHook(None, "tats", (2, 3, 3), tokens="pixels", mask_ratio=.5, tats_block=size)


@pytest.mark.parametrize("cells", [{"merge": (2, 1, 3)}, {"block": (1, 3, 3)}])
def test_such_a_policy_learns(cells):
    mae = tiny_mae()
    grid = TokenGrid(*mae.encoder.grid)
    sampler = TATS(grid, mae.encoder.patch_embed.proj.out_channels, mask_ratio=.75, **cells)
    before = {name: value.clone() for name, value in sampler.state_dict().items()}
    phi, theta = learner(mae), learner(sampler)
    train_one_epoch(0, loader(4, 4, seed=0), phi, theta, EpisodeBuffer(), ppo_training(mae), Meters())
    assert all(value.isfinite().all() for value in sampler.state_dict().values())
    assert any(not torch.equal(before[name], value) for name, value in sampler.state_dict().items() if "blocks" in name)
