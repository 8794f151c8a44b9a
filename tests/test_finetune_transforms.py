"""The training transform: every frame of a clip gets the same draw."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from tats.datasets.lists.seeding import seeded
from tats.datasets.transforms.finetuning import FinetuneTransform, SameForAllFrames, rand_augment


def still(seed=0, frames=4, height=40, width=52):
    """A clip that stands still, of smooth noise."""
    small = np.random.default_rng(seed).integers(0, 256, (8, 10, 3), np.uint8)
    picture = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR))
    return np.repeat(picture[None], frames, axis=0)


@pytest.mark.parametrize("aa", ["rand-m9-mstd0.5-inc1", "rand-m7-n4-mstd0.5-inc1"])
def test_a_still_clip_stays_still(aa):
    transform = FinetuneTransform(24, flip=True, aa=aa)
    changed, seen = 0, set()
    for key in range(40):
        with seeded(key):
            clip = transform(still())
        assert clip.shape == (3, 4, 24, 24) and clip.dtype == torch.uint8
        assert (clip == clip[:, :1]).all(), key
        seen.add(clip.numpy().tobytes())
        with seeded(key):
            assert torch.equal(clip, transform(still()))
        with seeded(key):
            changed += not torch.equal(clip, FinetuneTransform(24, flip=True, aa="")(still()))
    assert len(seen) == 40
    assert changed > 20   # RandAugment does something to most clips


def test_randaugment_differs_from_clip_to_clip_and_not_from_frame_to_frame():
    seen = []
    transform = SameForAllFrames(lambda picture: seen.append((random.random(), np.random.rand())) or picture)
    with seeded(3):
        transform(still())
        transform(still())
    first, second = set(seen[:4]), set(seen[4:])
    assert len(seen) == 8 and len(first) == len(second) == 1 and first != second


def test_frames_are_the_ones_that_timm_gives():
    """Frame by frame with the generators put back by hand."""
    clip = np.stack([still(seed)[0] for seed in range(3)])
    augment = rand_augment("rand-m9-mstd0.5-inc1", 24)
    with seeded(11):
        together = augment(clip)
    alone = []
    for frame in clip:
        with seeded(11):
            alone.append(np.asarray(augment.transform(Image.fromarray(frame))))
    assert np.array_equal(together, np.stack(alone))


def test_flips_only_where_allowed():
    ramp = np.zeros((2, 32, 32, 3), np.uint8)
    ramp[:] = np.linspace(0, 255, 32, dtype=np.uint8)[:, None]
    rising = {True: set(), False: set()}
    for flip, found in rising.items():
        transform = FinetuneTransform(16, flip=flip, aa="none")
        for key in range(30):
            with seeded(key):
                clip = transform(ramp).float()
            found.add(bool(clip[..., -1].mean() > clip[..., 0].mean()))
    assert rising == {True: {True, False}, False: {True}}


def test_whole_frames():
    clip = still(height=24, width=24)
    with seeded(5):
        out = FinetuneTransform(24, flip=False, aa="", scale=(1., 1.))(clip)
    assert torch.equal(out, torch.from_numpy(clip).permute(3, 0, 1, 2))


@pytest.mark.parametrize("aa", ["", "none"])
def test_no_randaugment(aa):
    assert rand_augment(aa, 24) is None


@pytest.mark.parametrize("aa", ["augmix-m5", "v0", "rand-m9-q3"])
def test_other_words_are_refused(aa):
    with pytest.raises(ValueError, match="--aa"):
        rand_augment(aa, 24)
