"""Small videos for the fine-tuning tests: folders of pictures and .mp4 files, wide, with something in them."""

import av
import numpy as np
from PIL import Image


def frames(seed, count=12, height=16, width=24):
    """uint8 (count, height, width, 3), smooth noise that drifts."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 8, 3), np.uint8)
    wide = np.asarray(Image.fromarray(small).resize((width + count, height), Image.Resampling.BILINEAR))
    return np.stack([wide[:, shift:shift + width] for shift in range(count)])


def write_folder(path, seed, **shape):
    """A video as a folder of numbered pictures, without loss."""
    path.mkdir(parents=True)
    for number, picture in enumerate(frames(seed, **shape)):
        Image.fromarray(picture).save(path / f"img_{number}.png")
    return path


def write_mp4(path, seed, **shape):
    path.parent.mkdir(parents=True, exist_ok=True)
    clip = frames(seed, **shape)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = *clip.shape[1:3], "yuv420p"
        for picture in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_list(path, rows):
    path.write_text("".join(f"{video} {label}\n" for video, label in rows))
    return path
