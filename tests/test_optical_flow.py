"""Rank correlations by hand, and flow where the motion is known."""

import sys

import pytest
import torch
from scipy.stats import spearmanr
from tats.datasets.program import run_program
from tats.engines.measure_flow import Video, correlate, mean_and_error, records_of, table, video_names
from tats.engines.measure_flow import main as measure
from tats.engines.motion.optical_flow import (
    TokenMotion,
    brightness_gradient,
    flow_fields,
    token_means,
    token_motion,
    without_camera,
)
from tats.engines.motion.rank_correlation import partial_rank_correlation, rank_correlation, ranks
from tats.engines.run_mae_pretraining import main as pretrain
from tats.masking import TokenGrid


def test_ranks_and_ties():
    assert ranks(torch.tensor([[10.0, 30, 20, 20]])).tolist() == [[1, 4, 2.5, 2.5]]
    # d = 0, 1, 1 of three ranks: 1 - 6 * 2 / (3 * 8) = .5
    assert float(rank_correlation(torch.tensor([[1.0, 2, 3]]), torch.tensor([[5.0, 900, 7]]))) == pytest.approx(.5)
    constant = rank_correlation(torch.ones(1, 4), torch.tensor([[1.0, 2, 3, 4]]))
    assert constant.isnan().all()   # it ranks nothing
    first, second = torch.randint(0, 5, (2, 50)).float(), torch.randint(0, 5, (2, 50)).float()
    for row in range(2):
        assert float(rank_correlation(first, second)[row]) == pytest.approx(spearmanr(first[row], second[row])[0])


def test_partial_rank_correlation_is_that_of_the_residuals():
    given = torch.randn(1, 200)
    first, second = given + torch.randn(1, 200), given + torch.randn(1, 200)
    rank_of = [ranks(values)[0] - ranks(values).mean() for values in (first, second, given)]
    left = [values - rank_of[2] * (values @ rank_of[2]) / (rank_of[2] @ rank_of[2]) for values in rank_of[:2]]
    expected = torch.nn.functional.cosine_similarity(*left, dim=0)
    found = partial_rank_correlation(first, second, given)
    assert float(found) == pytest.approx(float(expected))
    assert float(rank_correlation(first, second)) > .35 and abs(float(found)) < .2   # `given` was all they shared
    assert partial_rank_correlation(first, given.exp(), given).isnan().all()   # nothing is left


def test_a_clip_in_which_nothing_moves_is_left_out():
    """Two windows of one clip, of which one is still; a still clip. Their scores rank the first one's motion fully."""
    scores, still = torch.tensor([[1.0, 2, 3], [3.0, 1, 2]]), torch.zeros(2, 3)
    moving = torch.tensor([[1.0, 2, 3], [0.0, 0, 0]])
    motion = TokenMotion(moving, moving, moving, torch.tensor([[3.0, 1, 2], [5.0, 5, 5]]))
    found = correlate(scores, motion)
    assert found["flow"] == 1 and found["texture"] == pytest.approx(-.5)
    nothing = correlate(scores, TokenMotion(still, still, still, still))
    assert all(value != value for value in nothing.values()) and len(nothing) == 6
    videos = [Video("a", None, motion), Video("b", None, TokenMotion(still, still, still, still))]
    lines = list(table([("map", records_of("map", videos, [scores, scores]))]))
    assert lines[1].split()[:3] == ["map", "1.000", "(-1)"]
    assert mean_and_error([float("nan"), 1, 3]) == "2.000 ± 1.000 (-1)" and mean_and_error([float("nan")]) == "–"


def textured_square(steps, camera=0):
    """uint8 (3, 4, 96, 96): a textured square in rows 24-47 that starts at column 24 and moves right by `steps` pixels
    a frame over textured ground, which moves left by `camera` pixels a frame."""
    ground = torch.nn.functional.interpolate(torch.rand(1, 1, 34, 50), scale_factor=4, mode="bicubic")[0, 0, :96]
    square = torch.nn.functional.interpolate(torch.rand(1, 1, 6, 6), scale_factor=4, mode="bicubic")[0, 0]
    frames = []
    for t in range(4):
        frame = ground[:, camera * t:camera * t + 96].clone()
        frame[24:48, 24 + steps * t:48 + steps * t] = square
        frames.append(frame)
    return (torch.stack(frames).clamp(0, 1) * 255).byte().expand(3, -1, -1, -1)


def test_flow_stands_on_the_square_that_moves():
    pytest.importorskip("cv2")
    fields = flow_fields(textured_square(3))
    assert fields.shape == (4, 2, 96, 96)
    for t in range(4):   # vectors point to where it came from; the first frame's to where it goes
        inside = fields[t, :, 28:44, 28 + 3 * t:44 + 3 * t].flatten(1).median(dim=1).values
        assert inside.tolist() == pytest.approx([3 if t == 0 else -3, 0], abs=.5)
    assert float(fields[:, :, 60:].abs().median()) < .1
    _, motion = token_motion(textured_square(3)[None], TokenGrid(2, 4, 4), 96)
    flow = motion.flow.view(2, 4, 4)
    # Rows 24-47 are the second row of tokens; columns 24-50 in the first two frames, 30-56 in the last two.
    # It fills token (0, 1, 1) in the first frame and 21 of its 24 columns in the second; the flow is smoothed at edges.
    assert int(flow[0].argmax()) == 5 and float(flow[0, 1, 1]) == pytest.approx(3 / 96 * 45 / 48, rel=.3)
    assert int(flow[1].argmax()) in (5, 6) and float(flow[1, 1, 2]) > 5 * float(flow[1, 3, 2])


def test_a_moving_camera_is_taken_away():
    pytest.importorskip("cv2")
    _, motion = token_motion(textured_square(0, camera=2)[None], TokenGrid(2, 4, 4), 96)
    flow, own = (values.view(2, 4, 4)[:, 1:3] for values in (motion.flow, motion.own_flow))
    assert float(flow[:, 1, 1].min()) == pytest.approx(2 / 96, rel=.2)      # ground
    assert float(own[:, 1, 1].max()) < .3 / 96
    assert float(own[0, 0, 1]) == pytest.approx(2 / 96, rel=.2)              # the square stands still in the picture
    fields = torch.tensor([3.0, 3, 3, 7]).view(1, 1, 2, 2).expand(1, 2, 2, 2)
    assert without_camera(fields)[0, 0].flatten().tolist() == [0, 0, 0, 4]


def test_texture_and_means_by_hand():
    ramp = torch.arange(4.0).expand(1, 3, 2, 4, 4)   # brightness rises by one a pixel to the right
    assert brightness_gradient(ramp).unique().tolist() == [1]
    values = torch.zeros(1, 2, 4, 4)
    values[0, 1, 2:, :2] = 1
    assert token_means(values, TokenGrid(1, 2, 2)).tolist() == [[0, 0, .5, 0]]
    assert mean_and_error([1.0, 2, 3]) == "2.000 ± 0.577" and mean_and_error([.25]) == "0.250"


@pytest.fixture(scope="module")
def checkpoints(shapes, tmp_path_factory):
    """One of random masks and one of AdaMAE's, whose policy is not uniform from the start."""
    folder = tmp_path_factory.mktemp("flow")
    for name in ("random", "adamae", "tats"):
        pretrain(["--model", "pretrain_tats_tiny", "--data_path", str(shapes / "val.csv"), "--output_dir",
                  str(folder / name), "--batch_size", "8", "--num_workers", "0", "--mask_type", name, "--epochs", "1",
                  "--data_set", "moving-shapes", "--device", "cpu"])
    return [str(folder / name / "checkpoint-0.pth") for name in ("random", "adamae", "tats")]


def test_from_checkpoints_to_table(checkpoints, shapes, tmp_path, capsys):
    pytest.importorskip("cv2")
    videos = (shapes / "val.csv").read_text().splitlines()[:2]
    (tmp_path / "videos.csv").write_text("\n".join([*videos, videos[0], str(tmp_path / "none.mp4")]) + "\n")
    arguments = ["--list", str(tmp_path / "videos.csv"), "--windows", "1", "--flow_size", "48", "--draws", "2",
                 "--out", str(tmp_path / "out" / "flow.csv"), "--checkpoint"]
    measure([*arguments, *checkpoints, checkpoints[0]])   # a checkpoint and a video that are named twice count once
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "difference alone (16 x 24 x 24 at stride 1)", "texture alone (16 x 24 x 24 at stride 1)",
        "random: random, 1 steps", "random: random, 1 steps, error map",
        "random: random, 1 steps, error map averaged around",
        "adamae: adamae, before", "adamae: adamae, 1 steps", "adamae: adamae, 1 steps, mean pi of all clips",
        "adamae: adamae, 1 steps, error map", "adamae: adamae, 1 steps, error map averaged around",
        "tats: tats, before", "tats: tats, 1 steps", "tats: tats, 1 steps, mean pi of all clips",
        "tats: tats, 1 steps, error map", "tats: tats, 1 steps, error map averaged around"]
    assert lines[3].endswith("uniform: it ranks nothing") and lines[11].endswith("uniform: it ranks nothing")
    assert lines[1].split()[16:19] == lines[2].split()[19:22] == ["1.000", "±", "0.000"]   # each with itself
    records = (tmp_path / "out" / "flow.csv").read_text().splitlines()
    assert records[0] == "map,video,flow,own_flow,difference,texture,flow_given_texture,own_flow_given_texture"
    assert records[1].split(",")[1] == "000000" and float(records[1].split(",")[2]) > .3   # difference against flow
    assert len(records) == 1 + 2 * 11   # two videos, eleven maps that rank
    measure([*arguments, checkpoints[0], "--fps", "5"])
    assert "(16 x 24 x 24 at stride 1, 5 frames a second)" in capsys.readouterr().out
    assert (tmp_path / "out" / "flow.csv").read_text().splitlines()[1].split(",")[-7:] != records[1].split(",")[-7:]
    for name, fault in (("windows", "at least 1"), ("sampling_rate", "at least 1"), ("fps", "between 0 and 1000")):
        with pytest.raises(SystemExit) as stopped:
            run_program(lambda name=name: measure([*arguments, checkpoints[0], f"--{name}", "0"]))
        assert stopped.value.code == 2 and f"--{name} must " in (line := capsys.readouterr().err.splitlines()[-1])
        assert fault in line


def test_videos_of_one_name_are_told_apart():
    assert video_names(["a/1.mp4", "b/2.avi", "a/1.mp4"]) == ["1", "2", "1"]
    assert video_names(["a/1.mp4", "b/1.mp4", "2.mp4"]) == ["a/1.mp4", "b/1.mp4", "2.mp4"]


def test_without_opencv_one_line_says_what_to_install(checkpoints, shapes, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(SystemExit) as stopped:
        run_program(lambda: measure(["--list", str(shapes / "val.csv"), "--checkpoint", checkpoints[0]]))
    assert stopped.value.code == 2 and "pip install opencv-python-headless" in capsys.readouterr().err.splitlines()[-1]
