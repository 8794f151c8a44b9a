"""--tats_merge: a policy over cells of tokens."""

import pytest
import torch
from pretraining_setup import EpisodeBuffer, learner, loader, ppo_training, tiny_mae
from tats.engines.core.meters import Meters
from tats.engines.engine_for_pretraining_ppo import train_one_epoch
from tats.masking import TokenGrid
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


def test_a_merged_policy_learns():
    mae = tiny_mae()
    sampler = TATS(TokenGrid(*mae.encoder.grid), mae.encoder.patch_embed.proj.out_channels, mask_ratio=.75,
                   merge=(2, 1, 3))
    before = {name: value.clone() for name, value in sampler.state_dict().items()}
    phi, theta = learner(mae), learner(sampler)
    train_one_epoch(0, loader(4, 4, seed=0), phi, theta, EpisodeBuffer(), ppo_training(mae), Meters())
    assert all(value.isfinite().all() for value in sampler.state_dict().values())
    assert any(not torch.equal(before[name], value) for name, value in sampler.state_dict().items() if "blocks" in name)
