"""Two gloo processes against one, with the same global batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tats.engines.run_mae_pretraining import main
from tiny_runs import pretraining_flags

HERE = Path(__file__).parent
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


def run(command, out):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, out], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(out.read_text())


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    """Masks belong to clips, not to ranks: loss to 1e-5 at each of ten steps, five of them with the policy at work."""
    worker = str(HERE / "ddp_worker.py")
    one = run([sys.executable, worker], tmp_path / "one.json")
    two = run([*LAUNCH, worker], tmp_path / "two.json")
    for first, second in zip(one["records"], two["records"], strict=True):
        torch.testing.assert_close(torch.tensor(first["loss"]), torch.tensor(second["loss"]), atol=1e-5, rtol=0)
    for record in two["records"][5:]:
        assert abs(record["ratio"] - 1) < 1e-6 and abs(record["ratio_max"] - 1) < 1e-6
    assert two["digests"][0] == two["digests"][1]  # the ranks hold bit-equal networks
    for name in ("weights", "theta"):   # AdamW moves a weight whose gradient is nothing but rounding by whole steps
        first, second, start = (torch.tensor(run[name]) for run in (one, two, one["start"]))
        assert (first - second).norm() < 0.05 * (first - start).norm(), name


@pytest.mark.slow
def test_the_program_under_torchrun(shapes, tmp_path, caplog):
    """`torchrun -m` of the program on two processes logs what one process logs, and its checkpoint resumes alone."""
    def flags(out, batch_size, epochs):
        return pretraining_flags(shapes, out, "--mask_type", "tats", "--batch_size", str(batch_size), "--epochs",
                                 str(epochs))

    main(flags(tmp_path / "one", 8, 2))
    subprocess.run([*LAUNCH, "-m", "tats.engines.run_mae_pretraining", *flags(tmp_path / "two", 4, 2)],
                   env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, capture_output=True)
    one, two = ([json.loads(line) for line in (tmp_path / name / "log.txt").read_text().splitlines()]
                for name in ("one", "two"))
    for first, second in zip(one, two, strict=True):
        assert first["step"] == second["step"]
        torch.testing.assert_close(torch.tensor(first["train_loss"]), torch.tensor(second["train_loss"]), atol=1e-4,
                                   rtol=0)
    with caplog.at_level("INFO"):
        main(flags(tmp_path / "two", 8, 3))
    assert "resumed from" in caplog.text
