"""The estimate of a step on a GPU that is not here, against counts by hand and against the CPU's own accounting."""

import itertools

import pytest
import torch
from tats.engines.benchmark import __main__ as benchmark
from tats.engines.benchmark.estimate import GPUS, LAUNCH, OF_BANDWIDTH, OF_PEAK, seconds
from tats.engines.benchmark.ledger import Kernel, Ledger, count_step, totals
from tats.engines.benchmark.steps import OurStep, StepSize
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile

SIZE = StepSize("pretrain_videomae_small_patch16_224", 2, 4, 64, 0.75, 1, "fp32", "cpu")


def test_a_product_by_hand():
    with FakeTensorMode(), Ledger() as ledger:
        one, two = torch.empty(64, 128), torch.empty(128, 256)
        product = one @ two
        view = product.t()
        del one
    kernel, = ledger.kernels
    assert kernel == Kernel("mm", 2 * 64 * 128 * 256, 4 * (64 * 128 + 128 * 256 + 64 * 256), 1, False)
    assert ledger.peak == 4 * (64 * 128 + 128 * 256 + 64 * 256) and ledger.live == ledger.peak - 4 * 64 * 128
    assert view.shape == (256, 64)


def test_what_is_picked_or_put_is_counted_and_not_what_it_is_picked_from():
    with FakeTensorMode(), Ledger() as ledger:
        table, rows = torch.empty(1000, 8), torch.empty(3, dtype=torch.int64)
        picked = table[rows]
        table[rows] = picked
        table.gather(1, torch.empty(1000, 1, dtype=torch.int64))
    assert [(one.name, one.moved) for one in ledger.kernels] == [
        ("index", 3 * 8 + 2 * 3 * 8 * 4), ("index_put_", 2 * (3 * 8 + 3 * 8 * 4)), ("gather", 1000 * 8 + 2 * 1000 * 4)]


def test_a_kernel_takes_the_longest_of_three():
    gpu = GPUS["h100"]
    assert seconds(Kernel("mm", 10**12, 0, 1, True), gpu) == pytest.approx(1e12 / (gpu.half * OF_PEAK))
    assert seconds(Kernel("mm", 10**12, 0, 1, False), gpu) == pytest.approx(1e12 / (gpu.single * OF_PEAK))
    assert seconds(Kernel("add", 0, 10**9, 1, True), gpu) == pytest.approx(1e9 / (gpu.bandwidth * OF_BANDWIDTH))
    assert seconds(Kernel("add", 0, 8, 3, True), gpu) == 3 * LAUNCH


def allocated(step) -> int:
    """Bytes that torch's allocator holds at most during a call beyond those before, by its profiler."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        step()
    events = sorted(found.profiler.kineto_results.events(), key=lambda one: one.start_ns())
    changes = [event.nbytes() for event in events if event.name() == "[memory]"]
    return max(itertools.accumulate(changes))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["tube", "tats-lean", "adamae"])
def test_the_memory_is_that_of_the_allocator(method):
    """Real tensors, the CPU's own kernels: the ledger's peak against the profiler's, both from the second step on."""
    step = OurStep(method, SIZE)
    ledger = count_step(step, [*step.parameters(), *step.batch])
    before = ledger.live
    real = allocated(step)
    assert ledger.peak - before == pytest.approx(real, rel=.1)
    assert totals(ledger.kernels)["flops"] > 0


@pytest.mark.slow
def test_the_command(tmp_path):
    tube, tats = benchmark.main(["estimate", "--gpu", "a100", "--model", "pretrain_videomae_small_patch16_224",
                                 "--num_frames", "8", "--input_size", "64", "--amp", "bf16", "--methods", "tube",
                                 "tats", "--out", str(tmp_path / "e.csv")])
    assert tats["peak_gib"] > tube["peak_gib"] > 0 and tats["over_tube"] == pytest.approx(tats["ms"] / tube["ms"])
    assert 0 < tube["mfu"] < OF_PEAK and tats["kernels"] > tube["kernels"]


def test_the_precision_must_be_named():
    with pytest.raises(ValueError, match="--amp bf16"):
        benchmark.main(["estimate", "--amp", "auto"])
