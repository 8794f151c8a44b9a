"""Crops by hand: which rectangles, one for all frames, resized as PIL would, mirrored only where allowed."""

import numpy as np
import pytest
import torch
from PIL import Image
from tats.datasets.transforms.pretraining import (
    MultiScaleCrop,
    ResizedCrop,
    crop_views,
    fixed_corners,
    pretrain_transform,
    resize_short_side,
)
from torch.nn import functional


def coordinates(frames, height, width):
    """A clip whose red is the row, green the column, blue the frame."""
    clip = torch.zeros(frames, height, width, 3, dtype=torch.uint8)
    clip[..., 0] = torch.arange(height)[:, None]
    clip[..., 1] = torch.arange(width)
    clip[..., 2] = torch.arange(frames)[:, None, None]
    return clip


def test_thirteen_corners():
    # slack 8 x 40 -> steps 2 and 10
    expected = {(0, 0), (0, 40), (8, 0), (8, 40), (4, 20),         # corners and middle
                (4, 0), (4, 40), (8, 20), (0, 20),                 # sides
                (2, 10), (2, 30), (6, 10), (6, 30)}                # quarters
    assert set(fixed_corners(8, 40)) == expected and len(fixed_corners(8, 40)) == 13
    assert max(fixed_corners(7, 43)) == (4, 40)                    # whole quarters: 7 // 4 = 1


def test_multi_scale_shapes():
    # short side 256: 256, 224, 192, 168; neighbours only
    expected = [(256, 256), (256, 224), (224, 256), (224, 224), (224, 192), (192, 224), (192, 192), (192, 168),
                (168, 192), (168, 168)]
    assert sorted(MultiScaleCrop(224).shapes(256, 340)) == sorted(expected)
    # 254 * .875 = 222.25 is within two pixels of 224: taken as 224
    assert (224, 224) in MultiScaleCrop(224).shapes(254, 340)
    # a frame smaller than the output never gives a crop larger than itself
    assert max(max(shape) for shape in MultiScaleCrop(24).shapes(22, 40)) == 22


def test_multi_scale_crop_cuts_one_rectangle_for_all_frames():
    transform, seen = MultiScaleCrop(32), set()
    torch.manual_seed(0)
    for _ in range(60):
        out = transform(coordinates(4, 48, 64))
        assert out.shape == (3, 4, 32, 32) and out.dtype == torch.uint8 and out.is_contiguous()
        rows, columns, times = out.int()
        assert (rows == rows[0]).all() and (columns == columns[0]).all()
        assert (times == torch.arange(4)[:, None, None]).all()
        seen.add((int(rows[0, 0, 0]), int(columns[0, 0, 0]), int(rows.max()), int(columns.max())))
    assert len(seen) > 20


def test_crop_is_cut_before_it_is_resized_like_pil():
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(1, 3, 12, 16, generator=generator)
    clip = (functional.interpolate(small, (48, 64), mode="bilinear") * 255).byte().permute(0, 2, 3, 1)
    transform = MultiScaleCrop(24, scales=(.75,))                  # 36 x 36 out of 48 x 64
    torch.manual_seed(3)
    out = transform(clip)
    torch.manual_seed(3)
    torch.randint(1, ())
    top, left = fixed_corners(12, 28)[int(torch.randint(13, ()))]
    crop = Image.fromarray(clip[0].numpy()).crop((left, top, left + 36, top + 36))
    expected = np.asarray(crop.resize((24, 24), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(out[:, 0].permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1


def test_a_moving_pixel_lands_where_the_crop_puts_it():
    clip = torch.zeros(3, 24, 24, 3, dtype=torch.uint8)
    for time in range(3):
        clip[time, 12, 10 + time] = 200                            # goes right, a pixel a frame
    transform = MultiScaleCrop(12, scales=(.5,))                   # 12 x 12 of 24 x 24: a cut without resampling
    for seed in range(30):
        torch.manual_seed(seed)
        out = transform(clip)
        torch.manual_seed(seed)
        torch.randint(1, ())
        top, left = fixed_corners(12, 12)[int(torch.randint(13, ()))]
        for time in range(3):
            y, x = 12 - top, 10 + time - left
            inside = 0 <= y < 12 and 0 <= x < 12
            assert int(out[:, time].sum()) == (600 if inside else 0)
            assert not inside or int(out[0, time, y, x]) == 200


def test_resized_crop_keeps_area_and_shape_and_mirrors_half_of_the_clips():
    torch.manual_seed(0)
    mirrored = 0
    for _ in range(200):
        rows, columns, times = ResizedCrop(32, flip=True)(coordinates(2, 100, 120)).int()
        assert (columns[0] == columns[1]).all() and (rows[0] == rows[1]).all()
        height = (rows.max() - rows.min()) * 32 / 31
        width = (columns.max() - columns.min()) * 32 / 31
        assert .45 <= height * width / 12000 <= 1.06 and .7 <= width / height <= 1.43
        mirrored += int(columns[0, 0, 0] > columns[0, 0, -1])
    assert 70 < mirrored < 130
    for _ in range(30):
        columns = pretrain_transform("rrc", 32)(coordinates(2, 100, 120))[1].int()
        assert columns[0, 0, 0] < columns[0, 0, -1]                # no flip unless allowed


@pytest.mark.parametrize(("height", "width", "size"), [(40, 60, 20), (60, 40, 20), (33, 47, 20), (20, 20, 20)])
def test_views_spread_along_the_longer_side(height, width, size):
    clip = coordinates(2, height, width)
    left, middle, right = crop_views(clip, size, 3)
    assert left.shape == (3, 2, size, size)
    axis = 1 if width > height else 0
    longer = resize_short_side(clip.permute(0, 3, 1, 2), size)
    assert (left[axis, 0].int() <= middle[axis, 0].int()).all()
    end = longer[0].narrow(2 if axis else 1, longer.shape[2 + axis] - size, size)
    assert (right[:, 0] == end).all()
    assert (crop_views(clip, size, 1)[0] == pretrain_transform("center", size)(clip)).all()
    assert (crop_views(clip, size, 1)[0] == middle).all()


def test_resize_takes_the_whole_frame():
    out = pretrain_transform("resize", 10)(coordinates(2, 20, 40)).int()
    assert out.shape == (3, 2, 10, 10)
    assert out[1, 0, 0, 0] <= 3 and out[1, 0, 0, -1] >= 36 and out[0, 0, -1, 0] >= 17


def test_numpy_goes_in_as_well_and_the_rest_is_refused():
    clip = coordinates(2, 20, 40)
    assert (pretrain_transform("center", 10)(clip.numpy()) == pretrain_transform("center", 10)(clip)).all()
    with pytest.raises(ValueError, match="uint8"):
        pretrain_transform("center", 10)(clip.float())
    with pytest.raises(ValueError, match="uint8"):
        pretrain_transform("center", 10)(clip[0])
    with pytest.raises(ValueError, match="'colour'"):
        pretrain_transform("colour", 10)
