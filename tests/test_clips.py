"""Pre-training clips: the same for the same key in any worker, other ones in every epoch, and what a bad video does."""

import pytest
import torch
from tats.datasets.clips import ClipShape, PretrainClips, PretrainSample, RepeatedClips, joined_clips
from tats.datasets.lists.bad_videos import MAX_REPLACEMENTS, BadVideos, TooManyBadVideos, replacement_row
from tats.datasets.lists.epoch_order import EpochSampler
from tats.datasets.lists.list_file import read_list
from tats.datasets.transforms.pretraining import pretrain_transform
from tats.datasets.video.backends import loads
from tats.datasets.video.decode import Decoding, OpenVideo, VideoError
from torch.utils.data import DataLoader

TOKENS = 4 * 6 * 6


class HalfMask:
    """Hides half of the tokens at random."""

    def __call__(self):
        return torch.rand(TOKENS).argsort() < TOKENS // 2


class NoMask:
    """Draws nothing."""

    def __call__(self):
        return torch.zeros(TOKENS, dtype=torch.bool)


def clips_of(path, masking=None, **options):
    # Decoded in another process, as programs do: the loaders' workers here are forks of a process that has threads.
    return PretrainClips(read_list(path, need_label=False), ClipShape(8, 1), pretrain_transform("multiscale", 24),
                         masking or HalfMask(), **{"decoding": Decoding("auto", 60)} | options)


def epoch_of(clips, epoch, workers=0, batch_size=4):
    sampler = EpochSampler(len(clips), seed=5)
    sampler.set_epoch(epoch)
    batches = iter(DataLoader(clips, batch_size=batch_size, sampler=sampler, num_workers=workers))
    try:
        return PretrainSample(*map(torch.cat, zip(*batches, strict=True)))
    finally:
        if workers:
            batches._shutdown_workers()   # after an error torch would do it at some garbage collection, in 5 s a worker


@pytest.fixture(scope="module")
def whole_epoch(shapes):
    return epoch_of(clips_of(shapes / "train.csv"), 2)


def test_a_batch_is_what_the_networks_take(whole_epoch):
    assert whole_epoch.video.shape == (24, 3, 8, 24, 24) and whole_epoch.video.dtype == torch.uint8
    assert whole_epoch.mask.shape == (24, TOKENS) and whole_epoch.mask.dtype == torch.bool
    assert (whole_epoch.mask.sum(1) == TOKENS // 2).all()
    assert whole_epoch.key.dtype == torch.int64 and len(set(whole_epoch.key.tolist())) == 24


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_and_batches_change_nothing(shapes, whole_epoch, workers):
    torch.manual_seed(123)   # the state of the main process is of no account either
    again = epoch_of(clips_of(shapes / "train.csv"), 2, workers, batch_size=3)
    for one, other in zip(whole_epoch, again, strict=True):
        assert torch.equal(one, other)


def test_two_epochs_differ_in_order_crop_time_and_mask(shapes, whole_epoch):
    clips = clips_of(shapes / "train.csv")
    other = epoch_of(clips, 3)
    assert not set(whole_epoch.key.tolist()) & set(other.key.tolist())
    samples = [clips[7, key] for key in range(6)]
    assert len({sample.video.numpy().tobytes() for sample in samples}) == 6
    assert len({sample.mask.numpy().tobytes() for sample in samples}) == 6


@pytest.mark.parametrize("repeats", [1, 3])
def test_several_clips_of_one_opened_video(shapes, monkeypatch, repeats):
    """Each is what its key gives alone; the first is the clip of a run without them; nothing is decoded twice."""
    rows = read_list(shapes / "train.csv", need_label=False)
    made = (rows, ClipShape(4, 2), pretrain_transform("rrc", 24), HalfMask(), Decoding("pyav"))
    several, single, read = RepeatedClips(*made, repeats=repeats), PretrainClips(*made), []
    real = OpenVideo.read
    with monkeypatch.context() as patch:
        patch.setattr(OpenVideo, "read", lambda video, indices: read.append(indices) or real(video, indices))
        samples = [several[row, 100 + row] for row in (0, 1)]
    assert len(read) == 2 and all(len(indices) == 4 * repeats for indices in read)
    for row, sample in enumerate(samples):
        assert sample.key[0] == 100 + row and len(set(sample.key.tolist())) == repeats
        for place, key in enumerate(sample.key.tolist()):
            alone = single[row, key]
            assert torch.equal(sample.video[place], alone.video) and torch.equal(sample.mask[place], alone.mask)
    starts = {int(indices[4 * repeat]) for indices in read for repeat in range(repeats)}
    assert repeats == 1 or len(starts) > 1 and len({clip.numpy().tobytes() for clip in samples[0].video}) == repeats
    batch = joined_clips(samples)
    assert batch.video.shape == (2 * repeats, 3, 4, 24, 24) and isinstance(batch, PretrainSample)
    assert torch.equal(batch.mask[-1], samples[-1].mask[-1]) and batch.key.tolist()[:repeats] == samples[0].key.tolist()


def test_masking_does_not_change_the_clip(shapes):
    masked, plain = clips_of(shapes / "train.csv"), clips_of(shapes / "train.csv", NoMask())
    assert all(torch.equal(masked[3, key].video, plain[3, key].video) for key in range(5))


def test_the_clip_leaves_the_global_generators_alone(shapes):
    clips = clips_of(shapes / "train.csv")
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    clips[0, 1]
    assert torch.equal(torch.rand(3), expected)


@pytest.fixture
def list_with_a_bad_one(shapes, tmp_path):
    rows = (shapes / "train.csv").read_text().splitlines()
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    rows[5] = f"{tmp_path / 'broken.mp4'} 3"
    path = tmp_path / "train.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_video_ends_the_epoch_with_its_name_in_one_line(list_with_a_bad_one, workers):
    with pytest.raises(VideoError) as error:
        epoch_of(clips_of(list_with_a_bad_one), 0, workers)
    assert "broken.mp4: " in str(error.value) and "\n" not in str(error.value)


def test_a_bad_video_is_replaced_and_listed_once(list_with_a_bad_one, tmp_path):
    bad = BadVideos(tmp_path / "bad_videos.txt", 24, .05)
    clips = clips_of(list_with_a_bad_one, bad_videos=bad)
    first = epoch_of(clips, 0)
    again = epoch_of(clips, 0, workers=2)
    assert torch.equal(first.video, again.video) and len(first.video) == 24
    assert len(bad.read()) == 1
    assert bad.read()[0].startswith(f"{tmp_path / 'broken.mp4'}: Invalid data")
    sample, stand_in = clips[5, 77], replacement_row(77, 1, 24)
    assert torch.equal(sample.video, clips[stand_in, 77].video) and stand_in != 5
    assert sample.key == 77


def test_too_many_bad_videos_end_the_run(shapes, tmp_path):
    rows = (shapes / "train.csv").read_text().splitlines()
    for row in (1, 4, 9):
        rows[row] = f"/nowhere/{row}.mp4 0"
    (tmp_path / "train.csv").write_text("\n".join(rows))
    for workers in (0, 2):
        bad = BadVideos(tmp_path / f"bad{workers}.txt", 24, .09)   # two of 24
        with pytest.raises(TooManyBadVideos) as error:
            epoch_of(clips_of(tmp_path / "train.csv", bad_videos=bad), 0, workers)
        message = str(error.value)
        assert message.startswith("3 of 24 videos cannot be read, 2 are allowed") and "\n" not in message
        assert len(bad.read()) == 3


def test_a_list_of_bad_videos_only_ends_as_well(tmp_path):
    (tmp_path / "train.csv").write_text("/nowhere/a.mp4 0\n" * 5)   # one path five times: never more than one bad one
    clips = clips_of(tmp_path / "train.csv", bad_videos=BadVideos(tmp_path / "bad.txt", 5, 1.))
    with pytest.raises(TooManyBadVideos, match=f"{MAX_REPLACEMENTS} "):
        clips[0, 0]


def test_a_hostile_name_stays_in_its_line(tmp_path):
    bad = BadVideos(tmp_path / "bad.txt", 100, .5)
    for _ in range(2):
        bad.add(VideoError("/data/a\n/data/good.mp4", "no such file"))
    assert bad.read() == ["/data/a\\n/data/good.mp4: no such file"]


def test_fractions_outside_zero_and_one_are_refused(tmp_path):
    with pytest.raises(ValueError, match="max_bad_fraction"):
        BadVideos(tmp_path / "bad.txt", 10, 1.5)


@pytest.mark.parametrize("backend", [name for name in ("pyav", "decord") if loads(name)])
def test_an_epoch_over_the_given_clips(given, tmp_path, backend):
    names = ["demo.mp4", "part_0.mp4", "test_video_structuralize.mp4", "flipping_a_pancake.mkv", "test.avi",
             "video_90.mov", "unordered.mov"]
    path = tmp_path / "clips.csv"
    path.write_text("".join(f"{given / 'clips' / name}\n" for name in names))
    clips = PretrainClips(read_list(path, need_label=False), ClipShape(16, 4), pretrain_transform("multiscale", 64),
                          HalfMask(), Decoding(backend, 60))
    loader = DataLoader(clips, batch_size=7, sampler=EpochSampler(7), num_workers=2)
    batch, = loader
    assert batch.video.shape == (7, 3, 16, 64, 64)
    assert (batch.video.float().std(dim=(1, 2, 3, 4)) > 5).sum() == 6   # unordered.mov is white
    (tmp_path / "one.csv").write_text(f"{given / 'clips' / 'corrupted.mp4'}\n")
    bad = PretrainClips(read_list(tmp_path / "one.csv", need_label=False), ClipShape(16, 2),
                        pretrain_transform("multiscale", 64), HalfMask(), Decoding(backend))
    with pytest.raises(VideoError, match="corrupted.mp4"):
        for key in range(20):
            bad[0, key]
