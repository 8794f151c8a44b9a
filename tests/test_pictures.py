"""What the figures show is what the model did."""

import numpy as np
import pytest
import torch
from pretraining_setup import CPU, clips, tiny_mae, tiny_sampler
from tats.datasets.program import run_program
from tats.engines import run_mask_visualization
from tats.engines.figures.pictures import error_map, reconstructed_frames, token_map
from tats.engines.figures.rows import MASKED, sheet_rows
from tats.engines.figures.sheet import Row, _wrapped, draw_sheet
from tats.engines.pretrain.interface import PatchSize
from tats.engines.pretrain.reconstruction import Reconstruction
from tats.engines.run_mae_pretraining import main as pretrain
from tats.engines.run_mask_visualization import main as draw
from tats.engines.run_mask_visualization import mask_row, stems_of
from tats.engines.training.batches import Normalizer
from tats.masking import RandomMasking, TokenGrid
from tats.models import reconstruction_targets

GRID, PATCH = TokenGrid(4, 3, 3), PatchSize(4, 2)


def a_clip():
    torch.manual_seed(0)
    pixels = torch.rand(2, 3, 8, 12, 12)
    return pixels, torch.stack([RandomMasking(GRID, 0.75)() for _ in range(2)])


@pytest.mark.parametrize("normalized", [True, False])
def test_a_perfect_prediction_is_the_frame(normalized):
    pixels, mask = a_clip()
    target = reconstruction_targets(pixels, mask, *PATCH, normalized)
    torch.testing.assert_close(reconstructed_frames(pixels, mask, target, PATCH, normalized), pixels, atol=1e-5, rtol=0)


def test_only_masked_tokens_are_replaced_and_without_leak_truth_is_not_used():
    pixels, mask = a_clip()
    nothing = torch.zeros(2, int(mask[0].sum()), 3 * 32)
    shown = reconstructed_frames(pixels, mask, nothing, PATCH, leak=False)
    hidden = token_map(mask.float(), GRID, PATCH).repeat_interleave(4, 2).repeat_interleave(4, 3)[:, None].bool()
    torch.testing.assert_close(shown.masked_fill(hidden, 0), pixels.masked_fill(hidden, 0))
    scrambled = torch.where(hidden, torch.rand_like(pixels), pixels)
    torch.testing.assert_close(reconstructed_frames(scrambled, mask, nothing, PATCH, leak=False), shown)
    for clip in range(2):  # a prediction of 0 is the mean of the visible pixels, everywhere the same
        inside = shown[clip, 0][hidden[clip, 0]]
        seen = pixels[clip, 0][~hidden[clip, 0]]
        torch.testing.assert_close(inside, seen.mean().expand_as(inside))


def test_the_mask_drawn_is_the_mask_used():
    pixels, mask = a_clip()
    mae = tiny_mae()
    row = mask_row("tats mask", pixels[:1], mask[:1], mae)
    assert row.title == "tats mask\n9 visible"
    images = torch.from_numpy(row.images)
    for token in range(GRID.num_tokens):
        t, rest = divmod(token, 9)
        h, w = divmod(rest, 3)
        block = (slice(2 * t, 2 * t + 2), slice(4 * h, 4 * h + 4), slice(4 * w, 4 * w + 4))
        truth = pixels[0].permute(1, 2, 3, 0)[block]
        expected = torch.full_like(truth, MASKED) if mask[0, token] else truth
        torch.testing.assert_close(images[block], expected)


def test_the_mask_on_the_sheet_is_the_one_that_the_model_was_given():
    mae, used = tiny_mae().eval(), []
    mae.register_forward_pre_hook(lambda _, inputs: used.append(inputs[1]))
    batch = Normalizer(CPU).prepare(clips(1), CPU)
    rows = sheet_rows(mae, tiny_sampler().eval(), batch, Reconstruction(), 9, True)
    dark = torch.from_numpy(np.isclose(rows[-1].images, MASKED).all(axis=-1)[::2, ::4, ::4]).flatten()
    assert torch.equal(dark, used[0][0]) and not torch.equal(dark, batch.mask[0])   # not the loader's
    blank = torch.from_numpy(np.isnan(rows[2].images[::2])).flatten()
    assert torch.equal(blank, ~dark)


def test_error_map_places_errors_and_leaves_visible_tokens_blank():
    mask = torch.tensor([[True, False, True, False]])
    expected = torch.tensor([[0.5, torch.nan, 2.0, torch.nan]])
    torch.testing.assert_close(error_map(torch.tensor([[0.5, 2.0]]), mask), expected, equal_nan=True)


def test_files_of_the_same_name_do_not_overwrite_each_other():
    assert stems_of(["a/clip.mp4", "b/other.avi", "b/clip.mp4"]) == ["clip-0", "other", "clip-2"]


def test_normalizer_round_trip():
    pixels, mask = a_clip()
    normalizer = Normalizer(CPU)
    torch.testing.assert_close(normalizer.denormalize(normalizer.normalize(pixels)), pixels)
    batch = normalizer.prepare(((pixels * 255).to(torch.uint8), mask.float()), CPU)
    assert batch.keys is None and batch.mask.dtype == torch.bool
    torch.testing.assert_close(batch.pixels, (pixels * 255).to(torch.uint8) / 255)


def test_sheet_is_a_png(tmp_path):
    rows = [Row("frames", np.random.rand(8, 12, 12, 3)), Row("error", np.random.rand(8, 3, 3), bar=True)]
    draw_sheet(rows, "a caption", tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_caption_longer_than_the_picture_is_wide_is_broken():
    caption, height = _wrapped("a very long name of a video " * 6, width=6)
    lines = caption.split("\n")
    assert len(lines) > 1 and max(map(len, lines)) <= 62 and height > _wrapped("short", width=6)[1]


def test_without_a_ratio_as_many_tokens_are_visible_as_in_training(shapes, tmp_path, monkeypatch):
    """--num_visible counts, not the ratio that it stands in for, and blocks are shown whole."""
    pretrain(["--model", "pretrain_tats_tiny", "--data_path", str(shapes / "train.csv"), "--output_dir", str(tmp_path),
              "--batch_size", "8", "--num_workers", "0", "--mask_type", "tats", "--mae_only_epochs", "0", "--epochs",
              "1", "--sampling_rate", "1", "--device", "cpu", "--num_visible", "108", "--tats_block", "1", "6", "6"])
    drawn = []
    monkeypatch.setattr(run_mask_visualization, "save_figure", lambda rows, caption, stem, *_: drawn.append(
        (caption, stem.name)))
    draw(["--checkpoint", str(tmp_path / "checkpoint-0.pth"), "--data_path", str(shapes / "val.csv"), "--rows", "0",
          "--compare", "random", "tube", str(tmp_path / "checkpoint-0.pth"), "--out", str(tmp_path)])
    (caption, stem), = drawn
    assert "mask ratio 0.625, 108 of 288 tokens visible" in caption and stem.endswith("-r0.625")


def test_program_from_checkpoint_to_sheets(shapes, tmp_path, capsys):
    pretrain(["--model", "pretrain_tats_tiny", "--data_path", str(shapes / "train.csv"), "--output_dir", str(tmp_path),
              "--batch_size", "8", "--num_workers", "0", "--mask_type", "tats", "--mae_only_epochs", "0", "--epochs",
              "1", "--sampling_rate", "1", "--device", "cpu"])
    checkpoint = str(tmp_path / "checkpoint-0.pth")
    draw(["--checkpoint", checkpoint, "--data_path", str(shapes / "val.csv"), "--rows", "0", "2",
          "--mask_ratio", "0.75", "0.9", "--compare", "random", "tube", checkpoint, "--no_leak",
          "--out", str(tmp_path / "sheets")])
    assert sorted(path.name for path in (tmp_path / "sheets").iterdir()) == [
        f"{clip}-tats-r{ratio}.png" for clip in ("000000", "000002") for ratio in ("0.75", "0.9")]
    draw(["--checkpoint", checkpoint, "--data_path", str(shapes / "val.csv"), "--rows", "2", "--mask_ratio", "0.9",
          "--compare", "random", "tube", checkpoint, "--no_leak", "--out", str(tmp_path / "alone")])
    name = "000002-tats-r0.9.png"   # the same picture, whatever else is drawn
    assert (tmp_path / "alone" / name).read_bytes() == (tmp_path / "sheets" / name).read_bytes()
    torch.save({"model": {}}, tmp_path / "other.pth")
    for wrong, word in ((["--rows", "99"], "--rows"), (["--compare", "cube"], "cube"),
                        (["--compare", "out/x.pth"], "--compare out/x.pth: there is no such file"),
                        (["--compare", str(tmp_path / "other.pth")], "other.pth is not a checkpoint of run_mae_pre"),
                        (["--frames", "0"], "--frames")):
        with pytest.raises(SystemExit) as stopped:
            run_program(lambda more=wrong: draw(["--checkpoint", checkpoint, "--data_path", str(shapes / "val.csv"),
                                                 "--out", str(tmp_path / "x"), *more]))
        assert stopped.value.code == 2 and word in capsys.readouterr().err.splitlines()[-1]
