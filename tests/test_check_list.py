"""The list checker finds each kind of fault, and its clean list holds none."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from processes import is_alive, wait_for
from tats.datasets.check_list import main
from tats.datasets.lists.list_file import read_list
from tats.datasets.processes.parallel import WorkerDied, for_each
from videos import write_video


def write_noise(path, seed, frames=6, size=32):
    return write_video(path, np.random.default_rng(seed).integers(0, 256, (frames, size, size, 3), dtype=np.uint8))


def check(*arguments):
    return main([str(argument) for argument in (*arguments, "--num_workers", "0")])


def report_of(path):
    return json.loads(path.with_name(f"{path.stem}.report.json").read_text())


def problems(path):
    return {one["line"]: one["problem"] for one in report_of(path)["findings"]}


@pytest.fixture
def videos(tmp_path):
    return [write_noise(tmp_path / "some videos" / f"{seed}.mp4", seed) for seed in range(4)]


def test_a_good_list(videos, tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("".join(f"{video} {label % 2}\n" for label, video in enumerate(videos)))
    assert check(path, "--num_classes", 2) == 0
    assert (tmp_path / "train.clean.csv").read_text() == path.read_text()
    report = report_of(path)
    assert report["videos_per_class"] == {"0": 2, "1": 2} and report["kept"] == report["rows"] == 4


def test_every_fault_has_its_name(videos, tmp_path):
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(videos[3].read_bytes()[:1500])
    empty = tmp_path / "empty.mp4"
    empty.touch()
    short = write_noise(tmp_path / "short.mp4", 9, frames=2)
    copy = tmp_path / "copy.mp4"
    shutil.copy(videos[0], copy)
    linked = tmp_path / "linked.mp4"
    linked.symlink_to(videos[1])
    path = tmp_path / "train.csv"
    path.write_text(f"{videos[0]},0\n"      # 1
                    f"{copy},0\n"           # 2 duplicate of 1 by content
                    f"{videos[1]},1\n"      # 3 another label than 4
                    f"{linked},2\n"         # 4
                    f"{videos[2]},1\n"      # 5 good
                    f"{tmp_path}/no.mp4,1\n"   # 6
                    f"{cut},1\n"            # 7
                    f"{empty},1\n"          # 8
                    f"{short},1\n"          # 9
                    f"{videos[3]},5\n"      # 10 label out of range
                    f"{videos[3]}\n")       # 11 no label
    assert check(path, "--num_classes", 4, "--min_frames", 4) == 1
    assert problems(path) == {2: "duplicate", 3: "conflicting label", 4: "conflicting label", 6: "missing",
                              7: "unreadable", 8: "unreadable", 9: "too short"}
    report = report_of(path)
    assert report["problems"]["bad row"] == 2 and report["kept"] == 2 and report["rows"] == 11
    assert [line.partition(":")[0] for line in report["bad_rows"]] == ["line 10", "line 11"]
    assert report["empty_classes"] == [2, 3]
    clean = read_list(tmp_path / "train.clean.csv", num_classes=4)
    assert list(clean.paths) == [str(videos[0]), str(videos[2])] and clean.labels.tolist() == [0, 1]
    assert check(tmp_path / "train.clean.csv", "--num_classes", 4, "--min_frames", 4) == 0


def test_leakage_by_path_and_by_content(videos, tmp_path):
    copy = tmp_path / "copy.mp4"
    shutil.copy(videos[1], copy)
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text("".join(f"{video} 0\n" for video in videos))
    test.write_text(f"{videos[0]} 0\n{copy} 0\n")
    assert check(train, "--against", test, "--out", tmp_path / "checked") == 1
    report = json.loads((tmp_path / "checked/train.report.json").read_text())
    assert {one["line"]: one["problem"] for one in report["findings"]} == {1: "leakage", 2: "leakage"}
    assert (tmp_path / "checked/train.clean.csv").read_text() == f"{videos[2]} 0\n{videos[3]} 0\n"
    assert not (tmp_path / "train.clean.csv").exists()


def test_every_frame_finds_damage_between_the_three_probes(tmp_path):
    video = write_noise(tmp_path / "v.mp4", 0, frames=60)
    content = bytearray(video.read_bytes())
    middle = len(content) // 4
    content[middle:middle + 600] = b"\x55" * 600
    video.write_bytes(content)
    path = tmp_path / "list.csv"
    path.write_text(f"{video} 0\n")
    assert check(path, "--every_frame") == 1
    assert problems(path) == {1: "unreadable"}


def test_lists_without_labels(videos, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("".join(f"{video}\n" for video in videos))
    assert check(path, "--no_label") == 0
    assert list(read_list(tmp_path / "list.clean.csv", need_label=False).paths) == [str(video) for video in videos]


def test_worker_processes_give_the_same_report(videos, tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("".join(f"{video} 0\n" for video in videos) + f"{tmp_path}/no.mp4 0\n")
    assert main([str(path), "--num_workers", "2"]) == 1
    assert problems(path) == {5: "missing"}


def _work(item):
    if item == "crash":
        os._exit(11)
    return item.upper()


@pytest.mark.slow
def test_a_crash_costs_one_video():
    results = dict(for_each(_work, ["a", "crash", "b", "c"], 2, "test"))
    assert isinstance(results.pop(1), WorkerDied)
    assert results == {0: "A", 2: "B", 3: "C"}


PROGRAM = """
import os, sys, time
from pathlib import Path
from tats.datasets.processes.parallel import for_each

def work(path):
    Path(path).write_text(str(os.getpid()))
    time.sleep(100)

if __name__ == "__main__":
    list(for_each(work, sys.argv[1:], 1, "test"))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="reads /proc")
def test_no_worker_outlives_a_killed_program(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    noted = tmp_path / "pid"
    program = subprocess.Popen([sys.executable, tmp_path / "program.py", noted])
    worker = int(wait_for(lambda: noted.is_file() and noted.read_text(), 60))
    assert is_alive(worker)
    program.kill()
    program.wait()
    wait_for(lambda: not is_alive(worker), 60)


def test_program_ends_with_one_line(tmp_path):
    done = subprocess.run([sys.executable, "-m", "tats.datasets.check_list", str(tmp_path / "none.csv")],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"error: list of videos not found: {tmp_path}/none.csv\n"
