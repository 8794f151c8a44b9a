"""Going on with another number of processes: every row once an epoch; the sums of what was seen before are kept."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tats.datasets.lists.epoch_order import EpochSampler
from tats.engines.core.meters import Meters
from tats.engines.core.runtime import Runtime
from tats.engines.runs import saved_state
from tats.engines.runs.going_on import joined
from tiny_runs import log_lines, small_pretraining_flags

CASES = [random.Random(case).choices(range(1, 9), k=3) for case in range(50)]


def batches(length, epoch, position, world, batch):
    """What a loader of `batch` rows takes on each process from there on: rows by step, of all processes together."""
    loaders = []
    for rank in range(world):
        order = EpochSampler(length, seed=3, rank=rank, world_size=world)
        order.set_epoch(epoch)
        order.start(position)
        rows = [row for row, _ in order]
        assert len(rows) == len(order)
        loaders.append([rows[start:start + batch] for start in range(0, len(rows) - batch + 1, batch)])
    assert len({len(loader) for loader in loaders}) == 1, "processes would wait for one another"
    return [[row for part in step for row in part] for step in zip(*loaders, strict=True)]


@pytest.mark.parametrize("worlds", [*CASES, [2, 3, 1]], ids=str)
def test_every_row_once_on_any_processes(worlds):
    """Stops at a random step and goes on with other processes, twice; the clips of a step may be others, too."""
    dice = random.Random(str(worlds))
    length = dice.randint(60, 300)
    position, seen = 0, []
    for place, world in enumerate(worlds):
        batch = dice.randint(1, 5)
        steps = batches(length, 1, position, world, batch)
        taken = len(steps) if place == 2 else dice.randint(0, len(steps))
        seen += [row for step in steps[:taken] for row in step]
        position += taken * batch * world
    assert len(seen) == len(set(seen)) == position
    assert length - position < batch * worlds[-1]
    order = EpochSampler(length, seed=3)
    order.set_epoch(1)
    assert seen == [row for row, _ in order][:position] or sorted(seen) == sorted(order.rows(0, position))


def test_the_same_clips_a_step_are_the_same_steps():
    """12 rows a step on 2, 3 and 1 processes: the same rows in every step, wherever the run stopped."""
    whole = [sorted(step) for step in batches(101, 0, 0, 1, 12)]
    for stop in range(8):
        steps = batches(101, 0, 0, 2, 6)[:stop] + batches(101, 0, 12 * stop, 3, 4)
        assert [sorted(step) for step in steps] == whole


def test_sums_of_other_processes_are_joined():
    meters = [Meters(torch.device("cpu")) for _ in range(2)]
    meters[0](loss=1.0)
    meters[0](loss=2.0, reward=5.0)
    meters[1](loss=6.0)
    states = [one.state() for one in meters]
    assert joined(states, True) == {"loss": [9.0, 3.0], "reward": [5.0, 1.0]}
    assert joined(states, False) == {"loss": [0.0, 0.0], "reward": [0.0, 0.0]}


def test_shares_of_several_processes_are_files_of_their_own(tmp_path, caplog):
    class Alone(Runtime):
        """One of two processes, whose other one always agrees."""

        def any(self, flag):
            return flag

        def barrier(self):
            pass

    here = Alone(torch.device("cpu"), rank=1, world_size=2)
    share = {"episodes": [[torch.arange(3), None]]}
    kept = saved_state.save_share(share, tmp_path, "epoch-0-step-2", here)
    assert kept == {"shared": True} and (tmp_path / "epoch-0-step-2/rank-1.pth").is_file()
    found = saved_state.load_share(kept, tmp_path / "epoch-0-step-2.pth", here)
    assert torch.equal(found["episodes"][0][0], torch.arange(3))
    (tmp_path / "epoch-0-step-2/rank-1.pth").write_bytes(b"torn")
    assert saved_state.load_share(kept, tmp_path / "epoch-0-step-2.pth", here) == {}
    assert "start empty" in caplog.text
    assert saved_state.save_share({"episodes": []}, tmp_path, "epoch-0-step-3", here) == {}
    assert saved_state.save_share(share, tmp_path, "x", Runtime(torch.device("cpu"))) == {"share": share}


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("k", [1, 5])
def test_two_then_three_processes_then_one(k, shapes, tmp_path, fault):
    """Stopped by a signal after the first and the second step of an epoch of three; 23 rows, 6 a step."""
    rows = tmp_path / "rows.csv"
    rows.write_text("".join((shapes / "train.csv").read_text().splitlines(keepends=True)[:23]))

    def spec(name, out, world, **happens):
        arguments = small_pretraining_flags(
            shapes, tmp_path / out, "--data_path", str(rows), "--mask_type", "tats", "--mae_only_epochs", "0",
            "--update_every", str(k), "--batch_size", str(6 // world), "--epochs", "2")
        return {"name": name, "world": world, "folder": str(tmp_path), "limit": 200, "arguments": arguments,
                "fault": happens}

    (tmp_path / "spec.json").write_text(json.dumps({"ranks": [
        spec("whole", "whole", 1), spec("two", "moved", 2, rank=1, kind="SIGTERM", step=1),
        spec("three", "moved", 3, rank=2, kind="SIGUSR1", step=2), spec("one", "moved", 1)]}))
    done = subprocess.run([sys.executable, str(Path(__file__).parent / "forked_runs.py"), str(tmp_path / "spec.json")],
                          env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "spec.out").read_text())
    said = {path.stem: path.read_text() for path in tmp_path.glob("*.err")}
    assert [found[name]["codes"] for name in ("two", "three", "one")] == [[0] * 2, [0] * 3, [0]], said
    assert "after step 1" in said["two-0"] and "after step 2" in said["three-0"]
    moved, whole = (log_lines(tmp_path / name) for name in ("moved", "whole"))
    assert [(line["epoch"], line["step"]) for line in moved] == [(0, 3), (1, 6)]
    assert moved[0]["train_loss"] == pytest.approx(whole[0]["train_loss"], rel=2e-3)   # the mean of all three steps
    assert len(json.loads((tmp_path / "moved/settings.json").read_text())["history"]) == 3
    fault(f"two processes, then three, then one, k = {k}", "each went on at the next row", "at most k - 1 episodes")
