"""Video files made to harm: bytes changed at random, headers that announce what is not there, playlists."""

import os
import struct
import time

import numpy as np
import pytest
from tats.datasets.video.backends import loads
from tats.datasets.video.decode import VideoError, open_video
from videos import Encoding, mutated, picture, write_video

BACKENDS = [name for name in ("pyav", "torchcodec", "decord") if loads(name)]
SECONDS = 5
SOURCES = {"a.mp4": "libx264", "a.mkv": "libx264", "a.avi": "mpeg4", "b.mp4": "mpeg4"}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """name -> content of small videos of 24 pictures."""
    folder, contents = tmp_path_factory.mktemp("sources"), {}
    for name, codec in SOURCES.items():
        write_video(folder / name, map(picture, range(24)), Encoding(codec, options={"g": "8"}))
        contents[name] = (folder / name).read_bytes()
    return contents


def what_happens(path, backend):
    """The number of frames that were read, or the cause why not; never anything else, and in time."""
    start = time.monotonic()
    try:
        with open_video(path, backend, SECONDS) as video:
            answer = len(video.read(np.unique(np.linspace(0, video.num_frames - 1, 8).astype(int))))
    except VideoError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
        answer = error.cause
    assert time.monotonic() - start < 4 * SECONDS + 120   # opening and reading, each perhaps twice; new processes
    return answer


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_mutated_videos_are_read_or_named(sources, tmp_path, backend, fault, request):
    few = 40 if backend == BACKENDS[0] else 12   # the default decoder's
    count, rng = 200 if request.config.getoption("--long") else few, np.random.default_rng(7)
    answers = []
    for number in range(count):
        name = list(sources)[number % len(sources)]
        path = tmp_path / f"{number}{name}"
        path.write_bytes(mutated(sources[name], rng))
        answers.append(what_happens(path, backend))
    assert sorted(os.listdir(tmp_path)) == sorted(f"{n}{list(sources)[n % len(sources)]}" for n in range(count))
    named = [answer for answer in answers if isinstance(answer, str)]
    assert len(named) > count // 10
    ended = sum("no answer" in answer for answer in named)
    crashed = sum("crashed" in answer or "memory" in answer for answer in named)
    fault(f"{count} mutated videos, {backend}", f"{count - len(named)} read, {len(named)} named ({ended} hung, "
                                                f"{crashed} crashed)")


def patched(content, box, offset, value):
    """`value` (uint32) written `offset` bytes after each name of a box of .mp4."""
    data, start = bytearray(content), content.find(box)
    assert start > 0
    while start > 0:
        data[start + offset:start + offset + 4] = struct.pack(">I", value)
        start = content.find(box, start + 1)
    return bytes(data)


@pytest.mark.faults
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("announced", "patches"), {
    "2^31 frames in stsz": [(b"stsz", 12, 1 << 31)],
    "2^31 equal frames in stsz": [(b"stsz", 8, 1), (b"stsz", 12, 1 << 31)],
    "2^32-1 frames in stts": [(b"stts", 12, 0xFFFFFFFF)],
    "2^31 entries in stts": [(b"stts", 8, 1 << 31)],
    "2^31 chunks in stco": [(b"stco", 8, 1 << 31)],
    "a picture of 65535x65535": [(b"avc1", 28, 0xFFFFFFFF)],
}.items())
def test_what_a_header_announces_is_not_believed(sources, tmp_path, backend, announced, patches, fault, request):
    if backend != BACKENDS[0] and not request.config.getoption("--long"):
        pytest.skip("with --long")
    content = sources["a.mp4"]
    for box, offset, value in patches:
        content = patched(content, box, offset, value)
    (tmp_path / "a.mp4").write_bytes(content)
    before = resident()
    answer = what_happens(tmp_path / "a.mp4", backend)
    assert resident() - before < 200 << 20
    if isinstance(answer, int):
        assert 0 < answer <= 24   # the codec's own header is right, or the frames that are there
    said = f"{answer} frames read" if isinstance(answer, int) else "named: " + answer.replace(str(tmp_path), "")
    fault(f"{announced}, {backend}", said[:70])


def resident():
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
