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
from tats.datasets.lists.seeding import clip_key
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


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", moves(metafunc.config), ids=str)


def moves(config):
    """(k, number): one of each k, 25 where there is time."""
    return [(k, number) for k in (1, 5) for number in range(25 if config.getoption("--long") else 1)]


def dice_of(case):
    """(steps after which the first two starts are told to end, the process that is told)."""
    dice = random.Random(str(case))
    return sorted(dice.sample(range(1, 8), 2)), (dice.randrange(2), dice.randrange(3))


@pytest.fixture(scope="module")
def moved(shapes, tmp_path_factory, request):
    """(folder, exit codes by name) of every case: two processes, then three, then one; and one that is never told."""
    folder, specs = tmp_path_factory.mktemp("moved"), []

    def spec(k, name, world, out, **happens):
        arguments = small_pretraining_flags(shapes, folder / out, "--mask_type", "tats", "--mae_only_epochs", "0",
                                            "--update_every", str(k), "--batch_size", str(6 // world), "--epochs", "2",
                                            "--vis_clips", "0")   # they would be loaded, too
        specs.append({"name": f"{out}-{name}", "world": world, "folder": str(folder), "limit": 300, "fault": happens,
                      "arguments": arguments, "rows": str(folder / f"{out}.rows")})

    for case in moves(request.config):
        k, number = case
        (first, second), told = dice_of(case)
        spec(k, "two", 2, f"{k}-{number}", rank=told[0], kind="SIGTERM", step=first)
        spec(k, "three", 3, f"{k}-{number}", rank=told[1], kind="SIGUSR1", step=second)
        spec(k, "one", 1, f"{k}-{number}")
    spec(1, "one", 1, "whole")
    (folder / "spec.json").write_text(json.dumps({"ranks": specs}))
    done = subprocess.run([sys.executable, str(Path(__file__).parent / "forked_runs.py"), str(folder / "spec.json")],
                          env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, json.loads((folder / "spec.out").read_text())


@pytest.mark.slow
@pytest.mark.faults
def test_two_processes_then_three_then_one(case, moved, fault):
    """Told to end after random steps of two epochs of four: each of the 24 rows is loaded once in each epoch."""
    folder, found = moved
    out, (stops, _) = f"{case[0]}-{case[1]}", dice_of(case)
    said = {name: (folder / f"{out}-{name}-0.err").read_text() for name in ("two", "three", "one")}
    assert [found[f"{out}-{name}"]["codes"] for name in said] == [[0] * 2, [0] * 3, [0]], said
    for name, stop in zip(("two", "three"), stops, strict=True):
        assert f"after step {stop};" in said[name]
    loaded = sorted((folder / f"{out}.rows").read_text().splitlines())
    assert loaded == sorted(f"{row} {clip_key(0, epoch, row)}" for epoch in range(2) for row in range(24)), stops
    lines, whole = log_lines(folder / out), log_lines(folder / "whole")
    assert [(line["epoch"], line["step"]) for line in lines] == [(0, 4), (1, 8)]
    if case[0] == 1:   # the mean of all steps, whoever made them
        assert lines[0]["train_loss"] == pytest.approx(whole[0]["train_loss"], rel=2e-3)
    assert len(json.loads((folder / out / "settings.json").read_text())["history"]) == 3
    fault(f"two processes, then three, then one, k = {case[0]}, stopped after steps {stops}", "each row once an epoch",
          "at most k - 1 episodes")
