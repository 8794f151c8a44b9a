"""The clips that stay the same for a whole run."""

import numpy as np
import torch
from PIL import Image
from pretraining_setup import CPU, clips, tiny_mae, tiny_sampler
from tats.engines.figures.fixed_clips import FixedClips, draw_coverage
from tats.engines.pretrain.interface import patch_size_of
from tats.engines.pretrain.reconstruction import Reconstruction
from tats.engines.training.batches import Normalizer


def fixed(count=5):
    return FixedClips(clips(count), Normalizer(CPU), Reconstruction())


def test_the_honest_error_is_that_of_the_fixed_masks():
    mae = tiny_mae()
    videos, masks, keys = clips(5)
    batch = Normalizer(CPU).prepare((videos, masks, keys), CPU)
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
    written = fixed().draw(tiny_mae(), tiny_sampler(), 9, tmp_path, 7)
    assert [path.name for path in written] == [f"epoch-0007-clip{place}.png" for place in range(4)]
    coverage = torch.ones(4, 3, 3)
    coverage[1, 2, 0] = 5.0
    picture = np.asarray(Image.open(draw_coverage(coverage, tmp_path, 7)).convert("RGB")).astype(int)
    # The upper end of the scale is one cell, and the tip of the bar.
    yellow = (np.abs(picture - (253, 231, 37)).sum(axis=-1) < 10).sum()
    cell = (1.15 * 120 / 3) ** 2
    assert 0.7 * cell < yellow < 1.3 * cell
