"""Trajectory attention's kernels: their numbers in Triton's interpreter, that they compile for GPUs, their refusals."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tats.engines import run_mae_pretraining
from tats.engines.benchmark.estimate import GPUS, estimate, seconds
from tats.engines.benchmark.ledger import Kernel, Ledger
from tats.engines.benchmark.steps import OurStep, StepSize
from tats.engines.config.pretraining import SamplerConfig, resolve_recipe
from tats.engines.hook import SamplingHook
from tats.masking import TATS
from tats.models import TrajectoryAttention, fused, use_kernel
from tats.models.fused import availability, pooling, tiles
from torch._subclasses.fake_tensor import FakeTensorMode

TESTS = Path(__file__).parent
CASES = re.findall(r"^@case\ndef (\w+)", (TESTS / "fused_cases.py").read_text(), re.MULTILINE)
CPU = torch.device("cpu")


def has_triton():
    return importlib.util.find_spec("triton") is not None


def run_with_triton(script, *arguments, **environment):
    done = subprocess.run([sys.executable, TESTS / script, *arguments], capture_output=True, text=True, check=False,
                          env=os.environ | environment)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wrong(tmp_path_factory):
    """What was wrong in each case: one process for all, which sees Triton's variable before it imports it."""
    if not has_triton():
        pytest.skip("Triton is not installed")
    out = tmp_path_factory.mktemp("fused") / "wrong.json"
    run_with_triton("fused_cases.py", str(out), TRITON_INTERPRET="1", OMP_NUM_THREADS="1")
    return json.loads(out.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_in_the_interpreter(name, wrong):
    assert not wrong[name], wrong[name]


@pytest.mark.slow
def test_every_kernel_compiles_for_gpus(tmp_path):
    """For compute capability 9.0, and 8.0 where registers are shortest, which needs no GPU: products in the matrix
    units, shared memory that every such GPU has, and hardly a register spilled."""
    if not has_triton():
        pytest.skip("Triton is not installed")
    run_with_triton("fused_compiled.py", str(tmp_path / "out.json"), TRITON_CACHE_DIR=str(tmp_path / "cache"))
    found = json.loads((tmp_path / "out.json").read_text())
    assert {(one["kernel"], one["capability"]) for one in found} == {
        (kernel, 90) for kernel in ("forward", "backward_queries", "backward_keys", "pool", "pool backward",
                                    "backward_trajectories", "backward_weights")} | {
        ("backward_queries", 80), ("backward_weights", 80)}
    for one in found:
        assert one["matrix_units"] > 0 and one["shared"] <= 99 << 10 and one["spilled"] <= 64, one


def attention(dim=16, heads=2, **options):
    return TrajectoryAttention(dim, heads, qkv_bias=True, **options)


def on_a_gpu(monkeypatch, capability=(9, 0)):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    return torch.device("cuda", 0)


@pytest.mark.parametrize(("net", "message"), [
    (attention, "leave it at plain"), (lambda: TATS((2, 2, 2), 16, attention="mha"), "no trajectory attention"),
    (lambda: None, "no trajectory attention"), (lambda: attention(approx="orthoformer"), "not Orthoformer"),
    (lambda: attention(project_values=False), "not values as they are"),
    (lambda: attention(384, 2), "128 channels, and these have 192"),
])
def test_what_the_kernels_do_not_compute_is_refused(net, message, monkeypatch):
    device = CPU if message == "leave it at plain" else on_a_gpu(monkeypatch)
    with pytest.raises(ValueError, match=message):
        use_kernel(net(), "triton", device)
    use_kernel(net(), "plain", device)
    with pytest.raises(ValueError, match="one of plain, triton"):
        use_kernel(net(), "cuda", device)


def test_what_cannot_run_them_is_named(monkeypatch):
    gpu = on_a_gpu(monkeypatch, (7, 5))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert "capability 8.0, and this one has 7.5" in fused.kernel_fault(gpu, 64)
    assert "NVIDIA GPU, and the networks run on cpu" in fused.kernel_fault(CPU, 64)
    assert "run on mps" in fused.kernel_fault(torch.device("mps"), 64)
    on_a_gpu(monkeypatch)
    assert fused.kernel_fault(gpu, 64) is None
    monkeypatch.setattr(torch.version, "hip", "6.2")
    assert "NVIDIA" in fused.kernel_fault(gpu, 64)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install triton" in fused.kernel_fault(gpu, 64)


def test_every_way_in_refuses_a_cpu(tmp_path):
    (tmp_path / "list").write_text("a.mp4 0\n")
    with pytest.raises(ValueError, match="run on cpu"):
        run_mae_pretraining.main(["--data_path", str(tmp_path / "list"), "--mask_type", "tats", "--model",
                                  "pretrain_tats_tiny", "--device", "cpu", "--trajectory_kernel", "triton",
                                  "--output_dir", str(tmp_path / "out"), "--batch_size", "1", "--num_workers", "0"])
    with pytest.raises(ValueError, match="run on cpu"):
        SamplingHook(None, "tats", (2, 3, 3), tokens="given", width=16, trajectory_kernel="triton")
    with pytest.raises(ValueError, match="run on cpu"):
        OurStep("tats-triton", StepSize("pretrain_tats_tiny", 1, 4, 24, 0.75, 1, "fp32", "cpu"))


def test_a_network_that_was_moved_to_the_cpu_is_refused(monkeypatch):
    net = attention()
    use_kernel(net, "triton", on_a_gpu(monkeypatch))
    with pytest.raises(ValueError, match="run on cpu.*use_kernel"):
        net(torch.zeros(1, 4, 16), 2)


@pytest.mark.parametrize("change", [lambda one: one.double(), lambda one: one.bfloat16()])
def test_other_dtypes_are_refused(change):
    queries, keys = torch.zeros(1, 1, 2, 8), torch.zeros(1, 1, 1, 2, 8)
    with pytest.raises(ValueError, match="of one dtype"):
        fused.fused_trajectories(change(queries), keys, keys)
    with pytest.raises(ValueError, match="of one dtype"):
        fused.fused_trajectories(*(one.double() for one in (queries, keys, keys)))


@pytest.mark.parametrize("flags", [{"tats_recipe": "paper"}, {"tats_attention": "mha"},
                                   {"tats_project_values": False}])
def test_flags_that_do_not_go_together(flags):
    with pytest.raises(ValueError, match="--trajectory_kernel triton"):
        resolve_recipe(SamplerConfig(trajectory_kernel="triton", **flags))


def test_tiles():
    assert [tiles.side(*one) for one in ((64, 2), (64, 4), (128, 2), (128, 4), (24, 2))] == [64, 32, 32, 16, 64]
    assert [tiles.heads_at_once(*one) for one in ((12, 64, 2), (6, 64, 2), (3, 64, 2), (12, 128, 4))] == [4, 2, 1, 1]
    assert [tiles.rows_at_once(*one) for one in ((8, 2), (16, 2), (8, 4))] == [32, 16, 16]


def test_the_costs_by_hand():
    """B = 2, h = 3, F = 2, P = 5 padded to 64, d = 8 in bf16; of Eq. 2 R = 20 rows."""
    with FakeTensorMode(), Ledger() as ledger:
        queries = torch.empty(2, 3, 10, 8, dtype=torch.bfloat16, requires_grad=True)
        keys, values = (torch.empty(2, 3, 2, 5, 8, dtype=torch.bfloat16, requires_grad=True) for _ in range(2))
        found = fused.fused_trajectories(queries, keys, values)
        found.backward(torch.empty_like(found))
    scores = 2 * 2 * 3 * 10 * 2 * 64 * 8
    small, sums, large = 2 * 480, 4 * 120, 2 * 960   # bytes of q, k, v each; of the softmaxes' sums; of y~
    forward, backward = (one for one in ledger.kernels if one.name.startswith("trajectories"))
    assert forward == Kernel("trajectories", 2 * scores, 3 * small + large + sums, 1, True)
    # Twice each: dy~, q, k, v, the sums and delta. Once: y~, dq, dk, dv.
    assert backward == Kernel("trajectories_backward", 7 * scores, 2 * (large + 3 * small + 2 * sums) + large
                              + 3 * small, 2, True)
    with FakeTensorMode(), Ledger() as ledger:
        queries, along, weight = (torch.empty(*shape, dtype=torch.bfloat16)
                                  for shape in ((20, 24), (20, 2, 24), (48, 24)))
        pooled, shares = pooling._pool_rows(queries, along, weight, 3)
        before = ledger.live
        pooling._pool_rows_backward(pooled, queries, along, weight, shares)
        peak = ledger.peak
    forward, backward = ledger.kernels
    rows, long, weights, shares = 2 * 480, 2 * 960, 2 * 1152, 4 * 120
    assert forward == Kernel("pool_rows", 2 * 2 * 20 * 24 * 24, 2 * rows + 2 * long + weights + shares, 1, True,
                             2 * 2 * 20 * 3 * 2 * 24)
    partial = 8 * 4 * 1152
    assert (backward.flops, backward.launches) == (3 * forward.flops, 4)
    assert backward.vector_flops == 3 * forward.vector_flops
    assert backward.moved == sum((
        2 * rows + 2 * long + weights + 2 * shares, 2 * rows + weights + 2 * shares + long,
        2 * rows + long + 2 * shares + weights, 2 * partial))
    assert peak >= before + partial


def test_vector_flops_take_the_peak_of_float32():
    assert seconds(Kernel("pool", 0, 0, 1, True, 10**12), GPUS["h100"]) == pytest.approx(1e12 / (67e12 * .6))


def test_the_estimate_counts_the_kernels():
    plain, fast = estimate(["tats", "tats-triton"], StepSize("pretrain_tats_tiny", 2, 16, 24, 0.75, 1, "bf16", "cpu"),
                           GPUS["h100"])
    assert fast["over_tats"] == pytest.approx(fast["ms"] / plain["ms"])
    assert fast["kernels"] < plain["kernels"] and fast["gflop_a_clip"] > plain["gflop_a_clip"]


def test_the_interpreter_is_for_those_who_ask(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert availability.interpreted() and fused.kernel_fault(CPU, 64) is None
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    assert not availability.interpreted() and fused.kernel_fault(CPU, 64)
