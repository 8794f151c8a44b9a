"""Windows that slide over long videos: their frames and times by hand, their features, and a run that was stopped."""

import re

import h5py
import numpy as np
import pytest
import torch
from tats.datasets.lists.list_file import read_list
from tats.datasets.video.decode import open_video
from tats.datasets.windows import NoTimes, WindowClips, Windows, frame_times, sampled
from tats.engines import extract_features
from tats.engines.runs import window_features
from tats.models import create_model
from videos import write_drifting, write_folder, write_list

MODEL = {"num_classes": 6, "img_size": 16, "all_frames": 4}


def test_windows_in_frames_by_hand():
    times = np.arange(11) / 10   # ten frames
    assert Windows.parse("4", "3").spans(times).tolist() == [[0, 4], [3, 7], [6, 10]]
    assert Windows.parse("4", "4").spans(times).tolist() == [[0, 4], [4, 8]]     # whole windows only
    assert Windows.parse("10", "1").spans(times).tolist() == [[0, 10]]
    assert Windows.parse("64", "16").spans(times).tolist() == [[0, 10]]          # shorter than a window: one
    starts, ends = Windows.parse("4", "3").seconds(np.array([[0, 4], [3, 7]]), times)
    assert starts.tolist() == [0, .3] and ends == pytest.approx([.4, .7])


def test_windows_in_seconds_by_hand():
    """Frames at uneven times: 0, 1, 1.5, 3.5 s, the last one shown until 4."""
    times = np.array([0, 1, 1.5, 3.5, 4])
    windows = Windows.parse("1s", "1.0s")
    spans = windows.spans(times)
    assert spans.tolist() == [[0, 1], [1, 3], [3, 4], [3, 4]]   # nothing is shown anew from 2 to 3: the next frame
    assert [part.tolist() for part in windows.seconds(spans, times)] == [[0, 1, 2, 3], [1, 2, 3, 4]]
    assert Windows.parse("9s", "1s").seconds(np.array([[0, 4]]), times)[1].tolist() == [4.0]


def test_frames_of_a_window_by_hand():
    assert sampled((8, 12), 4).tolist() == [8, 9, 10, 11]
    assert sampled((0, 8), 4).tolist() == [1, 3, 5, 7]
    assert sampled((5, 7), 4).tolist() == [5, 5, 6, 6]


@pytest.mark.parametrize("given", [("64", "16s"), ("0", "4"), ("4", "0"), ("2.5", "1"), ("a", "b"), ("-4", "4")])
def test_windows_that_cannot_be_are_refused(given):
    with pytest.raises(ValueError, match="--windows"):
        Windows.parse(*given)


def test_times_of_a_file(tmp_path):
    path = write_drifting(tmp_path / "a.mp4", 1, count=10)   # 25 frames a second
    np.testing.assert_allclose(frame_times(str(path), 0, 10), np.arange(11) / 25, atol=1e-9)
    np.testing.assert_allclose(frame_times(str(path), 0, 10, fps=5), np.arange(11) / 5)
    with pytest.raises(NoTimes, match="a folder of pictures has no times"):
        frame_times(str(write_folder(tmp_path / "f", 1)), 0, 12)
    pictures = read_list(write_list(tmp_path / "list.csv", [(tmp_path / "f", 0)]))
    (chunk,) = WindowClips(pictures, [0], Windows.parse("1s", "1s"), (4, 16))
    assert chunk.fault.endswith("a folder of pictures has no times: --fps says how many are shown a second")


@pytest.fixture(scope="module")
def long_videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("long")
    rows = [(write_drifting(folder / "a.mp4", 1, count=40), 0), (folder / "gone.mp4", 1),
            (write_drifting(folder / "b.mp4", 2, count=3), 5), (write_drifting(folder / "c.mp4", 3, count=90), 2)]
    write_list(folder / "list.csv", rows)
    torch.manual_seed(0)
    torch.save({"model": create_model("vit_tats_tiny", **MODEL).state_dict(),
                "config": {"name": "vit_tats_tiny", "kwargs": MODEL}}, folder / "weights.pth")
    return folder


def extracted(folder, out, *more):
    extract_features.main(["--checkpoint", str(folder / "weights.pth"), "--list", str(folder / "list.csv"), "--out",
                           str(out), "--num_workers", "0", "--device", "cpu", "--batch_size", "8", *more])
    return out


def net_of(folder):
    net = create_model("vit_tats_tiny", **MODEL | {"num_classes": 0})
    weights = torch.load(folder / "weights.pth", weights_only=True)["model"]
    net.load_state_dict({name: value for name, value in weights.items() if not name.startswith("head.")})
    return net.eval()


def test_features_of_windows(long_videos, tmp_path):
    """Against the network on clips that are cut out by hand; .npz and .h5 hold the same."""
    with np.load(extracted(long_videos, tmp_path / "f.npz", "--windows", "8", "4")) as stored:
        found = dict(stored)
    assert found["row"].tolist() == [0] * 9 + [2] + [3] * 21
    assert found["readable"].tolist() == [True, False, True, True] and found["labels"].tolist() == [0, 1, 5, 2]
    assert "No such file" in found["notes"][1] and not (tmp_path / "f.npz.parts").exists()
    np.testing.assert_allclose(found["start"][:9], np.arange(9) * .16, atol=1e-9)
    np.testing.assert_allclose(found["end"][:9], np.arange(9) * .16 + .32, atol=1e-9)
    with open_video(long_videos / "a.mp4") as video:
        frames = torch.from_numpy(video.read([5, 7, 9, 11]))[:, :, 4:20]   # 16 x 24: the middle square
    mean, std = torch.tensor([.485, .456, .406]), torch.tensor([.229, .224, .225])
    clip = ((frames / 255 - mean) / std).permute(3, 0, 1, 2)[None]
    with torch.no_grad():
        expected = net_of(long_videos).forward_features(clip)[0]
    torch.testing.assert_close(torch.from_numpy(found["features"][1]), expected)
    with h5py.File(extracted(long_videos, tmp_path / "f.h5", "--windows", "8", "4"), "r") as file:
        assert list(file) == [f"{row:08d}" for row in range(4)]
        np.testing.assert_allclose(file["00000003/features"], found["features"][found["row"] == 3], atol=1e-5)
        assert file["00000001/features"].shape[0] == 0 and "No such file" in file["00000001"].attrs["note"]
        assert (file["00000002"].attrs["path"], file["00000002"].attrs["label"]) == (str(long_videos / "b.mp4"), 5)


def test_features_of_tokens(long_videos, tmp_path):
    with np.load(extracted(long_videos, tmp_path / "f.npz", "--windows", "0.32s", "0.16s", "--per_token")) as stored:
        assert stored["features"].shape == (31, 32, 96)
        np.testing.assert_allclose(stored["start"][:3], [0, .16, .32])
    with np.load(extracted(long_videos, tmp_path / "g.npz", "--per_token")) as stored:
        assert stored["features"].shape == (4, 32, 96) and not stored["features"][1].any()
        tokens = torch.from_numpy(stored["features"][0])
    with np.load(extracted(long_videos, tmp_path / "h.npz")) as stored:
        pooled = torch.from_numpy(stored["features"][0])
    # fc_norm is fresh: without weights, so the norm of the mean is near the mean of the normed, in direction
    assert torch.cosine_similarity(tokens.mean(dim=0), pooled, dim=0) > .95


def test_a_stopped_run_goes_on(long_videos, tmp_path, monkeypatch):
    whole = extracted(long_videos, tmp_path / "whole.npz", "--windows", "8", "4")
    write, done = window_features.Parts.write, []

    def stopping(self, row, *arguments, **named):
        write(self, row, *arguments, **named)
        done.append(row)
        if len(done) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(window_features.Parts, "write", stopping)
    with pytest.raises(KeyboardInterrupt):
        extracted(long_videos, tmp_path / "f.npz", "--windows", "8", "4")
    parts = tmp_path / "f.npz.parts"
    (parts / "00000002.npz").write_bytes(b"half")   # a damaged one is made anew
    with pytest.raises(ValueError, match=re.escape(str(parts))):
        extracted(long_videos, tmp_path / "f.npz", "--windows", "8", "8")
    extracted(long_videos, tmp_path / "f.npz", "--windows", "8", "4")
    assert done == [0, 1, 1, 2, 3]   # a video that could not be read is tried again
    with np.load(whole) as one, np.load(tmp_path / "f.npz") as two:
        assert all(np.array_equal(one[name], two[name]) for name in one.files)


def test_the_workers_share_out_the_videos(long_videos):
    from tats.datasets.lists.list_file import read_list
    from torch.utils.data import DataLoader

    dataset = WindowClips(read_list(long_videos / "list.csv"), range(4), Windows(8, 4, False), (4, 16))
    chunks = list(DataLoader(dataset, None, num_workers=2))
    counts = {row: sum(len(chunk.clips) for chunk in chunks if chunk.row == row) for row in range(4)}
    assert counts == {0: 9, 1: 0, 2: 1, 3: 21}
    assert sum(chunk.last for chunk in chunks) == 4


@pytest.mark.parametrize(("flags", "said"), [
    (("--windows", "8", "4", "--segments", "5"), "--segments"),
    (("--windows", "8", "4", "--sampling_rate", "2"), "--sampling_rate"),
    (("--windows", "8", "4", "--data_set", "SSV2"), "--data_set"), (("--fps", "10"), "--fps"),
    (("--out", "f.h5"), "f.h5"), (("--batch_size", "0"), "--batch_size"), (("--segments", "0"), "--segments")])
def test_flags_that_would_mean_nothing_are_refused(flags, said, long_videos, tmp_path):
    with pytest.raises(ValueError, match=said):
        extracted(long_videos, tmp_path / "f.npz", *flags)


@pytest.mark.parametrize("windows", [(), ("--windows", "8", "4")], ids=["views", "windows"])
def test_a_place_that_cannot_be_written_is_told_before_the_work(windows, long_videos, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.npz").mkdir()
    monkeypatch.setattr(extract_features, "extract", lambda *_: pytest.fail("worked"))
    monkeypatch.setattr(extract_features, "evaluate_rows", lambda *_: pytest.fail("worked"))
    for name in ("folder.npz", "file/f.npz"):
        with pytest.raises(ValueError, match=f"{name} cannot be written"):
            extracted(long_videos, tmp_path / name, *windows)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.npz"]


def test_parts_say_in_what_they_differ(tmp_path):
    window_features.Parts(tmp_path / "f.npz", {"windows": (8, 4, False), "fps": None})
    window_features.Parts(tmp_path / "f.npz", {"windows": (8, 4, False), "fps": None})
    with pytest.raises(ValueError, match="another fps, windows"):
        window_features.Parts(tmp_path / "f.npz", {"windows": (8, 2, False), "fps": 5.0})
    for damaged in (b"\xff\xfe", b"{", b"1"):
        (tmp_path / "f.npz.parts" / "identity.json").write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged"):
            window_features.Parts(tmp_path / "f.npz", {"windows": (8, 4, False), "fps": None})
