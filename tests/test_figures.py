"""Figure 3, and moving pictures."""

import numpy as np
import pytest
import torch
from pretraining_setup import CPU, loader, tiny_mae, tiny_sampler
from tats.datasets.video.decode import open_video
from tats.engines.figures.inference import trajectories
from tats.engines.figures.rows import place_of, token_at, trajectory_rows
from tats.engines.figures.sheet import Row, draw_film
from tats.engines.training.batches import Normalizer
from tats.masking import TokenGrid


@pytest.mark.parametrize("approx", ["none", "orthoformer"])
def test_trajectories_are_distributions_over_each_frame(approx):
    mae, sampler = tiny_mae(), tiny_sampler(approx=approx, num_landmarks=8)
    batch = Normalizer(CPU).prepare(loader(1, 1)[0], CPU)
    maps = trajectories(mae, sampler, batch, torch.tensor([0, 13]))
    assert maps.shape == (2, 4, 9)
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, 4))
    rows = trajectory_rows(mae, sampler, batch, [0, 13])
    assert rows[1].title.startswith("query 1,1,1") and rows[1].images.shape == (8, 12, 12, 3)
    green = (rows[1].images == (0.2, 1.0, 0.3)).all(-1)
    assert green[2:4, 4:8, 4:8].sum() == 2 * 12 and green.sum() == 2 * 12   # the rim of the token, in its two frames


def test_places_of_tokens():
    grid = TokenGrid(4, 3, 3)
    assert all(token_at(place_of(token, grid), grid) == token for token in range(36))
    for wrong in ("1,2", "4,0,0", "a,b,c"):
        with pytest.raises(ValueError, match="--trajectories"):
            token_at(wrong, grid)


def test_samplers_without_trajectories_say_so():
    batch = Normalizer(CPU).prepare(loader(1, 1)[0], CPU)
    with pytest.raises(ValueError, match="trajectory"):
        trajectories(tiny_mae(), tiny_sampler(attention="mha"), batch, torch.tensor([0]))


def test_films_have_every_frame(tmp_path):
    from PIL import Image

    rows = [Row("frames", np.random.rand(4, 6, 6, 3)), Row("error", np.random.rand(4, 3, 3), bar=True)]
    draw_film(rows, "a caption", [tmp_path / "film.gif", tmp_path / "film.mp4"])
    assert Image.open(tmp_path / "film.gif").n_frames == 4
    with open_video(tmp_path / "film.mp4", "pyav") as video:
        assert video.num_frames == 4
