"""The contract of the registry, over every row and several grids."""

import pytest
import torch
from tats.masking import MASKINGS, Masking, RandomMasking, TokenGrid, find_masking, num_visible, register_masking

GRIDS = [TokenGrid(8, 14, 14), TokenGrid(4, 14, 14), TokenGrid(8, 10, 20), TokenGrid(2, 4, 4)]
LEARNED = [name for name, row in MASKINGS.items() if row.sampler is not None]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("name", MASKINGS)
def test_loader_half_is_a_bool_mask_with_one_count(name, grid):
    per_clip = MASKINGS[name].per_clip(grid, 0.75)
    masks = torch.stack([per_clip() for _ in range(8)])
    assert masks.dtype == torch.bool and masks.shape == (8, grid.num_tokens)
    assert set((~masks).sum(1).tolist()) == {per_clip.num_visible}
    assert any(not torch.equal(masks[0], mask) for mask in masks[1:])


@pytest.mark.parametrize("name", LEARNED)
def test_device_half_draws_as_many_as_it_promises(name):
    grid = TokenGrid(4, 3, 3)
    sampler = MASKINGS[name].sampler(grid, 16, mask_ratio=0.75).eval()
    probabilities, value = sampler(torch.randn(5, 36, 16))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(5))
    assert probabilities.dtype == torch.float32 and (value is None or value.shape == (5,))
    mask = sampler.sample(probabilities)
    assert mask.dtype == torch.bool and (~mask).sum(1).tolist() == [9] * 5


@pytest.mark.parametrize("name", LEARNED)
def test_device_half_refuses_another_grid(name):
    sampler = MASKINGS[name].sampler(TokenGrid(4, 3, 3), 16)
    with pytest.raises(ValueError, match="36 .*35"):
        sampler(torch.randn(1, 35, 16))


@pytest.mark.parametrize(("name", "ratio", "count"), [
    ("tube", 0.95, 80), ("tube", 0.90, 160), ("tube", 0.75, 392), ("random", 0.95, 78), ("random", 0.90, 156),
    ("tats", 0.95, 78), ("adamae", 0.90, 156), ("random", 0.85, 235), ("tube", 0.85, 240), ("frame", 0.95, 196),
    ("frame", 0.75, 392),
])
def test_published_visible_counts(name, ratio, count):
    assert MASKINGS[name].per_clip(GRIDS[0], ratio).num_visible == count


@pytest.mark.parametrize(("name", "count"), [("random", 1), ("tube", 2), ("frame", 4)])
def test_something_is_always_seen(name, count):
    """At .999 of 2 x 2 x 2 tokens: one token, one tube of two, one frame of four."""
    assert MASKINGS[name].per_clip(TokenGrid(2, 2, 2), 0.999).num_visible == count


def test_no_token_is_lost_to_floats():
    assert num_visible(TokenGrid(10, 4, 4), 0.9) == 16  # int(160 * (1 - .9)) is 15


def test_tube_is_the_same_in_every_frame_and_frame_is_whole():
    grid = TokenGrid(8, 6, 6)
    tube = MASKINGS["tube"].per_clip(grid, 0.75)().view(8, 36)
    assert (tube == tube[0]).all()
    frame = MASKINGS["frame"].per_clip(grid, 0.75)().view(8, 36)
    assert (~frame).all(1).sum() == 2 and frame.all(1).sum() == 6


@pytest.mark.parametrize(("name", "wanted", "nearest"), [("tube", 78, 80), ("frame", 78, 196), ("tube", 3, 8)])
def test_a_budget_that_cannot_be_met_names_the_nearest(name, wanted, nearest):
    with pytest.raises(ValueError, match=rf"{wanted}.*\b{nearest}\b"):
        MASKINGS[name].per_clip(GRIDS[0], 0.95, wanted)


@pytest.mark.parametrize("name", MASKINGS)
def test_one_budget_for_all(name):
    assert MASKINGS[name].per_clip(TokenGrid(8, 6, 6), 0.95, 72)().logical_not().sum() == 72


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.1, 1.5, float("nan")])
@pytest.mark.parametrize("name", MASKINGS)
def test_ratio_outside_the_open_interval(name, ratio):
    with pytest.raises(ValueError, match="mask_ratio"):
        MASKINGS[name].per_clip(GRIDS[0], ratio)


def test_registering(monkeypatch):
    monkeypatch.setitem(MASKINGS, "mine", None)
    monkeypatch.delitem(MASKINGS, "mine")
    row = register_masking("mine", Masking(RandomMasking))
    assert find_masking("mine") is row
    for taken in ("tats", "learnable", "mine"):
        with pytest.raises(ValueError, match=taken):
            register_masking(taken, row)
    with pytest.raises(ValueError, match="cube.*tube"):
        find_masking("cube")
    assert find_masking("learnable") is MASKINGS["adamae"]
    with pytest.raises(ValueError, match="dqn"):
        Masking(RandomMasking, learner="dqn")
