"""Hostile videos, lists and folders by the hundred: none hangs, none ends the run, none is silently another picture."""

import concurrent.futures
import time
from collections import Counter
from concurrent.futures.process import BrokenProcessPool

import av
import numpy as np
import pytest
from PIL import Image
from tats.datasets.lists.list_file import read_list
from tats.datasets.processes.parallel import process_pool
from tats.datasets.video.decode import VideoError, open_video
from videos import mutated, numbers, picture, write_numbered

SECONDS = 10   # what a decoder may take over a file
LONG = 120     # what nothing takes, on a machine that is busy
SIZE = (48, 64)
FRAMES = 20
B_FRAMES = {"g": "8", "bf": "2", "sc_threshold": "0"}
SOURCES = {"a.mp4": ("libx264", B_FRAMES), "a.mkv": ("libx264", B_FRAMES), "a.ts": ("libx264", B_FRAMES),
           "b.ts": ("mpeg2video", {"g": "8", "bf": "2"}), "a.avi": ("mpeg4", {"g": "8"}),
           "a.mov": ("mpeg4", {"bf": "2"}),
           "a.webm": ("libvpx-vp9", {"g": "8", "cpu-used": "8", "lag-in-frames": "0"}), "a.flv": ("flv", {})}
TOLERANCE = 3.   # mean difference of a picture, of 255


def count(request):
    return 500 if request.config.getoption("--long") else 60


def by_ffmpeg(path):
    """Every picture that comes out in order, concealed where damaged; in a process of its own."""
    frames = []
    try:
        with av.open(path, metadata_errors="ignore") as container:
            stream = container.streams.video[0]
            for packet in container.demux(stream):
                try:
                    frames += [frame.to_ndarray(format="rgb24") for frame in packet.decode()]
                except (av.FFmpegError, OSError):
                    pass
    except (av.FFmpegError, OSError, IndexError):
        pass
    return [frame for frame in frames if frame.shape == (*SIZE, 3)]


class Reference:
    """`by_ffmpeg` of one file after the other; None where that hangs or crashes."""

    def __call__(self, path):
        try:
            with process_pool(1) as pool:
                return pool.submit(by_ffmpeg, str(path)).result(LONG)
        except (BrokenProcessPool, concurrent.futures.TimeoutError):
            return None


def differences(frame, others):
    return [float(np.abs(frame.astype(int) - other).mean()) for other in others]


@pytest.mark.faults
@pytest.mark.slow
def test_mutated_videos(tmp_path, request, fault):
    """Each picture that is given is the file's own at that place, as FFmpeg shows it or as it was before."""
    rng, total, found, wrong = np.random.default_rng(1), count(request), Counter(), []
    sources = {name: write_numbered(tmp_path / name, FRAMES, SIZE, codec=codec, options=options).read_bytes()
               for name, (codec, options) in SOURCES.items()}
    originals = {}
    for name in sources:
        with open_video(tmp_path / name, "pyav") as video:
            originals[name] = video.read(range(video.num_frames))
    suspects = []
    for number in range(total):
        name = list(sources)[number % len(sources)]
        path = tmp_path / f"{number}-{name}"
        path.write_bytes(mutated(sources[name], rng))
        start = time.monotonic()
        try:
            with open_video(path, "pyav", SECONDS) as video:
                asked = np.unique(np.linspace(0, video.num_frames - 1, 8).astype(int))
                frames = video.read(asked)
        except VideoError as error:
            assert "\n" not in str(error) and str(error).startswith(f"{path}: ")
            found["hung" if "no answer" in error.cause else "crashed" if "crashed" in error.cause else
                  "failed" if "failed" in error.cause else "named"] += 1
        else:
            found["read"] += 1
            suspects.append((path, name, asked, frames))
        assert time.monotonic() - start < LONG
    for path, name, asked, frames in suspects:
        places = [at for at, frame in zip(asked, frames, strict=True) if frame.shape != (*SIZE, 3) or
                  at >= len(originals[name]) or differences(frame, [originals[name][at]])[0] > TOLERANCE]
        if not places:
            found["as before"] += 1
            continue
        shown = Reference()(path)
        if shown is None:
            found["FFmpeg hung or crashed"] += 1
            continue
        if frames.shape[1:] != (*SIZE, 3):
            found["another size"] += 1
            continue
        # By the file's times, which may have been changed: what is shown at another place comes there.
        bad = [at for at in places if min(differences(frames[list(asked).index(at)], shown), default=255) > TOLERANCE]
        found["as FFmpeg shows it"] += not bad
        if bad:
            wrong.append((path.name, bad, len(shown)))
    said = ", ".join(f"{what} {times}" for what, times in found.items())
    fault(f"{total} mutated videos", said)
    assert found["failed"] == 0, said   # a defect of the reader
    assert not wrong, wrong


@pytest.mark.faults
def test_mutated_lists(tmp_path, request, fault):
    """A row whose line is as it was says what it said, whatever happened to others, or the list is refused."""
    rng, total, found = np.random.default_rng(2), count(request), Counter()
    for number in range(total):
        separator = " ,\t;"[number % 4]
        columns = [lambda row: (row % 7,), lambda row: (1, 30 + row, row % 7), lambda row: ()][number % 3]
        lines = [separator.join(map(str, (f"/d/v{row}" + (".mp4" if number % 3 != 1 else ""), *columns(row))))
                 for row in range(12)]
        content = "\n".join(lines).encode("utf-16" if number % 5 == 0 else "utf-8")
        path = tmp_path / f"{number}.csv"
        path.write_bytes(mutated(content, rng))
        try:
            rows = read_list(path, need_label=number % 3 != 2)
        except ValueError as error:
            assert "\n" not in str(error) and str(path) in str(error)
            found["refused"] += 1
            continue
        found["read"] += 1
        text = path.read_bytes().decode("utf-16" if number % 5 == 0 else "utf-8", "surrogateescape").split("\n")
        for row, line in enumerate(rows.lines.tolist()):
            if text[line - 1] in lines:
                name, *numbers_of = text[line - 1].split(separator)
                assert rows.paths[row] == name and (not numbers_of or rows.labels[row] == int(numbers_of[-1]))
    fault(f"{total} mutated lists", ", ".join(f"{what} {times}" for what, times in found.items()))


@pytest.mark.faults
def test_mutated_folders(tmp_path, request, fault):
    """Pictures come in the order of their numbers, each once, or the folder is refused with its reason."""
    rng, total, found = np.random.default_rng(3), count(request), Counter()
    for number in range(total):
        folder = tmp_path / str(number)
        folder.mkdir()
        ending = [".png", ".jpg", ".bmp", ".webp"][number % 4]
        for frame in range(1, 7):
            Image.fromarray(picture(frame, *SIZE)).save(folder / f"img_{frame:03d}{ending}")
        for _ in range(int(rng.integers(1, 4))):
            spoil(folder, sorted(path for path in folder.iterdir() if path.is_file()), rng)
        try:
            with open_video(folder, seconds=0 if number % 10 else SECONDS) as video:
                shown = numbers(video.read(range(video.num_frames)))
        except VideoError as error:
            assert str(error).startswith(f"{folder}: ") and "\n" not in str(error)
            found["refused"] += 1
        else:
            found["read"] += 1
            names = [path.name for path in sorted(folder.iterdir()) if path.name.startswith("img_")]
            assert shown == [int(name[4:7]) for name in names], (names, shown)
    fault(f"{total} mutated folders", ", ".join(f"{what} {times}" for what, times in found.items()))


def spoil(folder, paths, rng):
    """One of: bytes of a picture changed or cut off, a picture lost, doubled under another name, files of systems."""
    path = paths[int(rng.integers(len(paths)))]
    kind = rng.integers(7)
    if kind == 0:
        path.write_bytes(path.read_bytes()[:int(rng.integers(1, max(2, path.stat().st_size)))])
    elif kind == 1:
        path.write_bytes(b"no picture" * int(rng.integers(1, 9)))
    elif kind == 2:
        path.unlink()
    elif kind == 3:
        (folder / f"copy of {path.name}").write_bytes(path.read_bytes())
    elif kind == 4:
        (folder / f"flow_x_{path.name[-7:]}").write_bytes(path.read_bytes())
    elif kind == 5:
        for name in ("._" + path.name, ".DS_Store", "Thumbs.db", "notes.txt"):
            (folder / name).write_bytes(b"\0\5\26\7")
    else:
        (folder / f"sub{int(rng.integers(9))}.png").mkdir(exist_ok=True)
