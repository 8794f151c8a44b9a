"""Labelled clips and the views of test videos: one decode each, right frames, broken videos named."""

import contextlib

import pytest
import torch
from tats.datasets.labelled import LabelledClips, Sampling, TestViews, Views, flatten_repeats
from tats.datasets.lists.bad_videos import BadVideos
from tats.datasets.lists.list_file import read_list
from tats.datasets.transforms.pretraining import CenterCrop
from tats.datasets.video import decode
from tats.datasets.video.decode import VideoError
from videos import Encoding, drifting, write_folder, write_list, write_video


@pytest.fixture
def clip_list(tmp_path):
    rows = [(write_folder(tmp_path / name, seed), seed % 3) for seed, name in enumerate("abc")]
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    return read_list(write_list(tmp_path / "list.csv", [*rows, (tmp_path / "broken.mp4", 2)]))


@pytest.fixture
def decodes(monkeypatch):
    """Paths that are opened."""
    opened, real = [], decode.open_video

    @contextlib.contextmanager
    def counting(path, backend, *more):
        opened.append(path)
        with real(path, backend, *more) as video:
            yield video

    monkeypatch.setattr(decode, "open_video", counting)
    return opened


class Noisy:
    """The middle of the clip, brightened at random."""

    def __call__(self, clip):
        return CenterCrop(16)(clip) // 2 + torch.randint(100, (), dtype=torch.uint8)


def test_repeats_share_a_decode_and_differ(clip_list, decodes):
    clips = LabelledClips(clip_list, Sampling("dense", 4, 2), Noisy(), repeats=3)
    sample = clips[1, 77]
    assert len(decodes) == 1 and sample.videos.shape == (3, 3, 4, 16, 16) and sample.label == 1
    shift = sample.videos.int() - sample.videos[:1].int()
    assert all(len(one.unique()) == 1 for one in shift)   # the same frames, brightened by one number each
    assert len(shift[:, 0, 0, 0, 0].unique()) == 3
    again = LabelledClips(clip_list, Sampling("dense", 4, 2), Noisy(), repeats=1)[1, 77]
    assert torch.equal(again.videos[0], sample.videos[0])
    assert not torch.equal(clips[1, 78].videos, sample.videos)
    videos, labels = flatten_repeats([sample, clips[2, 5]])
    assert videos.shape == (6, 3, 4, 16, 16) and labels.tolist() == [1, 1, 1, 2, 2, 2]
    assert torch.equal(videos[:3], sample.videos)


def test_a_broken_training_video_is_replaced_with_its_label(clip_list, tmp_path):
    clips = LabelledClips(clip_list, Sampling("dense", 4, 2), CenterCrop(16), bad_videos=BadVideos(tmp_path / "bad", 4))
    assert {clips[3, key].label for key in range(12)} == {0, 1, 2}
    assert len(BadVideos(tmp_path / "bad", 4).read()) == 1
    with pytest.raises(VideoError, match="broken"):
        LabelledClips(clip_list, Sampling("dense", 4, 2), CenterCrop(16))[3, 0]


def test_views_by_hand(clip_list, decodes):
    """12 frames at stride 2 are 0 2 4 6 8 10; two windows of four of them; three squares along 24 columns."""
    sample = TestViews(clip_list, Sampling("dense", 4, 2), Views(2, 3, 16))[2]
    assert len(decodes) == 1 and (sample.row, sample.label, sample.fault) == (2, 2, "")
    video = torch.from_numpy(drifting(2))
    expected = [video[list(times), :, left:left + 16].permute(3, 0, 1, 2)
                for times in ((0, 2, 4, 6), (4, 6, 8, 10)) for left in (0, 4, 8)]
    assert torch.equal(sample.videos, torch.stack(expected))


def test_one_segment_and_one_crop(clip_list):
    sample = TestViews(clip_list, Sampling("dense", 4, 2), Views(1, 1, 16))[0]
    expected = torch.from_numpy(drifting(0))[[2, 4, 6, 8], :, 4:20].permute(3, 0, 1, 2)
    assert torch.equal(sample.videos, expected[None])


def test_segments_style(clip_list):
    """SSv2: parts of three frames; their starts, and their middles rounded down."""
    sample = TestViews(clip_list, Sampling("segments", 4, 2), Views(2, 1, 16))[0]
    video = torch.from_numpy(drifting(0))[:, :, 4:20].permute(3, 0, 1, 2)
    assert torch.equal(sample.videos, torch.stack([video[:, [0, 3, 6, 9]], video[:, [1, 4, 7, 10]]]))


def test_validation_is_the_same_every_time(clip_list):
    views = TestViews(clip_list, Sampling("dense", 4, 2), Views(0, 1, 16))
    assert views.views.count == 1 and torch.equal(views[0].videos, views[0].videos)


def test_a_short_side_larger_than_the_crop_keeps_the_middle(tmp_path):
    path = write_folder(tmp_path / "a", 4, height=24, width=40)
    clip_list = read_list(write_list(tmp_path / "l.csv", [(path, 0)]))
    sample = TestViews(clip_list, Sampling("dense", 2, 1), Views(1, 1, 16, 24))[0]
    expected = torch.from_numpy(drifting(4, height=24, width=40))[[5, 6], 4:20, 12:28].permute(3, 0, 1, 2)
    assert torch.equal(sample.videos[0], expected)
    with pytest.raises(ValueError, match="short_side_size"):
        TestViews(clip_list, Sampling(), Views(1, 1, 16, 12))


def test_a_broken_test_video_is_flagged(clip_list):
    sample = TestViews(clip_list, Sampling("dense", 4, 2), Views(2, 3, 16))[3]
    assert sample.videos.shape == (6, 3, 4, 16, 16) and not sample.videos.any()
    assert (sample.row, sample.label) == (3, 2) and "broken.mp4" in sample.fault and "\n" not in sample.fault


def test_views_of_frames_that_are_chosen_by_their_time(tmp_path):
    """The same film at 10, 20 and 30 frames a second, lossless: what is shown at 10 and at 5 is the same."""
    film, rows = drifting(0, count=24, height=16, width=16), []
    for times in (1, 2, 3):
        path = tmp_path / f"{times}.mkv"
        frames = [frame for number, frame in enumerate(film) for frame in [frame, *[255 - frame] * (times - 1)]]
        write_video(path, frames, Encoding("ffv1", "bgr0", 10 * times))
        rows.append((path, 0))
    rows.append((write_folder(tmp_path / "pictures", 3), 0))
    clips = read_list(write_list(tmp_path / "list.csv", rows))

    def views(row, stride, fps):
        return TestViews(clips, Sampling("dense", 4, stride), Views(2, 1, 16), fps=fps)[row]

    for fps, stride in ((10, 1), (5, 2)):
        expected = views(0, stride, None).videos
        for row in range(3):
            assert torch.equal(views(row, 1, fps).videos, expected)
    assert torch.equal(views(1, 2, 10).videos, views(0, 2, None).videos)   # strides count the chosen frames
    assert not torch.equal(views(1, 1, None).videos, views(0, 1, None).videos)
    assert views(3, 1, 10).fault.endswith("a folder of pictures has no times: leave --fps out")
