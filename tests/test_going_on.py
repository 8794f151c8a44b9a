"""Going on with another number of processes: every row once an epoch; the sums of what was seen before are kept."""

import random

import pytest
import torch
from tats.datasets.lists.epoch_order import EpochSampler
from tats.engines.core.meters import Meters
from tats.engines.core.runtime import Runtime
from tats.engines.runs import saved_state
from tats.engines.runs.going_on import joined

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
