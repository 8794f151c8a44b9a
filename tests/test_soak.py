"""Thousands of clips: memory and open files of a loader and of its decoder stay what they were."""

import os
import subprocess
import sys

import pytest
from tats.datasets.lists.list_file import read_list
from tats.datasets.video.backends import loads

BACKENDS = [name for name in ("pyav", "torchcodec", "decord") if loads(name)]

# Free memory goes back at once: what the allocator keeps for later, in steps of megabytes, is no leak.
ENV = os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536"}

_SOAK = """
import gc, os, sys
from pathlib import Path
import numpy as np
from tats.datasets.video.decode import VideoError, open_video
backend, seconds, count, *paths = sys.argv[1:]


def family():
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return [os.getpid(), *map(int, children)]


def measure():
    gc.collect()
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in family())
    return pages * os.sysconf("SC_PAGE_SIZE") >> 10, sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in family())


bad = 0
for number in range(int(count)):
    try:
        with open_video(paths[number % len(paths)], backend, float(seconds)) as video:
            video.read(np.arange(number % 3, video.num_frames, 3))
    except VideoError:
        bad += 1
    if (number + 1) % (int(count) // 4) == 0:
        sys.stdout.write(f"{number + 1} {bad} " + " ".join(map(str, measure())) + chr(10))
"""


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_soak(shapes, tmp_path, backend, fault, request):
    """The last three quarters may take no memory to speak of, and no file; every ninth video is a broken one."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    count = 2000 if request.config.getoption("--long") else 400
    paths = list(read_list(shapes / "train.csv").paths)[:8]
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(open(paths[0], "rb").read()[:-400])
    for seconds in (0, 60):
        done = subprocess.run([sys.executable, "-c", _SOAK, backend, str(seconds), str(count), *paths, str(broken)],
                              capture_output=True, text=True, check=True, timeout=540, env=ENV)
        rows = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
        kept, files = rows[-1][2] - rows[0][2], [row[3] for row in rows]
        assert len(rows) == 4 and max(files) - min(files) <= 1   # the last one closes while we look
        clips = rows[-1][0] - rows[0][0]
        assert kept < 1500 + 6 * clips   # KiB: the heap settles; a leaked clip of these videos would be 8 x 1.7 KiB
        where = "decoder process" if seconds else "same process"
        fault(f"{count} clips, {backend}, {where}", f"{kept / clips:+.2f} KiB a clip, {files[0]} files open")
