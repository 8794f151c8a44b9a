"""Figure 3, and moving pictures."""

import shlex

import numpy as np
import pytest
import torch
from dry_runs import run_script
from pretraining_setup import CPU, loader, tiny_mae, tiny_sampler
from tats.datasets.video.decode import open_video
from tats.engines import run_mask_visualization as visualization
from tats.engines.figures.inference import mean_trajectory, trajectories
from tats.engines.figures.rows import all_patches_row, place_of, token_at, trajectory_rows
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


def test_all_patches_are_the_mean_of_all_queries():
    mae, sampler = tiny_mae(), tiny_sampler()
    batch = Normalizer(CPU).prepare(loader(1, 1)[0], CPU)
    expected = trajectories(mae, sampler, batch, torch.arange(36)).mean(dim=0)
    for size in (5, 36, 196):
        torch.testing.assert_close(mean_trajectory(mae, sampler, batch, size), expected)
    row = all_patches_row(mae, sampler, batch)
    assert row.title.startswith("all patches") and row.images.shape == (8, 12, 12, 3)


FIGURES = {number: (dataset, ratio) for number, (dataset, ratio) in enumerate(
    ((dataset, ratio) for dataset in ("k400", "ssv2", "ucf101", "hmdb51") for ratio in ("095", "090", "085")), start=4)}


def test_figures_are_those_of_the_paper():
    """Captions of Figures 4 to 15; 2 and 3 have all data sets at .95."""
    lines = run_script("figures.sh", DRY_RUN="1", PYTHON="python", DATA_ROOT="/data", OUTPUT_ROOT="/out").stdout
    commands = [visualization.get_parser().parse_args(shlex.split(line)[3:]) for line in lines.splitlines()]
    assert len(commands) == 4 + 4 + 12
    found = {}
    for args in commands:
        found.setdefault(int(str(args.out).split("figure_")[1][:2]), []).append(args)
    assert len({args.out for args in commands}) == len(commands)   # videos of two data sets may have one name
    for number, (dataset, ratio) in FIGURES.items():
        (args,) = found[number]
        run = f"pretrain_{dataset}_r{ratio}/checkpoint-399.pth"
        assert (str(args.checkpoint), args.compare) == (f"/out/tats/{run}", [f"/out/adamae/{run}"])
        assert (args.data_path, args.without, args.trajectories) == (f"/data/{dataset}/test.csv", [], None)
    for number, without, trajectories_ in ((2, ["error"], None), (3, [], ["all"])):
        assert [str(args.checkpoint) for args in found[number]] == [
            f"/out/tats/pretrain_{dataset}_r095/checkpoint-399.pth" for dataset in ("k400", "ssv2", "ucf101", "hmdb51")]
        assert {(tuple(args.without), *(args.trajectories or [None])) for args in found[number]} == {
            (tuple(without), *(trajectories_ or [None]))}
    smoke = run_script("figures.sh", "10", DRY_RUN="1", SMOKE="1", PYTHON="python", OUTPUT_ROOT="/out").stdout
    assert "--data_set moving-shapes" in smoke and "ucf101 " not in smoke   # no video under another data set's name
    assert run_script("figures.sh", "16", DRY_RUN="1").returncode == 2
