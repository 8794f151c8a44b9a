"""Synthetic videos: the truth about motion against the decoded files, balance, base rates, and the command."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from tats.datasets.catalog import DATA_SETS, data_set
from tats.datasets.lists.list_file import read_list
from tats.datasets.moving_shapes import MOVING_SHARE, ShapesConfig, truth_for, write_moving_shapes
from tats.datasets.synthetic.shapes_world import (
    DEFAULT_WORLD,
    DIRECTIONS,
    MOVING,
    STILL,
    TEXTURES,
    World,
    coverage,
    draw_scene,
    render,
    without_motion,
)
from tats.datasets.transforms.pretraining import pretrain_transform
from tats.datasets.video.decode import open_video

GRID = (8, 6, 6)
CLIP = range(16)


def decoded(folder, row, frames=CLIP, split="train"):
    with open_video(read_list(folder / f"{split}.csv").paths[row]) as video:
        return video.read(list(frames))


def test_lists_scenes_and_videos_belong_together(shapes):
    for split, count in (("train", 24), ("val", 8), ("test", 8)):
        rows = read_list(shapes / f"{split}.csv", num_classes=data_set("moving-shapes").classes)
        looks = read_list(shapes / f"{split}_appearance.csv",
                          num_classes=data_set("moving-shapes-appearance").classes)
        truth = truth_for(shapes, split)
        assert len(rows) == len(truth) == count and list(rows.paths) == list(looks.paths)
        assert [int(truth.scene(row).direction) for row in range(count)] == rows.labels.tolist()
        assert [int(truth.scene(row).texture) for row in range(count)] == looks.labels.tolist()
        for row in range(0, count, 5):
            frames = decoded(shapes, row, split=split)
            assert frames.shape == (16, 48, 48, 3)
            drawn = render(truth.scene(row), np.arange(16), 48)
            shrink = pretrain_transform("resize", 24)
            gap = shrink(frames).float() - shrink(drawn).float()
            assert gap.abs().mean() < 5


def test_classes_are_balanced_and_independent_of_the_texture(tmp_path):
    write_moving_shapes(ShapesConfig(tmp_path, (64, 0, 0), frames=1, render_size=16), 1, progress=False)
    directions = read_list(tmp_path / "train.csv").labels
    textures = read_list(tmp_path / "train_appearance.csv").labels
    assert np.bincount(directions * 4 + textures).tolist() == [2] * 32


def test_every_direction_moves_where_its_name_says():
    expected = {"right": (1, 0), "down-right": (1, 1), "down": (0, 1), "down-left": (-1, 1), "left": (-1, 0),
                "up-left": (-1, -1), "up": (0, -1), "up-right": (1, -1)}
    for index, name in enumerate(DIRECTIONS):
        scene = draw_scene(np.random.default_rng(index), index, 0)
        assert tuple(np.sign((scene.velocity / .03).round(6)).astype(int)) == expected[name]
        alone = scene._replace(kind=np.where(np.arange(5) == 2, MOVING, 0),
                               place=np.tile([.5, .5, .15, 0.], (5, 1)))
        steps = int(.2 / np.linalg.norm(scene.velocity))
        covers = coverage(alone, np.array([0, steps]), 12, 12)[0]
        y, x = np.mgrid[:12, :12]
        drift = [(axis * covers[1]).sum() / covers[1].sum() - (axis * covers[0]).sum() / covers[0].sum()
                 for axis in (x, y)]
        assert np.allclose(np.array(drift) / 12, scene.velocity * steps, atol=.01)


def test_what_is_called_moving_changes_in_the_decoded_file_and_nothing_else_does(shapes):
    truth, shrink = truth_for(shapes, "train"), pretrain_transform("resize", 24)
    changes = {True: [], False: []}
    for row in range(24):
        clip = shrink(decoded(shapes, row)).float()
        change = (clip[:, 1::2] - clip[:, 0::2]).abs().mean(0)                       # (8, 24, 24), inside each tubelet
        change = change.reshape(8, 6, 4, 6, 4).mean((2, 4)).flatten().numpy()
        moving, still = truth.moving(row, CLIP, GRID), truth.static_texture(row, CLIP, GRID)
        assert moving.shape == still.shape == (288,) and moving.dtype == still.dtype == bool
        assert not (moving & still).any()
        changes[True].append(change[moving])
        changes[False].append(change[still])
    changes = {key: np.concatenate(values) for key, values in changes.items()}
    # Textured still tokens change by nothing but the codec's noise and the edge of a sprite that is passing.
    assert np.median(changes[True]) > 8 and np.median(changes[False]) < 1.5
    both = torch.from_numpy(np.concatenate([changes[True], changes[False]]))
    ranks = both.argsort().argsort().float() + 1
    count, others = len(changes[True]), len(changes[False])
    auroc = (ranks[:count].sum() - count * (count + 1) / 2) / (count * others)
    assert auroc > .97


def test_backgrounds_are_the_videos_where_nothing_moves(shapes):
    """Elsewhere, away from the moving objects' edges, they differ by the codec's noise; under the objects by much."""
    truth, shrink = truth_for(shapes, "val"), pretrain_transform("resize", 24)
    for row in range(8):
        seen, still = (shrink(frames).float() for frames in (decoded(shapes, row, split="val"),
                                                             truth.background(row, CLIP, 48)))
        gap = (seen - still).abs().mean(0).reshape(8, 2, 6, 4, 6, 4).mean((1, 3, 5)).flatten().numpy()
        shares = truth._shares(row, CLIP, GRID)[0]
        assert gap[shares == 0].mean() < 3 and gap[shares > .9].mean() > 20


def test_still_texture_is_as_strong_as_moving_texture(shapes):
    """A detector of texture in single frames must not tell the two apart."""
    truth, shrink, contrast = truth_for(shapes, "train"), pretrain_transform("resize", 24), {0: [], 1: []}
    for row in range(24):
        clip = shrink(decoded(shapes, row)).float()[:, 0::2]
        cells = clip.reshape(3, 8, 6, 4, 6, 4).permute(1, 2, 4, 0, 3, 5).reshape(288, 3, 16)
        spread = cells.std(dim=2).mean(dim=1).numpy()
        contrast[1].append(spread[truth.moving(row, CLIP, GRID)])
        contrast[0].append(spread[truth.static_texture(row, CLIP, GRID)])
    moving, still = (np.concatenate(contrast[key]).mean() for key in (1, 0))
    assert .8 < moving / still < 1.25


@pytest.mark.parametrize(("object_scale", "least", "most"), [(1., .15, .21), (.6, .07, .10)])
def test_base_rates(object_scale, least, most):
    rates = []
    for row in range(200):
        scene = draw_scene(np.random.default_rng([0, 0, row]), row % 8, row // 8 % 4, World(object_scale=object_scale))
        moving, still = (share.reshape(8, 2, 36).max(axis=1).ravel() >= MOVING_SHARE
                         for share in coverage(scene, np.arange(16), 6, 6))
        rates.append((moving.mean(), (still & ~moving).mean()))
    moving, still = np.mean(rates, axis=0)
    assert least < moving < most and least < still < most


def test_scales_change_size_period_and_speed_alone():
    plain, scaled = (draw_scene(np.random.default_rng(0), 3, 1, world) for world in (World(), World(0., .5, 4., .25)))
    np.testing.assert_array_equal(scaled.place, plain.place * [1, 1, .5, 1])
    np.testing.assert_array_equal(scaled.look, plain.look / ([1, 4] + 6 * [1]))
    np.testing.assert_array_equal(scaled.velocity, plain.velocity / 4)
    for name in ("background", "kind"):
        np.testing.assert_array_equal(getattr(scaled, name), getattr(plain, name))


def test_truth_follows_frames_and_grid(shapes):
    truth = truth_for(shapes, "train")
    whole = truth.moving(3, CLIP, GRID).reshape(GRID)
    assert (truth.moving(3, range(8, 16), (4, 6, 6)).reshape(4, 6, 6) == whole[4:]).all()
    strided = truth.moving(3, range(0, 16, 2), (8, 6, 6)).reshape(GRID)   # one frame a slice: at most what two show
    assert (strided <= whole).all() and strided.sum() < whole.sum()
    fine = truth.moving(3, CLIP, (8, 12, 12)).reshape(8, 6, 2, 6, 2)
    assert (fine.any(axis=(2, 4)) >= whole).all()
    with pytest.raises(ValueError, match="15"):
        truth.moving(3, range(15), GRID)


def test_hidden_still_objects_do_not_count():
    scene = draw_scene(np.random.default_rng(0), 0, 0)
    place = np.tile([.5, .5, .15, 0.], (5, 1))
    kind = np.array([STILL, 0, MOVING, 0, 0])
    look = np.tile(scene.look[0], (5, 1))
    moving, still = coverage(scene._replace(place=place, kind=kind, look=look), np.array([0]), 8, 8)
    assert moving.sum() > 0 and still.sum() == 0
    assert moving.sum() / 64 == pytest.approx(np.pi * .15 ** 2, rel=.15)


def test_camera_jitter_shakes_everything():
    calm, shaken = (draw_scene(np.random.default_rng(1), 2, 1, World(jitter)) for jitter in (0., .05))
    still = without_motion(calm)
    frames = render(still, np.arange(6), 32)
    assert (frames == frames[0]).all()
    shaken = without_motion(shaken)
    assert np.abs(np.diff(render(shaken, np.arange(6), 32).astype(int), axis=0)).mean() > 1


def test_the_seed_decides(tmp_path):
    for name, seed, workers in (("a", 1, 1), ("b", 1, 2), ("c", 2, 1)):
        write_moving_shapes(ShapesConfig(tmp_path / name, (4, 0, 0), seed=seed), workers, progress=False)
    files = {name: [(tmp_path / name / "train" / f"{row:06d}.mp4").read_bytes() for row in range(4)] for name in "abc"}
    assert files["a"] == files["b"] != files["c"]
    assert len(set(files["a"])) == 4


@pytest.mark.parametrize(("world", "message"), [
    ({"jitter": -.1}, "jitter, in sides of the frame, must lie between 0 and 1, got -0.1"),
    ({"object_scale": 2.5}, "object_scale must lie above 0 and at most be 2"),
    ({"texture_scale": 0.}, "texture_scale must be a number above 0, got 0.0"),
    ({"speed_scale": float("nan")}, "speed_scale must be a number above 0, got nan")])
def test_worlds_that_make_no_video_are_refused_before_anything_is_written(tmp_path, world, message):
    with pytest.raises(ValueError, match=message):
        write_moving_shapes(ShapesConfig(tmp_path / "out", world=World(**world)), 1, progress=False)
    assert not (tmp_path / "out").exists()


def test_more_frames_go_on_moving(tmp_path):
    write_moving_shapes(ShapesConfig(tmp_path, (0, 0, 2), frames=40), 1, progress=False)
    with open_video(tmp_path / "test" / "000001.mp4") as video:
        assert video.num_frames == 40
    truth = truth_for(tmp_path, "test")
    assert truth.moving(1, range(24, 40), GRID).mean() > .03
    assert (tmp_path / "train.csv").read_text() == ""


def test_truth_of_nothing_says_how_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="python -m tats.datasets.moving_shapes --out"):
        truth_for(tmp_path, "train")


@pytest.mark.slow
def test_command_line(tmp_path):
    command = [sys.executable, "-m", "tats.datasets.moving_shapes", "--out", str(tmp_path / "x y")]
    subprocess.run([*command, "--train", "3", "--val", "1", "--test", "0", "--size", "16"], check=True)
    assert len(read_list(tmp_path / "x y" / "train.csv")) == 3
    with open_video(tmp_path / "x y" / "val" / "000000.mp4") as video:
        assert video.read([0]).shape == (1, 32, 32, 3)
    done = subprocess.run([*command, "--size", "7", "--render_size", "15"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr and "even side" in done.stderr.splitlines()[-1]


def test_catalog_agrees_with_the_world():
    assert data_set("moving-shapes").classes == len(DIRECTIONS)
    assert data_set("moving-shapes-appearance").classes == len(TEXTURES)
    assert {name: (row.classes, row.stride, row.flip) for name, row in DATA_SETS.items()
            if not name.startswith("moving")} == {
        "Kinetics-400": (400, 4, True), "SSV2": (174, 2, False), "UCF101": (101, 2, True), "HMDB51": (51, 2, True)}
    with pytest.raises(ValueError, match="'kinetics'"):
        data_set("kinetics")


def test_another_set_is_not_written_over(tmp_path):
    """Half of it would be the new videos under the old truth; the same set may be written again."""
    config = ShapesConfig(tmp_path, (2, 0, 0), frames=2, render_size=16)
    for _ in range(2):
        write_moving_shapes(config, 1, progress=False)
    before = (tmp_path / "train.csv").read_text(), (tmp_path / "train/000000.mp4").read_bytes()
    for other in ({"seed": 1}, {"counts": (1, 0, 0)}, {"world": DEFAULT_WORLD._replace(jitter=.1)}):
        with pytest.raises(ValueError, match="holds other moving shapes, made with .*\"seed\": 0.* another --out"):
            write_moving_shapes(config._replace(**other), 1, progress=False)
    (tmp_path / "shapes.json").unlink()   # of an earlier version
    with pytest.raises(ValueError, match="holds other moving shapes: choose"):
        write_moving_shapes(config._replace(counts=(1, 0, 0)), 1, progress=False)
    assert before == ((tmp_path / "train.csv").read_text(), (tmp_path / "train/000000.mp4").read_bytes())
