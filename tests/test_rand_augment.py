"""RandAugment for clips at its full magnitude, which "rand-m9-mstd0.5" reaches in one draw of 44."""

import random

import numpy as np
from PIL import Image
from tats.datasets.transforms.finetuning import rand_augment


def test_posterise_keeps_at_least_one_bit():
    ops = [op for op in rand_augment("rand-m10-inc1-p1.0", 24).transform.ops if op.name.startswith("Posterize")]
    picture = Image.fromarray(np.arange(0, 192, dtype=np.uint8).reshape(8, 8, 3))
    assert ops
    for op in ops:
        op.prob = 1
        assert set(np.unique(np.asarray(op(picture)))) == {0, 128}   # the highest bit alone


def test_every_draw_of_table_7_gives_a_picture():
    augment = rand_augment("rand-m9-mstd0.5-inc1", 24)
    clip = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3), dtype=np.uint8)
    for seed in range(400):
        random.seed(seed)
        np.random.seed(seed)
        assert augment(clip).shape == clip.shape
