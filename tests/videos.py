"""Small videos for tests, all written here: numbered pictures, drifting noise, ramps, folders of pictures, sound."""

from typing import NamedTuple

import av
import numpy as np
import pytest
from PIL import Image
from tats.datasets.video.decode import VideoError, open_video


class Encoding(NamedTuple):
    """options: of the encoder. faststart: the index stands before the pictures, in .mp4 files."""

    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    rate: int = 25
    bit_rate: int | None = None
    options: dict | None = None
    faststart: bool = False


def write_video(path, pictures, encoding=Encoding(), times=None, size=None):  # noqa: B008, it cannot be changed
    """A video of `pictures`, each uint8 (H, W, 3), in the container that the path's ending names.

    times: presentation time of each picture, in frames. size: (H, W), needed where there are no pictures.
    """
    pictures = list(pictures)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"movflags": "faststart"} if encoding.faststart else {}) as container:
        stream = container.add_stream(encoding.codec, rate=encoding.rate, options=encoding.options or {})
        stream.height, stream.width = size or pictures[0].shape[:2]
        stream.pix_fmt = encoding.pix_fmt
        if encoding.bit_rate:
            stream.bit_rate = encoding.bit_rate
        for number, one in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(one), format="rgb24")
            if times is not None:
                frame.pts = times[number]
            container.mux(stream.encode(frame))
        if pictures:
            container.mux(stream.encode())
    return path


def write_sound(path):
    """A file with sound and no pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def picture(number, height=48, width=64):
    """A grey picture whose left half tells its number in brightness, whose upper right corner is white."""
    frame = np.full((height, width, 3), 20 + 6 * number, np.uint8)
    frame[:height // 2, width // 2:] = 255
    return frame


def numbers(frames):
    """The numbers of pictures from their brightness."""
    return ((frames[:, 4:-4, 4:20].mean(axis=(1, 2, 3)) - 20) / 6).round().astype(int).tolist()


def write_numbered(path, count=30, size=(48, 64), times=None, **encoding):
    """A video of `count` numbered pictures, good enough to tell them apart; `encoding`: fields of Encoding."""
    encoding = Encoding(bit_rate=2_000_000, faststart=path.suffix == ".mp4", **encoding)
    return write_video(path, (picture(number, *size) for number in range(count)), encoding, times)


def write_long(path, frames):
    """Noise with one key frame in ten, 7 kB a frame; its packets are not all different."""
    noise = np.random.default_rng(0).integers(0, 255, (4, 96 * 3 // 2, 128), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "10", "bf": "0", "crf": "28"})
        stream.height, stream.width, stream.pix_fmt = 96, 128, "yuv420p"
        packets = [packet for number in range(40) for packet in
                   stream.encode(av.VideoFrame.from_ndarray(noise[number % 4], format="yuv420p"))] + stream.encode()
        for number in range(frames):
            again = av.Packet(bytes(packets[number % len(packets)]))
            again.stream, again.pts, again.dts, again.time_base = stream, number, number, stream.codec_context.time_base
            again.is_keyframe = packets[number % len(packets)].is_keyframe
            container.mux(again)
    return path


def drifting(seed, count=12, height=16, width=24):
    """uint8 (count, height, width, 3), smooth noise that drifts."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 8, 3), np.uint8)
    wide = np.asarray(Image.fromarray(small).resize((width + count, height), Image.Resampling.BILINEAR))
    return np.stack([wide[:, shift:shift + width] for shift in range(count)])


def write_drifting(path, seed, **shape):
    """A video of smooth noise that drifts."""
    return write_video(path, drifting(seed, **shape))


def write_folder(path, seed, **shape):
    """The same as a folder of numbered pictures, without loss."""
    path.mkdir(parents=True)
    for number, frame in enumerate(drifting(seed, **shape)):
        Image.fromarray(frame).save(path / f"img_{number}.png")
    return path


def write_list(path, rows):
    """A list file of (video, label)."""
    path.write_text("".join(f"{video} {label}\n" for video, label in rows))
    return path


def write_seven(folder):
    """Seven videos of six classes, and test.csv: two of one name, one broken, one missing, one of pictures."""
    (folder / "cut.mp4").write_bytes(write_drifting(folder / "whole.mp4", 9).read_bytes()[:300])
    rows = [(write_drifting(folder / "one" / "0001.mp4", 1), 0), (write_drifting(folder / "two" / "0001.mp4", 2), 5),
            (folder / "cut.mp4", 1), (write_folder(folder / "pictures", 3), 2), (folder / "missing.mp4", 3),
            (write_drifting(folder / "c.mp4", 4, count=3), 4),
            (write_drifting(folder / "d.mp4", 5, height=24, width=16), 0)]
    write_list(folder / "test.csv", rows)


def place_of_packet(path, number):
    """Where the number-th packet begins in the file."""
    with av.open(str(path)) as container:
        return [packet.pos for packet in container.demux(video=0) if packet.size][number]


def mutated(content, rng):
    """One of: bytes changed anywhere or among the first, a part cut out, doubled, zeroed, or the end cut off."""
    data = np.frombuffer(content, np.uint8).copy()
    kind, start = rng.integers(6), int(rng.integers(len(data)))
    stop = min(len(data), start + int(rng.integers(1, 400)))
    if kind < 2:
        places = rng.integers(0, 1500 if kind else len(data), rng.integers(1, 8))
        data[places % len(data)] = rng.integers(0, 256, len(places))
    elif kind == 2:
        data = np.delete(data, slice(start, stop))
    elif kind == 3:
        data = np.insert(data, start, data[start:stop])
    elif kind == 4:
        data[start:stop] = 0
    else:
        data = data[:start]
    return data.tobytes()


def cause_of(path, backend="pyav"):
    """What the error says about a file; it is one line and begins with the path."""
    with pytest.raises(VideoError) as error, open_video(path, backend) as video:
        video.read(range(video.num_frames))
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
    return error.value.cause
