"""Kinds of video files that others stumble over: transport streams, joins, stills, colour tags, orientation, length."""

import io
import os
import random
import subprocess
import sys
import tarfile
from pathlib import Path

import av
import numpy as np
import pytest
from tats.datasets.video import backends, container_file, packet_index
from tats.datasets.video.decode import VideoError, open_video
from videos import Encoding, cause_of, numbers, picture, place_of_packet, write_long, write_numbered, write_video

B_FRAMES = {"g": "12", "bf": "3", "b-pyramid": "none", "sc_threshold": "0"}
CODECS = {"h264": ("libx264", B_FRAMES), "open gop": ("libx264", B_FRAMES | {"x264-params": "open-gop=1:scenecut=0"}),
          "hevc": ("libx265", {"x265-params": "keyint=12:bframes=3:log-level=none:pools=none:frame-threads=1"}),
          "mpeg2": ("mpeg2video", {"g": "9", "bf": "2"}), "mpeg4": ("mpeg4", {"g": "9", "bf": "2"})}


def read_all_ways(path, count, expected=None):
    """Whole, frame by frame in a random order, and a part: always the numbered pictures."""
    expected = list(range(count)) if expected is None else expected
    with open_video(path, "pyav") as video:
        assert video.num_frames == count
        whole = video.read(range(count))
        assert numbers(whole) == expected
        order = random.Random(0).sample(range(count), count)
        for number in order:
            assert np.array_equal(video.read([number])[0], whole[number]), number
    with open_video(path, "pyav") as video:
        assert np.array_equal(video.read(range(count // 2, count)), whole[count // 2:])
    return whole


@pytest.mark.parametrize("ending", ["ts", "m2ts", "mkv", "mpg"])
@pytest.mark.parametrize("kind", CODECS)
def test_files_with_b_frames_whatever_their_seeks_do(tmp_path, kind, ending):
    codec, options = CODECS[kind]
    if ending == "mpg" and kind != "mpeg2":
        pytest.skip("no such file")
    read_all_ways(write_numbered(tmp_path / f"a.{ending}", 30, codec=codec, options=options), 30)


@pytest.mark.parametrize(("name", "codec"), [("a.mpg", "mpeg1video"), ("a.mpg", "mpeg2video"), ("a.vob", "mpeg2video"),
                                            ("a.ts", "mpeg2video"), ("a.asf", "mpeg4"), ("a.flv", "flv")])
def test_a_seek_that_ends_within_a_picture(tmp_path, name, codec):
    """Pictures larger than a block of the container: the first times after a seek are not those of their pictures."""
    noise = np.random.default_rng(0).integers(0, 256, (30, 12, 16, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    options = {"g": "9", "bf": "2"} if codec == "mpeg2video" else {"g": "9"}
    path = write_video(tmp_path / name, noise, Encoding(codec, options=options, bit_rate=2_000_000))
    with av.open(str(path)) as container:
        expected = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    with open_video(path, "pyav") as video:
        assert np.array_equal(video.read(range(30)), expected)
        for number in random.Random(0).sample(range(30), 30):
            assert np.array_equal(video.read([number])[0], expected[number]), number


@pytest.mark.parametrize("kind", CODECS)
def test_a_recording_that_begins_within_a_group(tmp_path, kind):
    """Its first frame is the first key frame, as players have it; of mpeg4 they show rubbish before it."""
    codec, options = CODECS[kind]
    content = write_numbered(tmp_path / "a.ts", 30, codec=codec, options=options).read_bytes()
    late = tmp_path / "late.ts"
    late.write_bytes(content[:3 * 188] + content[place_of_packet(tmp_path / "a.ts", 4):])   # behind the tables
    with av.open(str(late)) as container:
        first = next(packet.pts for packet in container.demux(video=0) if packet.is_keyframe)
    with av.open(str(late)) as container:
        shown = numbers(np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)
                                  if frame.pts >= first]))
    assert 15 < len(shown) < 26 and shown == list(range(shown[0], 30))
    read_all_ways(late, len(shown), shown)


def test_one_transport_stream_behind_another(tmp_path):
    """As `cat a.ts b.ts`: every time comes twice, and the blocks' counters begin anew."""
    part = write_numbered(tmp_path / "a.ts", 10, options={"bf": "0"}).read_bytes()
    joined = tmp_path / "joined.ts"
    joined.write_bytes(part + part + part)
    read_all_ways(joined, 30, 3 * list(range(10)))
    cut = tmp_path / "cut.ts"
    cut.write_bytes(joined.read_bytes()[:2 * len(part) + 5 * 188 + 50])   # in the key frame of the last part
    assert "cut off" in cause_of(cut)


def test_segments_whose_times_go_on(tmp_path):
    """As a broadcast in pieces: one clock, but counters that begin anew at each join."""
    parts = []
    for start in (0, 10, 20):
        with av.open(str(tmp_path / f"{start}.ts"), "w", options={"mpegts_copyts": "1"}) as container:
            stream = container.add_stream("libx264", rate=25, options={"bf": "0", "g": "10"})
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
            for number in range(start, start + 10):
                frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
                frame.pts = number
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        parts.append((tmp_path / f"{start}.ts").read_bytes())
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(parts))
    read_all_ways(joined, 30)


def test_a_lost_piece_of_a_transport_stream_is_named(tmp_path):
    """Blocks that are missing in the middle are no join: the frames that they belong to are no pictures."""
    content = write_numbered(tmp_path / "a.ts", 30, (96, 128), options={"bf": "0", "g": "30", "crf": "1"}).read_bytes()
    with open_video(tmp_path / "a.ts", "pyav") as video:
        truth = video.read(range(30))
    named = 0
    for start in range(20, len(content) // 188 - 8, 5):
        for count in (1, 3):
            path = tmp_path / "hole.ts"
            path.write_bytes(content[:start * 188] + content[(start + count) * 188:])
            for number in (3, 10, 20, 27):
                try:
                    with open_video(path, "pyav") as video:
                        frame = video.read([number])[0]
                except VideoError:
                    named += 1
                else:
                    assert min(np.abs(frame.astype(int) - one).max() for one in truth) == 0, (start, count, number)
    assert named


def with_still(path, still_is_default, frames=20):
    """A picture as stream 0, which is no cover, and a film as stream 1."""
    with av.open(str(path), "w") as container:
        still = container.add_stream("mjpeg", rate=25)
        still.height, still.width, still.pix_fmt = 96, 128, "yuvj420p"
        film = container.add_stream("libx264", rate=25)
        film.height, film.width, film.pix_fmt = 48, 64, "yuv420p"
        still.disposition = av.stream.Disposition.default if still_is_default else 0
        film.disposition = av.stream.Disposition.default
        one = av.VideoFrame.from_ndarray(np.full((96, 128, 3), 90, np.uint8), format="rgb24")
        one.pts = 0
        container.mux(still.encode(one))
        container.mux(still.encode())
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts = number
            container.mux(film.encode(frame))
        container.mux(film.encode())
    return path


@pytest.mark.parametrize("still_is_default", [False, True])
def test_a_still_picture_as_first_stream(tmp_path, still_is_default):
    read_all_ways(with_still(tmp_path / "a.mp4", still_is_default), 20)


def test_a_small_film_beside_the_one_that_is_marked(tmp_path):
    """The default stream, though the other one is larger; without a mark the larger one."""
    for marked in (True, False):
        path = tmp_path / f"{marked}.mkv"
        with av.open(str(path), "w") as container:
            streams = []
            for size in ((48, 64), (96, 128)):
                stream = container.add_stream("libx264", rate=25)
                stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
                stream.disposition = av.stream.Disposition.default if marked and size[0] == 48 else 0
                streams.append((stream, size))
            for number in range(6):
                for stream, size in streams:
                    frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
                    frame.pts = number
                    container.mux(stream.encode(frame))
            for stream, _ in streams:
                container.mux(stream.encode())
        with open_video(path, "pyav") as video:
            assert video.read([0]).shape[1] == (48 if marked else 96)


def tagged(path, **tags):
    """A colourful video whose file tells `tags`; the pictures' numbers are the same whatever it tells."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        planes = np.concatenate([np.full((48, 64), 120), np.full((12, 64), 90), np.full((12, 64), 170)])
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes.astype(np.uint8), format="yuv420p")))
        container.mux(stream.encode())
    with open_video(path, "pyav") as video:
        return video.read([0, 2])[:, 24, 32].astype(int)


def by_hand(red, blue):
    """Y 120, U 90, V 170 of a limited range as RGB, by the luma weights of red and blue."""
    y, u, v = (120 - 16) / 219, (90 - 128) / 224, (170 - 128) / 224
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    return 255 * np.array([r, (y - red * r - blue * b) / (1 - red - blue), b])


BT601, BT2020 = by_hand(.299, .114), by_hand(.2627, .0593)


@pytest.mark.parametrize(("colorspace", "expected"), [
    (2, BT601), (6, BT601), (9, BT2020), (10, BT2020), (8, BT601), (11, BT601), (12, BT601), (13, BT601), (14, BT601)])
def test_tags_of_colours_that_are_not_supported_fall_back(tmp_path, colorspace, expected):
    """10 is BT.2020 with constant luminance, which players show as the other one; what is unknown, as if not tagged."""
    assert np.abs(tagged(tmp_path / "a.mp4", colorspace=colorspace) - expected).max() < 3


def test_tags_of_transfer_and_primaries_change_nothing(tmp_path):
    for tag, values in (("color_trc", (1, 13, 16, 18)), ("color_primaries", (1, 9, 12, 22))):
        for value in values:
            assert np.abs(tagged(tmp_path / f"{tag}{value}.mp4", **{tag: value}) - BT601).max() < 3


@pytest.mark.parametrize(("arguments", "shown"), [
    ("rotate=90", lambda p: np.rot90(p)), ("rotate=180", lambda p: np.rot90(p, 2)),
    ("rotate=270", lambda p: np.rot90(p, 3)), ("rotate=0:flip=horizontal", lambda p: p[:, ::-1]),
    ("rotate=0:flip=vertical", lambda p: p[::-1])])
def test_orientation_in_the_stream_itself(tmp_path, arguments, shown):
    """H.264's display orientation message; the container says nothing."""
    plain = write_numbered(tmp_path / "plain.mkv", 4)
    turned = tmp_path / "turned.mkv"
    with av.open(str(plain)) as source, av.open(str(turned), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        command = f"h264_metadata=display_orientation=insert:{arguments}"
        messages = av.bitstream.BitStreamFilterContext(command, source.streams.video[0], stream)
        for packet in source.demux(video=0):
            for changed in messages.filter(packet if packet.size else None):
                changed.stream = stream
                target.mux(changed)
    with open_video(plain, "pyav") as before, open_video(turned, "pyav") as after:
        pictures = before.read(range(4))
        assert np.array_equal(after.read(range(4)), np.stack([shown(one) for one in pictures]))


def bytes_read():
    return int(dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())["rchar"])


@pytest.mark.skipif(not Path("/proc/self/io").is_file(), reason="counts bytes by Linux's /proc")
@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_a_clip_of_a_long_file_reads_little_of_it(ending, tmp_path, monkeypatch, request, fault):
    """Of an hour with --long, else of twelve minutes. A transport stream has no index: it is listed once for all."""
    frames = 90_000 if request.config.getoption("--long") else 18_000
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for module in (packet_index, container_file):
        monkeypatch.setattr(module, "LARGE", 1 << 20)
    path = write_long(tmp_path / f"long.{ending}", frames)
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        archive.add(path, path.name)
    size, wanted = os.path.getsize(path), range(frames // 2, frames // 2 + 64, 4)
    shares = []
    for name in (path, path, f"{tmp_path}/shard.tar::{path.name}", f"{tmp_path}/shard.tar::{path.name}"):
        packet_index._CACHE.clear()   # as another process
        start = bytes_read()
        with open_video(name, "pyav") as video:
            assert video.num_frames == frames
            clip = video.read(wanted)
        shares.append((bytes_read() - start) / size)
        if len(shares) == 1:
            first = clip
        assert np.array_equal(clip, first)
    assert max(shares[1::2]) < .02 and (ending == "ts" or max(shares) < .02), shares
    fault(f"a clip of {frames} frames in .{ending}, {size / 1e6:.0f} MB",
          "read " + ", ".join(f"{share:.2%}" for share in shares) + " (twice; as a member of a shard, twice)")
    packet_index._CACHE.clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
    monkeypatch.setattr(packet_index, "open_for_listing", lambda path, file: None)   # every packet read
    with open_video(path, "pyav") as video:
        assert video.num_frames == frames and np.array_equal(video.read(wanted), first)
    packet_index._CACHE.clear()


def test_an_index_on_disk_is_used_and_a_damaged_one_made_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(packet_index, "LARGE", 0)
    path, listed, real = write_numbered(tmp_path / "a.ts", 30, options=B_FRAMES), [], packet_index._listed
    monkeypatch.setattr(packet_index, "_listed", lambda *args: listed.append(1) or real(*args))
    for what in ("made", "kept", "damaged", "cut", "foreign", "kept"):
        files = list((tmp_path / "cache" / "tats").glob("??/*"))   # none at first
        content = files[0].read_bytes() if files else b""
        if what in ("damaged", "cut", "foreign"):
            files[0].write_bytes({"damaged": content[:200] + b"\0\1\2" + content[203:], "cut": content[:99],
                                  "foreign": b"hello"}[what])
        packet_index._CACHE.clear()
        listed.clear()
        read_all_ways(path, 30)
        assert len(listed) == (what != "kept"), what
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))   # no folder: nothing is kept, nothing is lost
    packet_index._CACHE.clear()
    read_all_ways(path, 30)
    packet_index._CACHE.clear()


def test_the_index_without_the_packets_is_the_index_with_them(tmp_path, monkeypatch):
    """Edit lists, B-frames, odd times. Fragments have no index of their own: they are read."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    vp9 = {"g": "8", "cpu-used": "8", "lag-in-frames": "10"}
    files = {"plain.mp4": ("libx264", {"movflags": "faststart"}, B_FRAMES), "back.mp4": ("libx264", {}, B_FRAMES),
             "open.mp4": ("libx264", {}, {"g": "8", "bf": "2"}), "a.mkv": ("libx264", {}, B_FRAMES),
             "fragments.mp4": ("libx264", {"movflags": "frag_keyframe+empty_moov"}, B_FRAMES),
             "open.mkv": ("libx264", {"live": "1"}, CODECS["open gop"][1]), "a.webm": ("libvpx-vp9", {}, vp9),
             "mpeg4.mkv": ("mpeg4", {}, {"g": "8", "bf": "2"})}
    for name, (codec, container_options, options) in files.items():
        path = tmp_path / name
        with av.open(str(path), "w", options=container_options) as container:
            stream = container.add_stream(codec, rate=25, options=options, bit_rate=2_000_000)
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
            for number in range(30):
                frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
                frame.pts = number + (number // 3 if codec.startswith("lib") else 0)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        found = []
        for large in (0, 1 << 40):
            for module in (packet_index, container_file):
                monkeypatch.setattr(module, "LARGE", large)
            packet_index._CACHE.clear()
            is_read = large > 0 or name == "fragments.mp4"
            assert (container_file.open_for_listing(str(path)) is None) == is_read, name
            read_all_ways(path, 30)
            found.append(next(iter(packet_index._CACHE.values())))
        first, second = found
        assert np.array_equal(first.times, second.times) and np.array_equal(first.pts, second.pts)
        assert set(first.keys.tolist()) <= set(second.keys.tolist())
    packet_index._CACHE.clear()


@pytest.mark.parametrize("mark", [b"V_MS/VFW/FOURCC", b"\x6d\x80"])
def test_packets_of_a_mkv_that_mean_nothing_without_their_bytes_are_read(mark):
    """Times as in .avi, and packets that are compressed."""
    head, pictures = b"\x1aE\xdf\xa3" + bytes(99), b"\x1fC\xb6u" + mark + bytes(99)
    assert container_file._kind_of(io.BytesIO(head + pictures), 300) == "matroska"
    assert container_file._kind_of(io.BytesIO(head + mark + pictures), 300) is None


def test_a_file_that_is_written_anew_is_another_one(tmp_path):
    path = write_numbered(tmp_path / "a.mp4", 30)
    with open_video(path, "pyav") as video:
        assert video.num_frames == 30
    write_numbered(path, 12)
    read_all_ways(path, 12)


def test_the_memory_of_indices_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(packet_index, "_REMEMBERED", 70)
    packet_index._CACHE.clear()
    for name in "abcd":
        with open_video(write_numbered(tmp_path / f"{name}.mp4", 30), "pyav"):
            assert sum(len(index.pts) for index in packet_index._CACHE.values()) <= 70
    assert [Path(key[0]).stem for key in packet_index._CACHE] == ["c", "d"]


def test_containers_that_are_not_accepted_are_named_with_a_way_on(tmp_path):
    playlist = tmp_path / "a.mp4"
    playlist.write_text("ffconcat version 1.0\nfile b.mp4\n")
    cause = cause_of(playlist)
    assert "(concat)" in cause and "convert it" in cause and "ffmpeg -i" in cause
    assert cause_of(playlist) == cause   # FFmpeg's log passes over what it has said before
    sound = tmp_path / "a.wav"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    assert "(wav)" in cause_of(sound)


@pytest.mark.parametrize("found", ["16.1.0", "9.0", "17.0.1", "17.0.0rc2"])
def test_a_pyav_that_is_too_old_is_said(monkeypatch, caplog, found):
    monkeypatch.setattr(backends.importlib.metadata, "version", lambda name: found)
    backends._resolve.cache_clear()
    with pytest.raises(ValueError, match="pyav cannot be loaded: pip install -U 'av>=17.1'"):
        backends.resolve_backend("pyav")
    assert f"PyAV {found} is too old" in caplog.text
    backends._resolve.cache_clear()


@pytest.mark.parametrize("found", ["17.1.0", "18.1.0", "19.0.0rc1", "20", "unknown"])
def test_a_pyav_that_is_new_enough(monkeypatch, found):
    monkeypatch.setattr(backends.importlib.metadata, "version", lambda name: found)
    assert backends.loads("pyav")


def test_frames_that_were_looked_at_are_given_back(tmp_path):
    """Asking a frame for its orientation ties it into a cycle; a worker must not keep one of each clip."""
    path = write_numbered(tmp_path / "a.mp4", 4, size=(720, 1280))
    source = ("import resource, sys\nfrom tats.datasets.video.decode import open_video\n"
              "for turn in range(60):\n"
              "    with open_video(sys.argv[1], 'pyav') as video:\n        video.read([turn % 4])\n"
              "    if turn == 20:\n        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
              "sys.stdout.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))\n")
    done = subprocess.run([sys.executable, "-c", source, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 20_000   # KiB; one frame has 4,000
