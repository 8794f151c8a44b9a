"""The hook in a user's loop on two real processes, and in the Trainer on two."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """{"2-0": numbers of rank 0 of two, "2-1", "1-0": one process with the same global batches}."""
    folder = tmp_path_factory.mktemp("ranks")
    done = subprocess.run([sys.executable, str(HERE / "hook_ranks.py"), str(folder)], capture_output=True, text=True,
                          timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in ("2-0", "2-1", "1-0")}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tats even", "tats uneven", "adamae even", "adamae uneven"])
def test_two_processes_hold_the_same_policy_and_keep_to_m_o_and_k(ranks, kind):
    first, second = ranks["2-0"][kind], ranks["2-1"][kind]
    assert first["theta"] == second["theta"]                     # to the bit
    assert first["numbers"] == second["numbers"] and first["numbers"][0] != first["numbers"][1]
    for found in (first, second):
        if kind.startswith("tats"):                              # m_o = 1; k = 2 episodes, the fifth at the end
            assert found["acts"] == [False] * 5 + [True] * 5
            assert found["steps"] == [0] * 5 + [0, 2, 2, 4, 4] and found["end"] == 5
        else:
            assert all(found["acts"]) and found["steps"] == list(range(1, 11))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tats", "adamae"])
def test_two_processes_learn_what_one_learns_from_the_same_clips(ranks, name):
    two, one = (torch.tensor(ranks[which][f"{name} even"]["theta"]) for which in ("2-0", "1-0"))
    torch.testing.assert_close(two, one, atol=1e-6, rtol=0)
    assert ranks["1-0"][f"{name} even"]["end"] == ranks["2-0"][f"{name} even"]["end"]


@pytest.mark.slow
def test_the_trainer_on_two_processes(tmp_path):
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
               str(HERE / "trainer_rank.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
                          timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1))
    assert first == second and first["steps"] == [0, 3, 6]       # three epochs of three steps, m_o = 1
    assert first["resumed"] == first["whole"]
