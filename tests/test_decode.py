"""Decoding: every file gives the right frames or an error that names it, in every decoder that is installed."""

import os
import pickle
import subprocess
import sys

import av
import numpy as np
import pytest
from PIL import Image
from tats.datasets.video.backends import loads, resolve_backend
from tats.datasets.video.decode import OpenVideo, VideoError, open_video
from videos import cause_of, numbers, picture, place_of_packet, write_numbered, write_sound

BACKENDS = [name for name in ("pyav", "torchcodec", "decord") if loads(name)]
TIME_LIMIT = 300


@pytest.fixture(scope="module")
def h264(tmp_path_factory):
    """30 pictures in H.264 with B-frames and a key frame every 10, the index in front."""
    options = {"g": "10", "bf": "2", "crf": "18", "sc_threshold": "0"}
    return write_numbered(tmp_path_factory.mktemp("videos") / "a b.mp4", options=options)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("indices", [[0], [29], [3, 4, 5], [9, 10, 11, 19, 20], [25, 2, 2, 17, 0, 29], range(30)])
def test_the_frames_that_were_asked_for(h264, backend, indices):
    with open_video(h264, backend) as video:
        assert video.num_frames == 30
        frames = video.read(indices)
        assert frames.shape == (len(indices), 48, 64, 3) and frames.dtype == np.uint8
        assert numbers(frames) == list(indices)
        assert numbers(video.read([7])) == [7]   # a second time, elsewhere


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("name", "codec", "pix_fmt", "options"), [
    ("a.mkv", "libx264", "yuv420p", {"g": "12", "bf": "3"}),
    ("a.mp4", "mpeg4", "yuv420p", {"g": "12", "bf": "2", "qmin": "1", "qmax": "2"}),
    ("a.avi", "mpeg4", "yuv420p", {"g": "12", "bf": "2", "qmin": "1", "qmax": "2"}),
    ("a.avi", "mpeg4", "yuv420p", {"g": "12", "qmin": "1", "qmax": "2"}),
    ("a.avi", "libx264", "yuv420p", {"g": "12"}),
    ("a.webm", "libvpx-vp9", "yuv420p", {"g": "12"}),
    ("a.mp4", "libx264", "yuv444p", {}),
    ("a.mp4", "libx264", "yuv420p10le", {}),
    ("a.mp4", "libx264", "yuv420p", {"g": "8", "x264-params": "open-gop=1:bframes=3:scenecut=0"}),
    ("a.mp4", "libx264", "yuv420p", {"x264-params": "intra-refresh=1:keyint=8"}),
])
def test_containers_codecs_and_pixel_formats(tmp_path, backend, name, codec, pix_fmt, options):
    if codec not in av.codecs_available:
        pytest.skip(f"{codec} is not built into av")
    path = write_numbered(tmp_path / name, codec=codec, pix_fmt=pix_fmt, options=options)
    with open_video(path, "pyav") as video:
        whole = video.read(range(30))
        assert numbers(whole) == list(range(30))
        for indices in ([11], [28, 29], [6, 13, 20, 27]):
            assert (video.read(indices) == whole[indices]).all()
    # What the others get wrong, after a seek or in .avi: said in their files.
    faulty = {"decord": "x264-params" in options or (codec, name) == ("mpeg4", "a.mp4"),
              "torchcodec": name == "a.avi" or "intra-refresh" in options.get("x264-params", ""), "pyav": False}
    if not faulty[backend]:
        with open_video(path, backend) as video:
            assert numbers(video.read([6, 13, 20, 27])) == [6, 13, 20, 27]


def test_grey_videos(tmp_path):
    path = write_numbered(tmp_path / "a.mp4", pix_fmt="gray")
    with open_video(path, "pyav") as video:
        frames = video.read(range(30))
    assert (frames[..., 0] == frames[..., 1]).all() and (np.diff(frames[:, 20, 10, 0].astype(int)) > 0).all()


def test_variable_frame_rate(tmp_path):
    times = np.cumsum([1, 3, 1, 7, 2] * 6).tolist()
    path = write_numbered(tmp_path / "a.mp4", times=times, options={"g": "10", "bf": "2"})
    with open_video(path, "pyav") as video:
        assert video.num_frames == 30
        assert numbers(video.read([0, 7, 13, 29])) == [0, 7, 13, 29]


def test_odd_sizes_one_frame_and_a_wrong_ending(tmp_path):
    path = write_numbered(tmp_path / "odd.mp4", 1, pix_fmt="yuv444p", size=(47, 63))
    with open_video(path) as video:
        assert video.num_frames == 1
        assert video.read([0, 0, 0]).shape == (3, 47, 63, 3)
    os.rename(path, tmp_path / "odd.avi")
    with open_video(tmp_path / "odd.avi") as video:
        assert numbers(video.read([0])) == [0]


def test_only_the_frames_of_the_codec_that_are_needed_are_decoded(h264, monkeypatch):
    from tats.datasets.video import read_pyav
    seen, take = [], read_pyav._Taken.take
    monkeypatch.setattr(read_pyav._Taken, "take", lambda self, number, frame: (seen.append(frame.pts),
                                                                               take(self, number, frame)))
    with open_video(h264, "pyav") as video:
        assert numbers(video.read([22, 25])) == [22, 25]
    assert len(seen) <= 8   # from the key frame at 20, without frames that nothing refers to


@pytest.mark.parametrize("backend", BACKENDS)
def test_missing_empty_and_foreign_files(tmp_path, backend):
    assert "No such file" in cause_of(tmp_path / "none.mp4", backend)
    (tmp_path / "zero.mp4").touch()
    assert "empty" in cause_of(tmp_path / "zero.mp4", backend)
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    assert cause_of(tmp_path / "text.mp4", backend)
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "neither a file nor a folder" in cause_of(tmp_path / "pipe.mp4", backend)
    assert cause_of(write_sound(tmp_path / "sound.mp4"), backend)


def test_sound_without_pictures_is_called_so(tmp_path):
    assert cause_of(write_sound(tmp_path / "sound.mp4")) == "no video stream"


@pytest.mark.parametrize("packet", [0, 1, 15, 29])
def test_a_file_that_was_cut_off_is_named(h264, tmp_path, packet):
    path = tmp_path / "cut.mp4"
    path.write_bytes(h264.read_bytes()[:place_of_packet(h264, packet) + 1])
    assert cause_of(path) == f"the file is cut off: {packet + 1} of 30 frames are there"   # the last one in part
    path.write_bytes(h264.read_bytes()[:200])
    assert cause_of(path)


def test_frames_that_the_index_promises_and_the_file_lacks_are_never_made_up(h264, tmp_path):
    data, start = bytearray(h264.read_bytes()), place_of_packet(h264, 15)
    data[start:] = bytes(len(data) - start)   # as long as before, the second half zero
    path = tmp_path / "holes.mp4"
    path.write_bytes(data)
    assert "of the 30 that the file announces cannot be decoded" in cause_of(path)
    with open_video(path, "pyav") as video:
        assert numbers(video.read([0, 1, 2])) == [0, 1, 2]   # what is there is still good


def test_playlists_cannot_open_other_files(h264, tmp_path):
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://{h264}\n#EXT-X-ENDLIST\n"
    (tmp_path / "list.mp4").write_text(playlist)
    assert cause_of(tmp_path / "list.mp4")
    (tmp_path / "concat.mp4").write_text(f"ffconcat version 1.0\nfile '{h264}'\n")
    assert cause_of(tmp_path / "concat.mp4")


_READ_ALL = """
import sys
from tats.datasets.video.decode import open_video
from tats.datasets.video.error import VideoError
for path in sys.argv[1:]:
    try:
        with open_video(path, "pyav") as video:
            answer = str(len(video.read(range(min(video.num_frames, 64)))))
    except VideoError as error:
        answer = str(error)
    sys.stdout.write(answer.replace(chr(10), " ") + chr(10))
    sys.stdout.flush()
"""


@pytest.mark.slow
def test_damaged_files_end_in_time(h264, tmp_path):
    """Bytes changed at random: an answer or a named error within the limit, in one process that lives on.

    A process of its own, not a fork of this one: a fork takes along locks that other threads hold.
    """
    rng, paths = np.random.default_rng(0), [tmp_path / f"{number}.mp4" for number in range(20)]
    whole = np.frombuffer(h264.read_bytes(), np.uint8)
    for number, path in enumerate(paths):
        data = whole.copy()
        places = rng.integers(0, len(data) if number % 2 else 1500, rng.integers(1, 20))
        data[places] = rng.integers(0, 256, len(places))
        data.tofile(path)
    result = subprocess.run([sys.executable, "-c", _READ_ALL, *map(str, paths)], capture_output=True, text=True,
                            timeout=TIME_LIMIT)
    assert result.returncode == 0, result.stderr
    answers = result.stdout.splitlines()
    assert len(answers) == len(paths)
    assert all(answer.isdigit() or str(path) in answer for path, answer in zip(paths, answers, strict=True))


@pytest.mark.skipif("decord" not in BACKENDS, reason="decord is not installed")
def test_widths_that_decord_misreads_are_named(tmp_path):
    for name, codec in (("a.mp4", "libx264"), ("a.avi", "mpeg4")):
        path = write_numbered(tmp_path / name, codec=codec, size=(48, 48))
        assert "use another video backend" in cause_of(path, "decord")
        with open_video(path, "pyav") as video:
            assert video.read([0]).shape == (1, 48, 48, 3)


def test_frames_of_another_size_are_named(tmp_path):
    for number, size in enumerate([(20, 30), (20, 31)]):
        Image.fromarray(picture(number, *size)).save(tmp_path / f"{number}.png")
    assert "1.png is 31x20" in cause_of(tmp_path)


def test_a_clip_too_large_for_memory_is_named(h264, monkeypatch):
    monkeypatch.setattr("tats.datasets.video.memory.MAX_CLIP_BYTES", 5 * 48 * 64 * 3)
    with open_video(h264) as video:
        assert len(video.read(range(5))) == 5
        with pytest.raises(VideoError, match="6 .*64x48"):
            video.read(range(6))


def test_folder_of_pictures_in_the_order_of_its_numbers(tmp_path):
    for number in (1, 2, 10, 9):
        Image.fromarray(picture(number)).save(tmp_path / f"img_{number}.png")
    (tmp_path / "notes.txt").write_text("x")
    with open_video(tmp_path) as video:
        assert video.num_frames == 4
        assert numbers(video.read([0, 1, 2, 3, 0])) == [1, 2, 9, 10, 1]
    (tmp_path / "img_9.png").write_bytes(b"no picture")
    with open_video(tmp_path) as video, pytest.raises(VideoError, match="img_9.png"):
        video.read([2])


def test_empty_folder_is_named(tmp_path):
    assert "no pictures" in cause_of(tmp_path)


def test_indices_outside_the_video_are_an_error(h264):
    with open_video(h264) as video:
        for indices in ([30], [-1, 0], []):
            with pytest.raises(ValueError, match=" 30"):
                video.read(indices)


def test_the_file_is_closed_whatever_happens(h264):
    def handles():
        return sum(os.path.realpath(f"/proc/self/fd/{entry}") == str(h264) for entry in os.listdir("/proc/self/fd"))

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    for backend in BACKENDS:
        with open_video(h264, backend) as video:
            video.read([0])
        with pytest.raises(RuntimeError), open_video(h264, backend):
            raise RuntimeError
    assert handles() == 0


def test_backends_are_checked_and_said_once(caplog, monkeypatch):
    from tats.datasets.video import backends
    with pytest.raises(ValueError, match="ffmpeg"):
        resolve_backend("ffmpeg")
    backends._resolve.cache_clear()
    with caplog.at_level("INFO"):
        assert resolve_backend("auto") == resolve_backend() == resolve_backend("pyav") == "pyav"
        backends._resolve.cache_clear()
        monkeypatch.setattr(backends.multiprocessing, "parent_process", lambda: "a loader's worker has one")
        assert resolve_backend() == "pyav"
    assert [record.message for record in caplog.records] == ["reading videos with pyav"]
    monkeypatch.setattr(backends, "loads", lambda name: False)
    backends._resolve.cache_clear()
    for name in ("auto", "decord"):
        with pytest.raises(ValueError, match="install"):
            resolve_backend(name)
    backends._resolve.cache_clear()


def test_the_error_survives_a_loaders_worker():
    error = VideoError("/data/a.mp4", "two\nlines")
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == "/data/a.mp4: two lines"
    text = f"Caught VideoError in worker 0.\nTraceback:\n  File x\ntats.datasets.video.error.VideoError: {error}\n"
    assert str(VideoError(text)) == "/data/a.mp4: two lines"


def test_given_clips_read_alike_in_all_decoders_or_are_named(given):
    counts = {"demo.mp4": 280, "part_0.mp4": 32, "test_video_structuralize.mp4": 300, "flipping_a_pancake.mkv": 310,
              "test.avi": 164, "video_90.mov": 3, "unordered.mov": 4}
    for name, count in counts.items():
        path = given / "clips" / name
        indices = sorted({0, count // 3, count // 2, count - 1})
        with open_video(path, "pyav") as video:
            assert isinstance(video, OpenVideo) and video.num_frames == count
            expected = video.read(indices)
        assert expected.shape[1:3] == ((568, 320) if name == "video_90.mov" else expected.shape[1:3])
        for backend in BACKENDS[1:]:
            if backend == "torchcodec" and name.endswith(".avi"):
                assert "wrong order" in cause_of(path, backend)
                continue
            with open_video(path, backend) as video:
                assert (video.read(indices) == expected).all(), (name, backend)
    for backend in BACKENDS:
        assert cause_of(given / "clips" / "corrupted.mp4", backend)
    assert "frame 28 of the 50" in cause_of(given / "clips" / "corrupted.mp4")
