"""Erasing, mixup and CutMix on clips: the same in every frame, and labels that weigh as much as the pixels."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tats.engines.config.finetuning import AugmentConfig
from tats.engines.finetune.mixing import BatchAugment

CPU = torch.device("cpu")
CLASSES = 6


def augment(batch, **flags):
    off = {"reprob": 0.0, "mixup": 0.0, "cutmix": 0.0, "smoothing": 0.0}
    return BatchAugment(AugmentConfig(**off | flags), CLASSES, batch, CPU)


def seed(number):
    torch.manual_seed(number)
    np.random.seed(number)
    random.seed(number)


def flat_clips(batch, frames=4, size=20):
    """Clip i holds the number i everywhere and has label i."""
    clips = torch.arange(batch, dtype=torch.float32).view(-1, 1, 1, 1, 1).expand(-1, 3, frames, size, size).clone()
    return clips, torch.arange(batch)


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_cutmix_labels_are_pixel_shares(mode):
    boxes = 0
    for number in range(30):
        seed(number)
        clips, labels = flat_clips(6)
        mixed, targets = augment(6, cutmix=1.0, mixup_mode=mode)(clips, labels)
        assert mixed.shape == (6, 3, 4, 20, 20) and targets.shape == (6, CLASSES)
        assert (mixed == mixed[:, :1, :1]).all()   # one box for all frames and channels
        for own in range(6):
            share = (mixed[own, 0, 0] == own).float().mean()
            torch.testing.assert_close(targets[own, own], share)
            torch.testing.assert_close(targets[own, 5 - own], 1 - share)
            boxes += 0 < share < 1
            box = mixed[own, 0, 0] != own
            rows, columns = box.any(dim=1), box.any(dim=0)
            assert torch.equal(box, rows[:, None] & columns)   # a rectangle of pixels
    assert boxes > 60


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_mixup_labels_are_the_weights_of_the_pixels(mode):
    seed(1)
    clips, labels = flat_clips(6)
    mixed, targets = augment(6, mixup=0.8, mixup_mode=mode)(clips, labels)
    assert (mixed == mixed[:, :1, :1, :1, :1]).all() and not torch.equal(mixed, flat_clips(6)[0])
    torch.testing.assert_close(targets @ torch.arange(6.0), mixed[:, 0, 0, 0, 0])
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(6))


def test_smoothing_of_mixed_labels_by_hand():
    seed(0)
    clips, labels = flat_clips(2)
    _, targets = augment(2, mixup=0.8, smoothing=0.3)(clips, labels)
    weight = (targets[0, 0] - .05) / .7   # 0.3 / 6 everywhere, the other 0.7 shared by the two labels
    own, other = .05 + .7 * weight, .05 + .7 * (1 - weight)
    torch.testing.assert_close(targets[0], torch.tensor([own, other, .05, .05, .05, .05]))


def test_smoothing_of_single_labels_by_hand():
    plain = augment(1, smoothing=0.1)
    clips, labels = flat_clips(1)
    assert plain(clips, labels)[1] is labels
    logits = torch.tensor([[2.0, 0, 0, 0, 0, 1.0]])
    targets = torch.full((1, 6), .1 / 6)
    targets[0, 0] += .9
    torch.testing.assert_close(plain.loss(logits, labels), -(targets * logits.log_softmax(dim=1)).sum())
    torch.testing.assert_close(plain.loss(logits, targets), -(targets * logits.log_softmax(dim=1)).sum())
    assert plain.loss(logits.bfloat16(), labels).dtype == torch.float32


def test_erasing_is_one_box_through_time():
    erased = 0
    for number in range(20):
        seed(number)
        clips = torch.full((4, 3, 5, 24, 24), 7.0)
        out, _ = augment(4, reprob=0.5, remode="pixel")(clips, torch.zeros(4, dtype=torch.long))
        for clip in out:
            touched = clip != 7.0   # (3, 5, 24, 24); the noise is never 7 by chance
            assert (touched == touched[:1, :1]).all()
            box = touched[0, 0]
            assert torch.equal(box, box.any(dim=1)[:, None] & box.any(dim=0))
            erased += bool(box.any())
            if box.any():
                assert .01 < box.float().mean() < .4
                assert not torch.equal(clip[0, 0][box], clip[0, 1][box])   # its pixels differ from frame to frame
    assert 25 <= erased <= 55   # half of 80


def test_off_means_untouched():
    clips, labels = flat_clips(3)   # an odd batch is no matter then
    out, targets = augment(3)(clips.clone(), labels)
    assert torch.equal(out, clips) and torch.equal(targets, labels)
    logits = torch.randn(3, CLASSES, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(augment(3).loss(logits, labels), F.cross_entropy(logits, labels))


@pytest.mark.parametrize("flags", [{"mixup": 0.8}, {"cutmix": 1.0}, {"cutmix_minmax": [.2, .6]}])
def test_an_odd_batch_cannot_be_paired(flags):
    with pytest.raises(ValueError, match="odd"):
        augment(5, **flags)


def test_minmax_takes_two():
    with pytest.raises(ValueError, match="cutmix_minmax"):
        augment(4, cutmix_minmax=[.2])
