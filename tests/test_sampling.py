"""Frame numbers by hand, for long, short and one-frame videos; and the sampler and keys that drive them."""

import random

import numpy as np
import pytest
import torch
from tats.datasets.lists.epoch_order import EpochSampler
from tats.datasets.lists.seeding import clip_key, mix, seeded
from tats.datasets.video.frame_numbers import center_indices, pretrain_indices, train_indices, view_indices


def at(value):
    return lambda count: min(value, count - 1)


def last(count):
    return count - 1


def test_pretraining_clip_keeps_its_stride_and_stays_inside():
    assert pretrain_indices(100, 4, 2, at(7)).tolist() == [7, 9, 11, 13]
    assert pretrain_indices(100, 4, 2, last).tolist() == [92, 94, 96, 98]
    assert pretrain_indices(16, 16, 1, last).tolist() == list(range(16))


def test_short_video_holds_the_last_frame_that_whole_strides_reach():
    assert pretrain_indices(10, 6, 4, last).tolist() == [0, 4, 8, 8, 8, 8]
    assert pretrain_indices(13, 4, 4, last).tolist() == [0, 4, 8, 12]   # shorter than 4 * 4, yet long enough
    assert pretrain_indices(1, 4, 2, last).tolist() == [0, 0, 0, 0]


def test_starts_cover_every_place():
    torch.manual_seed(0)
    assert {int(pretrain_indices(20, 4, 4)[0]) for _ in range(200)} == {0, 1, 2, 3, 4}


def test_dense_training_clip_as_videomae_spaces_it():
    # linspace(start, start + 8, 4) = start + [0, 2.67, 5.33, 8], the end clipped to start + 7
    assert train_indices("dense", 50, 4, 2, at(10)).tolist() == [10, 12, 15, 17]
    assert train_indices("dense", 50, 4, 2, last).tolist() == [41, 43, 46, 48]
    # 7 frames: linspace(0, 7, 3), then the end
    assert train_indices("dense", 7, 4, 2).tolist() == [0, 3, 6, 6]
    assert train_indices("dense", 1, 4, 2).tolist() == [0, 0, 0, 0]


def test_segment_training_clip_takes_one_frame_of_each_part():
    assert train_indices("segments", 12, 4, pick=at(1)).tolist() == [1, 4, 7, 10]
    assert train_indices("segments", 3, 4, pick=last).tolist() == [2, 2, 2, 2]


def test_validation_clip_is_the_middle_one():
    assert center_indices("dense", 50, 4, 2).tolist() == [21, 23, 26, 28]
    assert center_indices("segments", 40, 4).tolist() == [5, 15, 25, 35]


def test_dense_views_spread_from_first_to_last_frame():
    # every 2nd of 20 frames: ten; windows of four start at 0, 3, 6
    assert view_indices("dense", 20, 4, 2, 3).tolist() == [[0, 2, 4, 6], [6, 8, 10, 12], [12, 14, 16, 18]]
    assert view_indices("dense", 20, 4, 2, 1).tolist() == [[6, 8, 10, 12]]
    assert view_indices("dense", 5, 4, 2, 2).tolist() == [[0, 2, 4, 4]] * 2


def test_segment_views_interleave():
    assert view_indices("segments", 40, 4, segments=2).tolist() == [[0, 10, 20, 30], [5, 15, 25, 35]]
    assert view_indices("segments", 40, 4, segments=1).tolist() == [[5, 15, 25, 35]]
    assert view_indices("segments", 2, 4, segments=2).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1]]


@pytest.mark.parametrize("style", ["dense", "segments"])
@pytest.mark.parametrize("available", [1, 2, 15, 16, 17, 63, 64, 65, 300])
def test_indices_ascend_inside_the_video(style, available):
    torch.manual_seed(available)
    clips = [train_indices(style, available, 16, 4), center_indices(style, available, 16, 4),
             pretrain_indices(available, 16, 4), *view_indices(style, available, 16, 4, 5)]
    for clip in clips:
        assert clip.shape == (16,) and clip.dtype == np.int64
        assert 0 <= clip.min() and clip.max() < available and (np.diff(clip) >= 0).all()


def test_bad_numbers_are_refused():
    with pytest.raises(ValueError):
        pretrain_indices(0, 16, 4)
    with pytest.raises(ValueError, match="'sparse'"):
        center_indices("sparse", 10, 4)
    with pytest.raises(ValueError, match="segments"):
        view_indices("dense", 10, 4, 1, 0)


def test_keys_differ_by_seed_epoch_and_row_and_fit_int64():
    keys = {clip_key(seed, epoch, row) for seed in range(5) for epoch in range(20) for row in range(50)}
    assert len(keys) == 5 * 20 * 50
    assert 0 <= min(keys) and max(keys) < 2 ** 63
    assert mix(1, 2) != mix(2, 1)


def test_seeded_fixes_all_three_generators_and_puts_them_back():
    def draw():
        return torch.rand(()).item(), np.random.rand(), random.random()

    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    undisturbed = draw(), draw()
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    first = draw()
    with seeded(99):
        inside = draw()
    assert (first, draw()) == undisturbed
    with seeded(99):
        assert draw() == inside
    with seeded(100):
        assert all(one != other for one, other in zip(draw(), inside, strict=True))
    with pytest.raises(RuntimeError), seeded(3):
        raise RuntimeError
    with seeded(99):
        assert draw() == inside


def test_ranks_share_one_permutation():
    whole = [row for row, _ in EpochSampler(10, seed=4)]
    assert sorted(whole) == list(range(10)) and whole != list(range(10))
    for ranks in (2, 3):
        parts = [list(EpochSampler(10, seed=4, rank=rank, world_size=ranks)) for rank in range(ranks)]
        assert {len(part) for part in parts} == {10 // ranks}
        together = [pair for turn in zip(*parts, strict=True) for pair in turn]
        assert [row for row, _ in together] == whole[:len(together)]
        assert [key for row, key in together] == [clip_key(4, 0, row) for row, _ in together]


def test_evaluation_takes_every_row_once_in_order():
    parts = [[row for row, _ in EpochSampler(7, rank=rank, world_size=3, shuffle=False, drop_last=False)]
             for rank in range(3)]
    assert parts == [[0, 3, 6], [1, 4], [2, 5]]


def test_epochs_differ_and_a_started_epoch_goes_on_where_it_was():
    sampler = EpochSampler(30, seed=1, rank=1, world_size=2)
    sampler.set_epoch(3)
    whole = list(sampler)
    assert len(sampler) == len(whole) == 15
    sampler.start(8)   # four rows of each rank
    assert list(sampler) == whole[4:] and len(sampler) == 11
    sampler.set_epoch(4)
    assert list(sampler) != whole and len(sampler) == 15


def test_impossible_shares_are_refused():
    for arguments in ({"length": 0}, {"length": 4, "rank": 2, "world_size": 2}, {"length": 1, "world_size": 2}):
        with pytest.raises(ValueError):
            EpochSampler(**arguments)
    with pytest.raises(ValueError, match="position"):
        EpochSampler(4).start(5)
