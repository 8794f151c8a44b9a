"""The clips that stay the same for a whole run."""

import numpy as np
import pytest
import torch
from PIL import Image
from pretraining_setup import CPU, clips, tiny_mae, tiny_sampler
from tats.datasets.clips import PretrainSample
from tats.engines.figures import fixed_clips
from tats.engines.figures.fixed_clips import FixedClips, draw_coverage
from tats.engines.figures.sheet import Row
from tats.engines.pretrain.interface import patch_size_of
from tats.engines.pretrain.reconstruction import Reconstruction
from tats.engines.training.batches import Normalizer
from tats.masking import RandomMasking, TokenGrid, find_masking

NINE = RandomMasking(TokenGrid(4, 3, 3), .75)


def fixed(count=5):
    return FixedClips(clips(count), Normalizer(CPU), Reconstruction(), [f"{place}.mp4" for place in range(count)])


def test_the_honest_error_is_that_of_the_fixed_masks():
    mae = tiny_mae()
    videos, masks, keys = clips(5)
    batch = Normalizer(CPU).prepare(PretrainSample(videos, masks, keys), CPU)
    reconstruction = Reconstruction()
    with torch.no_grad():
        errors = reconstruction.errors(mae.eval()(batch.videos, masks),
                                       reconstruction.target(batch, masks, patch_size_of(mae)))
    numbers = fixed().measure(mae, None)
    assert set(numbers) == {"fixed_error"} and abs(numbers["fixed_error"] - float(errors.mean())) < 1e-6


def test_a_policy_that_stays_does_not_move_even_with_dropout():
    """AdaMAE's sampler has dropout: measured as it trains, an unchanged policy would seem to move."""
    mae, sampler, watched = tiny_mae(), tiny_sampler("adamae").train(), fixed()
    assert "policy_moved" not in watched.measure(mae, sampler)
    assert watched.measure(mae, sampler)["policy_moved"] == 0.0


def test_policy_moved_is_the_probability_that_changed_place():
    mae, sampler, watched = tiny_mae(), tiny_sampler(head_init="zeros"), fixed()
    watched.measure(mae, sampler)                     # uniform over 36 tokens
    before = watched.before.clone()
    with torch.no_grad():
        for parameter in sampler.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    moved = watched.measure(mae, sampler)["policy_moved"]
    torch.testing.assert_close(before, torch.full((5, 36), 1 / 36))
    gained = (watched.before - before).clamp(min=0).sum(dim=1).mean()
    assert moved > 0 and abs(moved - float(gained)) < 1e-6


def test_pictures_of_an_epoch(tmp_path):
    written = fixed().draw(tiny_mae(), tiny_sampler(), NINE, tmp_path, 7)
    assert [path.name for path in written] == [f"epoch-0007-clip{place}.png" for place in range(4)]
    assert all(Image.open(path).size[0] > 100 for path in written)


def test_sheets_without_a_policy_show_the_strategys_own_masks(tmp_path, monkeypatch):
    """A tube stays where it is in every slice, and shows as many tokens as the caption says."""
    masks, reconstructions = [], []

    def rows(mae, sampler, batch, reconstruction, visible, leak):
        masks.append(batch.mask)
        reconstructions.append(reconstruction)
        assert visible == 12 == int((~batch.mask).sum())
        return [Row("frames", np.zeros((1, 4, 4, 3)))]

    monkeypatch.setattr(fixed_clips, "sheet_rows", rows)
    tube, l1 = find_masking("tube").per_clip(TokenGrid(4, 3, 3), .7), Reconstruction("l1")
    watched = FixedClips(clips(4), Normalizer(CPU), l1, ["a.mp4"] * 4)
    for epoch in (0, 1):
        watched.draw(tiny_mae(), None, tube, tmp_path, epoch)
    slices = torch.cat(masks).view(8, 4, 9)
    assert (slices == slices[:, :1]).all() and torch.equal(slices[:4], slices[4:])
    assert len({bytes(mask.numpy()) for mask in slices[:4]}) > 1 and set(reconstructions) == {l1}


@pytest.mark.filterwarnings("error")
def test_any_name_of_a_video_can_head_its_sheet(tmp_path):
    names = ["a $100$ bill $\\frac{.mp4", "\u7ec3\u4e60 \u0928.mp4", "bell\a\ttab.mp4", "x" * 300 + ".mp4"]
    watched = FixedClips(clips(4), Normalizer(CPU), Reconstruction(), names)
    plain = FixedClips(clips(4), Normalizer(CPU), Reconstruction(), ["plain.mp4"] * 4)
    mae, sampler = tiny_mae(), tiny_sampler()
    for named, other in zip(watched.draw(mae, sampler, NINE, tmp_path / "a", 0),
                            plain.draw(mae, sampler, NINE, tmp_path / "b", 0), strict=True):
        assert named.read_bytes() != other.read_bytes()   # the name is in it


def test_the_coverage_map_shows_each_token_in_its_place(tmp_path):
    """Where one token is covered most: the pixels that differ from the map with that token elsewhere."""
    def picture(epoch, *tokens):
        coverage = torch.ones(4, 3, 3)
        for token in tokens:
            coverage[token] = 5.0
        path = draw_coverage(coverage, tmp_path, epoch)
        assert path == tmp_path / f"epoch-{epoch:04d}-coverage.png"
        return np.asarray(Image.open(path).convert("RGB")).astype(int)

    base = picture(7, (0, 0, 0))   # its 5 sets the scale of all pictures
    centres, sides = {}, []
    for token in ((1, 2, 0), (1, 2, 1), (1, 1, 0), (2, 2, 0)):
        change = np.abs(picture(7, (0, 0, 0), token) - base).sum(axis=-1)
        own = np.argwhere(change > 0.9 * change.max())   # from 1 to 5; in the mean of the slices only from 1 to 2
        centres[token], side = own.mean(axis=0), np.ptp(own, axis=0) + 1
        assert len(own) == side.prod()                   # a whole rectangle
        sides.append(side)
        others = np.argwhere((change > 0) & (change <= 0.9 * change.max()))
        assert np.median(others[:, 1]) > own[:, 1].max()   # the mean stands to the right
    assert np.ptp(sides) <= 2                            # all cells alike and square, but for the edges' pixels
    down, right = centres[1, 2, 0] - centres[1, 1, 0], centres[1, 2, 1] - centres[1, 2, 0]
    assert down[0] > 5 and abs(down[1]) < 1 and right[1] > 5 and abs(right[0]) < 1
    np.testing.assert_allclose(down[0], right[1], atol=1)
    further = centres[2, 2, 0] - centres[1, 2, 0]        # the next slice stands beside this one, at the same height
    assert further[1] > 3 * right[1] and abs(further[0]) < 1


def test_fixed_clips_of_which_none_can_be_read(shapes, tmp_path, caplog):
    """--vis_path is refused; without it the run goes on and says what its log will not have."""
    from tats.engines.run_mae_pretraining import main
    from tiny_runs import small_pretraining_flags

    bad = tmp_path / "bad.csv"
    bad.write_text("".join(f"{tmp_path}/gone-{row}.mp4\n" for row in range(16)))
    words = small_pretraining_flags(shapes, tmp_path / "out", "--epochs", "1")
    with pytest.raises(ValueError, match="none of the first 16 videos of .*bad.csv can be read: .*--vis_path"):
        main([*words, "--vis_path", str(bad)])
    mixed = tmp_path / "mixed.csv"
    mixed.write_text(bad.read_text() + (shapes / "train.csv").read_text())
    main([*words, "--data_path", str(mixed), "--max_bad_fraction", "1"])
    assert "log.txt has no train_fixed_error" in caplog.text
