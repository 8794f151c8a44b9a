"""Time, memory and MFU of a step on a GPU that is not here, from what it does and two published figures of the GPU.

A kernel takes the longest of its FLOPs at the matrix peak, those beside the matrix units at the peak of float32, its
bytes at the bandwidth, and a launch. The shares of peak and bandwidth are what good kernels reach; the sum is a lower
bound of the time. A measured step may take 1.2 to 1.7 times as long.
"""

from collections.abc import Sequence
from typing import NamedTuple

from .ledger import Kernel, count_step, pretended_gpu, totals
from .steps import OurStep, StepSize

LAUNCH = 2.5e-6                           # seconds of the shortest kernel
OF_PEAK, OF_BANDWIDTH = 0.6, 0.8


class Gpu(NamedTuple):
    """half, single: peaks in bf16, of the matrix units, and float32, FLOP/s. bandwidth: bytes/s. As NVIDIA publishes
    them (SXM)."""

    half: float
    single: float
    bandwidth: float


GPUS = {"h100": Gpu(989e12, 67e12, 3.35e12), "h200": Gpu(989e12, 67e12, 4.8e12), "a100": Gpu(312e12, 19.5e12, 2.039e12)}


def seconds(kernel: Kernel, gpu: Gpu) -> float:
    """The least time of one kernel."""
    peak = gpu.half if kernel.half else gpu.single
    return max(kernel.flops / (peak * OF_PEAK), kernel.vector_flops / (gpu.single * OF_PEAK),
               kernel.moved / (gpu.bandwidth * OF_BANDWIDTH), LAUNCH * kernel.launches)


def estimate(methods: Sequence[str], size: StepSize, gpu: Gpu, extra: tuple[str, ...] = ()) -> list[dict]:
    """A row a method: name, ms, clips_a_second, peak_gib, mfu, kernels, gflop_a_clip, moved_gib, over_NAME of ms."""
    rows = []
    for method in methods:
        with pretended_gpu():
            step = OurStep(method, size, extra)
            step.meters.FOLD = 10**9   # a step only keeps references; folding is every 64th step's work
            ledger = count_step(step, [*step.parameters(), *step.batch])
        spent, sums = sum(seconds(one, gpu) for one in ledger.kernels), totals(ledger.kernels)
        rows.append({"name": method, "mask_ratio": size.mask_ratio, "ms": 1e3 * spent,
                     "clips_a_second": size.batch_size / spent, "peak_gib": ledger.peak / 2**30,
                     "mfu": sums["flops"] / spent / gpu.half, "kernels": sums["kernels"],
                     "gflop_a_clip": sums["flops"] / size.batch_size / 1e9, "moved_gib": sums["moved"] / 2**30})
    for row in rows:
        row |= {f"over_{other['name']}": row["ms"] / other["ms"] for other in rows if other is not row}
    return rows
