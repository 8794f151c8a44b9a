"""A whole run on a list made to harm: mutated videos, names that are commands, addresses or places elsewhere."""

import os

import numpy as np
import pytest
from tats.datasets.lists.list_file import read_list
from tats.engines.run_mae_pretraining import main
from videos import mutated


@pytest.mark.faults
def test_a_run_on_a_hostile_list_ends_well_and_stays_in_its_folder(shapes, tmp_path, monkeypatch, fault):
    """Each unreadable video is named once, with its cause; nothing is written but in --output_dir, nothing is run."""
    good, rng, out = list(read_list(shapes / "train.csv").paths), np.random.default_rng(5), tmp_path / "out"
    content = open(good[0], "rb").read()
    videos = tmp_path / "videos"
    videos.mkdir()
    for number in range(16):
        (videos / f"{number}.mp4").write_bytes(mutated(content, rng))
    mark = tmp_path / "it ran"
    names = [f"$(touch '{mark}').mp4", f"|touch {mark}", f"; touch {mark} ;.mp4", "../../../etc/passwd", "/etc/passwd",
             "/dev/zero", "/proc/self/mem", "http://127.0.0.1:9/a.mp4", f"concat:{good[0]}|{good[1]}", "a.mp4: cause",
             "subfile,,start,0,end,0,,:/etc/passwd", "%s%n{0.__class__}.mp4", str(tmp_path), "\x1b[2Jgood.mp4"]
    rows = good + [str(path) for path in sorted(videos.iterdir())] + names
    (tmp_path / "list.csv").write_text("".join(f"{row}\t0\n" for row in rows))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    before = set(tmp_path.rglob("*"))
    main(["--model", "pretrain_tats_tiny", "--batch_size", "4", "--num_workers", "0", "--mask_ratio", "0.75",
          "--device", "cpu", "--sampling_rate", "1", "--epochs", "1", "--warmup_epochs", "0", "--mask_type", "random",
          "--data_path", str(tmp_path / "list.csv"), "--output_dir", str(out), "--max_bad_fraction", "1",
          "--video_backend", "pyav", "--vis_clips", "0"])
    written = set(tmp_path.rglob("*")) - before
    assert all(out in (path, *path.parents) for path in written) and not mark.exists()
    noted = (out / "bad_videos.txt").read_text().splitlines()
    named = [row for row in rows if any(line.startswith(ascii(row)[1:-1] + ": ") for line in noted)]
    assert len(named) == len(noted) == len(set(noted)) and not set(named) & set(good)
    # The list has 54 rows and an epoch of 13 batches of 4: two rows are not met.
    assert len(set(names) - set(named)) <= 2
    assert all(line.isprintable() for line in noted) and os.listdir(tmp_path / "elsewhere") == []
    fault(f"a list with {len(names)} hostile names and 16 mutated videos", f"{len(named)} named, the run ends well")
