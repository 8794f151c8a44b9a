"""kill -9 at random moments, saving included; disks that fill up; processes that fail, hang, or are told to end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tats.engines.config.common import RunConfig
from tats.engines.core.event_files import EventFiles
from tats.engines.core.logs import RunLog
from tiny_runs import differing, final_state, log_lines
from tiny_runs import small_pretraining_flags as flags

HERE = Path(__file__).parent
pytestmark = [pytest.mark.faults, pytest.mark.slow]


def forked(spec, folder, timeout=1500):
    """What forked_runs.py says of `spec`."""
    (folder / "spec.json").write_text(json.dumps(spec))
    done = subprocess.run([sys.executable, str(HERE / "forked_runs.py"), str(folder / "spec.json")],
                          env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "spec.out").read_text())


def without_output(arguments):
    place = arguments.index("--output_dir")
    return arguments[:place] + arguments[place + 2:]


def test_kill_9_at_random_moments(shapes, tmp_path, fault, request):
    """Every resumed run ends in the very state of the run that was left alone."""
    count = 20 if request.config.getoption("--long") else 4
    rows = {"tats": ["--mask_type", "tats", "--update_every", "4"], "adamae": ["--mask_type", "adamae"],
            "tube": ["--mask_type", "tube", "--num_workers", "1"]}
    runs = [(name, without_output(flags(shapes, "", *row, "--epochs", "2", "--save_every_steps", "1")))
            for name, row in rows.items()]
    results = forked({"kills": {"runs": runs, "count": count, "seed": 0}}, tmp_path)
    assert len(results) == count
    for result in results:
        assert result["code"] == 0 and result["differs"] is None, result
        assert result["resumed"] == (result["newest"] is not None), result
    saving = sum(bool(result["left_unfinished"]) for result in results)
    assert saving >= count // 2
    fault(f"kill -9 at {count} random moments, {saving} of them while saving",
          "every resumed run ended bit-equal to the uninterrupted one", "at most the unfinished step")


@pytest.fixture(scope="module")
def faulty(shapes, tmp_path_factory):
    """(folder, exit codes by name, what each process said) of runs on 23 clips with a fault in them."""
    folder = tmp_path_factory.mktemp("faulty")
    rows = folder / "rows.csv"
    rows.write_text("".join((shapes / "train.csv").read_text().splitlines(keepends=True)[:23]))

    def spec(name, out, *more, world=2, epochs=2, **fault):
        arguments = ["--mask_type", "tats", "--mae_only_epochs", "0", "--batch_size", str(8 // world), "--epochs",
                     str(epochs), "--data_path", str(rows), "--save_ckpt_freq", "1", *more]
        return {"name": name, "world": world, "folder": str(folder), "fault": fault, "limit": 200,
                "arguments": flags(shapes, folder / out, *arguments)}

    found = forked({"ranks": [
        spec("whole", "whole"),
        spec("nan", "nan", rank=1, kind="nan", step=2),
        spec("signal", "signal", rank=1, kind="SIGTERM", step=2),
        spec("resumed", "signal"),
        spec("raise", "raise", rank=1, kind="raise", step=1),
        spec("hang", "hang", "--dist_timeout", "0.05", rank=1, kind="hang", step=1),
        spec("three", "three", world=3),
        spec("two, then", "moved", rank=1, kind="SIGTERM", step=2), spec("one", "moved", world=1),
        spec("small", "small", "--save_every_steps", "1", "--keep_last", "0", "--batch_size", "4", world=1, rank=0,
             kind="small disk", step=3),
        spec("full", "full", world=1, epochs=1, rank=0, kind="small disk", step=1),
    ]}, folder)
    return folder, found, {path.stem: path.read_text() for path in folder.glob("*.err")}


def test_uneven_data_on_two_and_three_processes(faulty):
    """23 clips: 2 x 4 and 3 x 2 clips a step, the rest is left out on all."""
    folder, found, _ = faulty
    assert found["whole"]["codes"] == [0, 0] and found["three"]["codes"] == [0, 0, 0]
    assert [line["step"] for name in ("whole", "three") for line in log_lines(folder / name)] == [2, 4, 3, 6]


def test_a_number_of_one_process(faulty, fault):
    folder, found, _ = faulty
    assert found["nan"]["codes"] == [0, 0]
    entries = [json.loads(line) for line in (folder / "nan" / "bad_steps.jsonl").read_text().splitlines()]
    assert [(entry["network"], entry["last_step"]) for entry in entries] == [("MAE", 2), ("sampler", 2)]
    assert len(set(entries[0]["rows"])) == 8
    fault("NaN on one of two processes", "both skipped the step; the batches of both recorded", "the step")


def test_a_signal_to_one_process(faulty, fault):
    folder, found, said = faulty
    assert found["signal"]["codes"] == found["resumed"]["codes"] == [0, 0]
    assert "SIGTERM: ended in epoch 0, after step 2" in said["signal-0"]
    assert differing(final_state(folder / "signal"), final_state(folder / "whole")) is None
    assert log_lines(folder / "signal") == log_lines(folder / "whole")
    fault("SIGTERM to one of two processes", "both ended after the same step, saved; went on bit-exactly", "nothing")


def test_a_failure_and_a_hang_of_one_process(faulty, fault):
    _, found, said = faulty
    assert found["raise"]["codes"][1] == 2 and found["raise"]["codes"][0] not in (0, None)
    assert "error: this process has had enough" in said["raise-1"]
    fault("one of two processes fails", "the other ended at once", "steps since the last checkpoint")
    assert found["hang"]["codes"][0] not in (0, None)
    assert "imed out" in said["hang-0"]
    fault("one of two processes hangs", "the other ended after --dist_timeout", "steps since the last checkpoint")


def test_going_on_with_another_number_of_processes(faulty, fault):
    folder, found, said = faulty
    assert found["one"]["codes"] == [0] and "written by 2 process(es), this run has 1" in said["one-0"]
    whole = torch.load(folder / "whole" / "checkpoint-0.pth", weights_only=True)
    one, two = (final_state(folder / name) for name in ("moved", "whole"))
    for part in ("model", "sampler"):
        before, first, second = (torch.cat([value.flatten() for value in state[part].values()])
                                 for state in (whole, one, two))
        assert (first - second).norm() < 1e-3 * (second - before).norm(), part
    fault("two processes, then one with twice the batch", "went on, the same up to rounding", "nothing")


def test_a_disk_that_fills_up_while_saving(faulty, fault):
    """After steps 3 to 6 and the epoch in between there is no room: checkpoints from before stay, later ones come."""
    folder, found, said = faulty
    assert found["small"]["codes"] == [0]
    assert said["small-0"].count("cannot be written (File too large)") == 5
    names = {path.name for path in (folder / "small").glob("*.pth*")}
    assert names == {f"epoch-0-step-{step}.pth" for step in (1, 2)} | {
        f"epoch-1-step-{step}.pth" for step in (7, 8, 9, 10)} | {"checkpoint-1.pth"}
    fault("no room for 5 checkpoints", "5 warnings, older ones whole; saved again once there was room", "nothing")


def test_a_disk_that_stays_full_ends_with_an_error(faulty, fault):
    _, found, said = faulty
    assert found["full"]["codes"] == [2]
    assert "make room and run the same command again" in said["full-0"].splitlines()[-1]
    fault("no room for the last checkpoint", "a warning, then exit code 2", "steps since the last checkpoint")


def test_torchrun_shows_the_first_cause(shapes, tmp_path, fault):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
               str(HERE / "forked_runs.py"), *flags(shapes, tmp_path, "--epochs", "2")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "FAULT": '{"rank": 1, "kind": "raise", "step": 2}'}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode != 0
    root = done.stderr.split("Root Cause (first observed failure)")[1]
    assert "rank      : 1" in root and "this process has had enough" in root
    fault("one of two processes fails", "all ended, torchrun shows the first cause", "steps since the save")


def test_event_files_after_a_full_disk(tmp_path, monkeypatch):
    """What is written can be read, and an error leaves nothing that waits: the next epoch begins another file."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import RecordWriter

    def values():
        for path in sorted(tmp_path.glob("events.out.tfevents.*")):
            data = path.read_bytes()
            while data:   # length, its checksum, the event, its checksum
                size = int.from_bytes(data[:8], "little")
                event, data = Event.FromString(data[12:12 + size]), data[16 + size:]
                yield from ((event.step, value.tag, value.simple_value or value.image.height)
                            for value in event.summary.value)

    def full(*_):
        raise OSError(28, "No space left on device")

    files = EventFiles(tmp_path)
    files.scalars({"loss": 0.5, "reward": 2.0}, 0)
    files.image("sheet", np.zeros((4, 6, 3), dtype=np.uint8), 0)
    with monkeypatch.context() as patch:
        patch.setattr(RecordWriter, "flush", full)
        with pytest.raises(OSError, match="No space"):
            files.scalars({"loss": 0.25}, 1)
    files.scalars({"loss": 0.125}, 2)
    files.close()
    assert {(0, "loss", 0.5), (0, "reward", 2.0), (0, "sheet", 4), (2, "loss", 0.125)} <= set(values())


def test_log_lines_wait_for_room(tmp_path, caplog):
    log = RunLog(RunConfig(output_dir=str(tmp_path)))
    (tmp_path / "log.txt").symlink_to("/dev/full")
    log.epoch({"epoch": 0})
    assert "log.txt cannot be written" in caplog.text
    (tmp_path / "log.txt").unlink()
    log.epoch({"epoch": 1})
    assert [json.loads(line)["epoch"] for line in (tmp_path / "log.txt").read_text().splitlines()] == [0, 1]


def test_lines_of_a_log_that_was_edited_are_kept(tmp_path):
    """The last one was left open, one is of another encoding, and one has no number for its epoch."""
    log = tmp_path / "log.txt"
    log.write_bytes(b'{"epoch": 0, "note": "caf\xe9"}\n{"epoch": "1"}\n{"epoch": null}\n[1]\n{"epoch": 2}')
    with RunLog(RunConfig(output_dir=str(tmp_path)), first=3) as opened:
        opened.epoch({"epoch": 3})
    assert log.read_bytes() == b'{"epoch": 0, "note": "caf\xe9"}\n{"epoch": 2}\n{"epoch": 3}\n'
    log.write_bytes(b'{"epoch": 0}\n{"epoch": 1')
    RunLog(RunConfig(output_dir=str(tmp_path)), first=2)
    assert log.read_bytes() == b'{"epoch": 0}\n'
