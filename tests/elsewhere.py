"""Helpers of the tests that read videos from shards, object stores and copies of them."""

import io
import tarfile

import numpy as np
import pytest
from tats.datasets import pack
from tats.datasets.lists.list_file import read_list
from tats.datasets.program import run_program
from tats.datasets.video.decode import open_video
from videos import write_drifting, write_list


def packed(folder, *more, videos=None):
    """Three videos and their list, packed into shards; (the list, the list over the shards)."""
    size = {"height": 48, "width": 64}
    videos = videos or [(write_drifting(folder / "a b" / "x.y.mp4", 1, **size), 3),
                        (write_drifting(folder / "2" / "x.y.mp4", 2, **size), 1),
                        (write_drifting(folder / "c.mp4", 3, count=20, **size), 3)]
    write_list(folder / "train.csv", videos)
    pack.main([str(folder / "train.csv"), "--out", str(folder / "shards"), *more])
    return read_list(folder / "train.csv"), read_list(folder / "shards" / "train.csv")


def write_tar(path, *members):
    """A tar file of (name, content)s; content as text: a hard link to that member."""
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.LNKTYPE, content
            entry.size = 0 if isinstance(content, str) else len(content)
            archive.addfile(entry, io.BytesIO(b"" if isinstance(content, str) else content))
    return path


def frames_of(path, **how):
    with open_video(path, **how) as video:
        return video.read(np.arange(video.num_frames))


def upload(client, folder, prefix):
    for path in folder.iterdir():
        client.upload_file(str(path), "bucket", f"{prefix}{path.name}")


def one_line(capsys, call):
    with pytest.raises(SystemExit) as end:
        run_program(call)
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert end.value.code == 2 and line.startswith("error:")
    return line
