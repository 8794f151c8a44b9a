"""A decoder process whose decoder does to some names what native code does to some files; and a loader that meets it.

    python hostile_decoders.py LIST BAD_VIDEOS WORKERS     prints the key and a hash of each clip
"""

import ctypes
import hashlib
import os
import re
import sys
import time
from pathlib import Path

import numpy as np

SECONDS = 4.0   # what a clip may take here; a good one takes milliseconds, but not on a machine that is busy
START = ("import sys; sys.path[:] = sys.argv[5:]; import hostile_decoders; "
         "hostile_decoders.serve(int(sys.argv[2]), *sys.argv[3:5])")

FAULTS = {
    "sleeps": lambda: time.sleep(10_000),
    "spins": lambda: re.match("(a+)+$", 60 * "a" + "b"),   # in native code, with Python's lock held
    "crashes": lambda: ctypes.string_at(0),
    "aborts": os.abort,
    "eats": lambda: np.ones(1 << 34, np.uint8),
    "fails": lambda: {}["a defect"],
    "leaves": lambda: os._exit(7),
}


class NoMask:
    """Hides nothing."""

    def __call__(self):
        import torch
        return torch.zeros(144, dtype=torch.bool)


def serve(pipe, backend, seconds):
    from tats.datasets.video import decoder_process

    honest = decoder_process.open_reader

    def open_reader(path, *more):
        FAULTS.get(Path(path).stem, lambda: None)()
        return honest(path, *more)

    decoder_process.open_reader = open_reader
    decoder_process.serve(pipe, backend, float(seconds))


def hashes(list_path, bad_path, workers):
    """A line a clip, in the loader's order."""
    from tats.datasets.clips import ClipShape, PretrainClips
    from tats.datasets.lists.bad_videos import BadVideos
    from tats.datasets.lists.epoch_order import EpochSampler
    from tats.datasets.lists.list_file import read_list
    from tats.datasets.transforms.pretraining import pretrain_transform
    from tats.datasets.video import decoder_process
    from tats.datasets.video.decode import Decoding
    from torch.utils.data import DataLoader

    decoder_process._START = START
    rows = read_list(list_path, need_label=False)
    clips = PretrainClips(rows, ClipShape(8, 1), pretrain_transform("multiscale", 24), NoMask(),
                          Decoding("pyav", SECONDS), BadVideos(bad_path, len(rows), .5))
    loader = DataLoader(clips, 3, sampler=EpochSampler(len(clips), seed=3), num_workers=int(workers))
    return [f"{key} {hashlib.sha256(video.numpy().tobytes()).hexdigest()}"
            for batch in loader for video, key in zip(batch.video, batch.key.tolist(), strict=True)]


if __name__ == "__main__":
    sys.stdout.write("\n".join(hashes(*sys.argv[1:])))
