"""What predictions of moving tokens are made of."""

import pytest
import torch
from tats.engines.motion.foresight import foresight


def test_mixtures_by_hand():
    truth, background = torch.randn(2, 50, 6, generator=torch.Generator().manual_seed(0))
    for parts in ((1., 0.), (0., 1.), (0., 0.), (.3, -.5)):
        mixture = parts[0] * truth + parts[1] * background + 7   # what all tokens have in common says nothing
        assert foresight(mixture, truth, background) == pytest.approx(parts, abs=1e-5)


def test_what_looks_like_the_background_does_not_count_as_foreseen():
    """Two tokens of two values by hand: the truth contains the background, and the model says the background."""
    background = torch.tensor([[1., 0.], [-1., 0.]])
    truth = background + torch.tensor([[0., 1.], [0., -1.]])
    assert foresight(background, truth, background) == pytest.approx((0., 1.), abs=1e-12)
    assert foresight(2 * truth - background, truth, background) == pytest.approx((2., -1.), abs=1e-12)


def test_nothing_to_measure_is_said():
    same = torch.randn(4, 6)
    with pytest.raises(ValueError):
        foresight(same, same, same)
