"""Decoders that hang, crash or eat memory cost one video and a line of bad_videos.txt; everything else is as before."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import hostile_decoders
import numpy as np
import pytest
from processes import is_alive, wait_for
from tats.datasets.lists.list_file import read_list
from tats.datasets.video import decoder_process
from tats.datasets.video.decode import VideoError, open_video

LONG = 120   # seconds that nothing here takes, on a machine that is busy with other tests either
pytestmark = pytest.mark.skipif(not Path(f"/proc/self/task/{os.getpid()}/children").is_file(),
                                reason="needs Linux's /proc with lists of children")

CAUSES = {"sleeps": "no answer from the decoder within", "spins": "no answer from the decoder within",
          "crashes": "the decoder crashed (SIGSEGV)", "aborts": "the decoder crashed (SIGABRT)",
          "eats": "it takes more memory than a decoder may have", "fails": "the decoder failed: KeyError: 'a defect'",
          "leaves": "the decoder ended with exit code 7"}


@pytest.fixture
def hostile(shapes, tmp_path, monkeypatch):
    """24 readable videos and one of each fault, as a list."""
    monkeypatch.setattr(decoder_process, "_START", hostile_decoders.START)
    rows = list(read_list(shapes / "train.csv").paths)
    for name in CAUSES:
        shutil.copy(rows[0], tmp_path / f"{name}.mp4")
    path = tmp_path / "train.csv"
    path.write_text("\n".join([*rows, *(str(tmp_path / f"{name}.mp4") for name in CAUSES)]) + "\n")
    return path


def decoders():
    """Process numbers of this process's decoders."""
    pids = [int(pid) for tasks in Path("/proc/self/task").glob("*/children") for pid in tasks.read_text().split()]
    return [pid for pid in pids if is_alive(pid) and b"hostile_decoders" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_the_same_frames_from_the_other_process(shapes):
    paths = read_list(shapes / "train.csv").paths
    for path in list(paths)[:3]:
        with open_video(path) as here, open_video(path, seconds=60) as there:
            assert here.num_frames == there.num_frames
            for indices in ([0], [5, 2, 2, 9], range(here.num_frames)):
                assert np.array_equal(here.read(indices), there.read(indices))
            with pytest.raises(ValueError, match=str(here.num_frames)):
                there.read([here.num_frames])


def test_what_is_said_about_a_file_is_the_same(tmp_path):
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    said = []
    for seconds in (0, 60):
        for name in ("text.mp4", "none.mp4"):
            with pytest.raises(VideoError) as error, open_video(tmp_path / name, seconds=seconds):
                pass
            said.append(str(error.value))
    assert said[:2] == said[2:]


@pytest.mark.faults
@pytest.mark.slow
def test_each_fault_is_named_in_time_and_the_next_video_is_read(hostile, fault):
    paths = read_list(hostile, need_label=False).paths
    with open_video(paths[0], seconds=hostile_decoders.SECONDS) as video:
        good = video.read([0, 3])
    for path in list(paths)[-len(CAUSES):]:
        name, start = Path(path).stem, time.monotonic()
        with pytest.raises(VideoError) as error, open_video(path, seconds=hostile_decoders.SECONDS):
            pass
        assert str(error.value).startswith(f"{path}: {CAUSES[name]}")
        assert time.monotonic() - start < LONG
        with open_video(paths[0], seconds=hostile_decoders.SECONDS) as video:
            assert np.array_equal(video.read([0, 3]), good)
        assert len(decoders()) == 1
        fault(f"a decoder that {name}", f"ended: {error.value.cause}")


@pytest.mark.faults
@pytest.mark.slow
def test_a_loader_gives_the_same_clips_whatever_its_decoders_do(hostile, tmp_path, fault):
    """With two workers and without any: same clips in the same order, the files noted once with their causes."""
    names = ("spins", "crashes", "fails")
    rows = hostile.read_text().splitlines()
    hostile.write_text("\n".join(rows[:8] + [row for row in rows if Path(row).stem in names]) + "\n")
    here = hostile_decoders.hashes(hostile, tmp_path / "bad0.txt", 0)
    command = [sys.executable, hostile_decoders.__file__, str(hostile), str(tmp_path / "bad2.txt"), "2"]
    there = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5 * LONG).stdout.splitlines()
    assert here == there and len(here) == 8 + len(names)
    for name in ("bad0.txt", "bad2.txt"):
        noted = (tmp_path / name).read_text().splitlines()
        assert sorted(Path(line.split(":")[0]).stem for line in noted) == sorted(names)
        assert all(CAUSES[Path(line.split(":")[0]).stem] in line for line in noted)
    fault(f"{len(names)} decoder faults in one epoch, 2 workers", "each replaced and noted once",
          "nothing: other clips unchanged")


@pytest.mark.faults
def test_a_decoder_that_somebody_ends_costs_nothing(hostile, fault):
    paths = read_list(hostile, need_label=False).paths
    with open_video(paths[0], seconds=hostile_decoders.SECONDS) as video:
        before = video.read([1])
        for _ in range(3):
            decoder, = decoders()
            os.kill(decoder, signal.SIGKILL)
            assert np.array_equal(video.read([1]), before)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):   # as a scheduler sends to all processes
            decoder, = decoders()
            os.kill(decoder, number)
            assert np.array_equal(video.read([1]), before) and decoders() == [decoder]
    fault("decoder killed from outside", "the clip is decoded again")


@pytest.mark.faults
@pytest.mark.slow
def test_a_decoder_that_hangs_ends_though_its_loader_is_gone(hostile, fault):
    path = hostile.parent / "spins.mp4"
    source = f"""
import os, sys, hostile_decoders
from tats.datasets.video import decoder_process
decoder_process._START = hostile_decoders.START
decoder = decoder_process._Decoder("pyav", .1)
decoder._start()
decoder._pipe.send_bytes(b'{{"path": "{path}", "wanted": null, "frame_pattern": ""}}')
sys.stdout.write(str(decoder._process.pid))
sys.stdout.flush()
os._exit(0)
"""
    env = os.environ | {"PYTHONPATH": str(Path(hostile_decoders.__file__).parent)}
    pid = int(subprocess.run([sys.executable, "-c", source], capture_output=True, check=True, env=env).stdout)
    wait_for(lambda: not is_alive(pid), LONG)
    fault("loader killed while its decoder hangs", "the decoder ends by itself")


def test_a_decoder_is_renewed_after_many_clips(hostile, monkeypatch):
    monkeypatch.setattr(decoder_process, "RENEWED_AFTER", 3)
    path, pids = read_list(hostile, need_label=False).paths[0], []
    for _ in range(7):
        with open_video(path, seconds=77) as video:
            video.read([0])
            pids.append(video._reader._decoder()._process.pid)
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]


def test_an_interrupted_question_does_not_answer_the_next(shapes, monkeypatch):
    """Ctrl-C in a notebook while a clip is on its way: the next video gives its own pictures."""
    first, second = list(read_list(shapes / "train.csv").paths)[:2]
    with open_video(second) as here:
        expected = here.read([0, 5])
    reader = decoder_process.GuardedReader(first, "pyav", 61)

    def interrupted(seconds):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(reader._decoder()._pipe), "poll", lambda pipe, seconds: interrupted(seconds))
        with pytest.raises(KeyboardInterrupt):
            reader.decode([1, 2])
    with open_video(second, "pyav", 61) as there:
        assert np.array_equal(there.read([0, 5]), expected)


def test_a_loader_that_leaves_in_the_middle_of_a_clip_is_no_error(shapes, capfd):
    path = str(read_list(shapes / "train.csv").paths[0])
    decoder = decoder_process._Decoder("pyav", 60)
    decoder._start()
    for _ in range(3):
        decoder._pipe.send_bytes(json.dumps({"path": path, "wanted": list(range(10)), "frame_pattern": ""}).encode())
    decoder._pipe.close()
    assert decoder._process.wait(LONG) == 0 and capfd.readouterr().err == ""
