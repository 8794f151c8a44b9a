"""AUROC, moving AUROC and enrichment by hand."""

import math

import pytest
import torch
from tats.engines.motion.metrics import enrichment, motion_metrics


def test_by_hand():
    moving = torch.tensor([[True, True, False, False, False, False]])
    textured = torch.tensor([[False, True, True, True, False, False]])  # token 1 moves: not static
    pi = torch.tensor([[0.30, 0.10, 0.20, 0.05, 0.25, 0.10]])
    mask = torch.tensor([[False, True, False, True, True, True]])  # sees tokens 0 and 2
    result = motion_metrics(pi, mask, moving, textured)
    # pairs (moving, other): .30 beats all 4; .10 beats .05 and ties .10: (4 + 1.5) / 8
    assert result.auroc == pytest.approx(5.5 / 8)
    # moving against textured static (.20, .05): .30 beats both, .10 beats one
    assert result.moving_auroc == pytest.approx(3 / 4)
    assert result.enrichment == pytest.approx((1 / 2) / (2 / 6))
    assert result.texture_enrichment == pytest.approx((1 / 2) / (2 / 6))


def test_uniform_policy_is_chance():
    moving = torch.rand(5, 40) < 0.3
    textured = torch.rand(5, 40) < 0.3
    result = motion_metrics(torch.full((5, 40), 1 / 40), torch.zeros(5, 40, dtype=torch.bool), moving, textured)
    assert (result.auroc, result.moving_auroc) == pytest.approx((0.5, 0.5))
    assert (result.enrichment, result.texture_enrichment) == pytest.approx((1, 1))


def test_a_texture_detector_has_high_auroc_and_no_moving_auroc():
    generator = torch.Generator().manual_seed(0)
    kind = torch.rand(64, 288, generator=generator)
    moving, textured = kind < 0.17, (kind >= 0.17) & (kind < 0.34)
    pi = ((moving | textured) + 0.01 * torch.rand(64, 288, generator=generator)).softmax(1)
    result = motion_metrics(pi, torch.zeros(64, 288, dtype=torch.bool), moving, textured)
    assert result.auroc > 0.88 and abs(result.moving_auroc - 0.5) < 0.02


def test_enrichment_over_several_draws():
    visible = torch.tensor([[[True, False, False, False]], [[False, True, False, False]]])
    assert enrichment(visible, torch.tensor([[True, False, False, False]])) == pytest.approx((1 / 2) / (1 / 4))


def test_tokens_that_are_not_there_have_no_enrichment():
    visible = torch.ones(1, 2, 4, dtype=torch.bool)
    assert math.isnan(enrichment(visible, torch.zeros(2, 4, dtype=torch.bool)))


def test_without_moving_tokens():
    with pytest.raises(ValueError, match="truth"):
        nothing = torch.zeros(1, 4, dtype=torch.bool)
        motion_metrics(torch.ones(1, 4) / 4, nothing, nothing, ~nothing)
