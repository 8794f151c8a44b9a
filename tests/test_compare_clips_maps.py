"""The maps of a cell on real clips that no policy makes."""

import math

import torch
from pretraining_setup import tiny_mae
from tats.engines.compare_clips import maps
from tats.engines.pretrain.interface import grid_of
from tats.engines.pretrain.reconstruction import Reconstruction


def test_errors_are_also_averaged_over_the_tokens_around_each(monkeypatch):
    """Against the formula, token by token; and "lasting" is of masks that hide half as much."""
    mae, generator = tiny_mae(), torch.Generator().manual_seed(0)
    grid = grid_of(mae)
    errors = {visible: torch.rand(3, grid.num_tokens, generator=generator) for visible in (3, 19)}
    monkeypatch.setattr(maps, "error_map", lambda _, batch, masking, *__: errors[masking.num_visible][batch])
    found = maps._error_maps(mae, [slice(0, 2), slice(2, 3)], .9, Reconstruction())
    assert set(found) == {"error", "lasting", "error_around", "lasting_around"}
    places = [(t, y, x) for t in range(grid.frames) for y in range(grid.height) for x in range(grid.width)]
    near = [[math.exp(-sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) / 2) for other in places]
            for one in places]
    for name, own in (("error", errors[3]), ("lasting", errors[19])):
        torch.testing.assert_close(found[name], own)
        for clip in range(3):
            for token, weights in enumerate(near):
                mean = sum(w * float(e) for w, e in zip(weights, own[clip], strict=True)) / sum(weights)
                assert math.isclose(float(found[f"{name}_around"][clip, token]), mean, rel_tol=1e-5)
