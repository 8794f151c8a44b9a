"""What forks do otherwise: gradient accumulation, and masks of their own that are made after the loader."""

import argparse

import numpy as np
import pytest
import torch
from pretraining_setup import tiny_mae
from tats.engines.fork import TokenSampling, add_sampling_flags

CLIPS = torch.randn(2, 3, 8, 12, 12, generator=torch.Generator().manual_seed(0))


def sampling(*flags, **settings):
    """Of a fork with masks of its own, and a scaler that does nothing."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mask_type", default="motion", choices=["motion"])
    parser.add_argument("--mask_ratio", default=.75, type=float)
    add_sampling_flags(parser)
    args = parser.parse_args(flags)
    args.window_size = (4, 3, 3)
    return TokenSampling(args, tiny_mae(), lambda loss, **others: loss, **settings)


def tats(**settings):
    return sampling("--mask_type", "tats", "--tats_heads", "3", tokens="pixels", **settings)


@pytest.mark.parametrize("given", [
    None, torch.zeros(2, dtype=torch.long), np.zeros(2), 0, ["none", "none"], torch.rand(2, 1, 12, 12),
    torch.rand(2, 4, 9), torch.ones(2, 6, 6, 6), torch.ones(36), [torch.zeros(2), torch.zeros(3)],
], ids=["nothing", "placeholders", "array", "number", "names", "pixels", "importance", "finer", "no batch", "ragged"])
def test_what_a_fork_has_in_the_place_of_a_mask_comes_back_as_it_is(given):
    own = sampling()
    assert own.choose(None, CLIPS, given, 0) is given
    own.learn(torch.zeros(2, 5))
    assert not {"visible_tokens", "visible_share"} & own.end_epoch().keys()


@pytest.mark.parametrize("kind", [torch.Tensor.numpy, torch.Tensor.long, torch.Tensor.tolist,
                                  lambda mask: mask.view(2, 4, 3, 3)], ids=["array", "integers", "lists", "4-D"])
def test_a_mask_of_the_grid_comes_back_as_bool(kind, caplog):
    """With any number of tokens, which is the fork's own affair."""
    for hidden in (27, 12, 9):
        mask = torch.zeros(2, 36).index_fill(1, torch.arange(hidden), 1)
        own = sampling()
        assert torch.equal(own.choose(None, CLIPS, kind(mask), 0), mask.bool())
        own.learn(torch.rand(2, hidden))
        assert own.end_epoch()["visible_tokens"] == 36 - hidden
    assert "num_visible" not in caplog.text


@pytest.mark.parametrize("learn_first", [True, False])
def test_a_loop_that_accumulates_without_saying_so_is_refused(learn_first):
    def batch(scaler, **step):
        scaler.choose(None, CLIPS, None, 0)
        for learns in (learn_first, not learn_first):
            scaler.learn(torch.rand(2, 36)) if learns else scaler(torch.zeros(()), **step)

    for step in ({}, {"update_grad": True}):
        batch(tats(), **step)
    with pytest.raises(ValueError, match="update_freq=N"):
        batch(tats(), update_grad=False)
    batch(sampling(), update_grad=False)      # without a policy it is the fork's own affair


@pytest.mark.parametrize(("update_freq", "steps", "said"), [
    (2, 4, False), (3, 4, True), (4, 4, True), (4, 2, False), (4, 1, False)])
def test_another_number_of_micro_batches_is_said(update_freq, steps, said, caplog):
    """The loop takes a step after every 2; an epoch of 2 may end so, and another one begins."""
    scaler = tats(update_freq=update_freq)
    for epoch in (0, 1):
        for step in range(steps):
            scaler.choose(None, CLIPS, None, epoch)
            scaler.learn(torch.rand(2, 36))
            scaler(torch.zeros(()), update_grad=(step + 1) % 2 == 0)
    assert ("does not take its steps" in caplog.text) == said
