"""Steps 4 to 6: how fast is a step, does the host wait, what does compiling give?"""

import statistics
import time
import warnings

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from ..benchmark.steps import OurStep, StepSize
from .steps import SKIPPED, Outcome, Place, verdict
from .values import synchronize

# Dense matrix peaks in bf16 as published, FLOP/s, by what a GPU's name contains.
MATRIX_PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "A10": 125e12, "4090": 165e12}
TATS_OVER_TUBE = 1.8


def size_of(place: Place, ratio: float = 0.95, batch: int = 32) -> StepSize:
    """ViT-B on 16 x 224 x 224, or the tiny model on a CPU."""
    if place.small:
        return StepSize("pretrain_tats_tiny", 2, 16, 24, ratio, 1, "auto", place.device.type)
    return StepSize("pretrain_videomae_base_patch16_224", batch, 16, 224, ratio, 4, "auto", place.device.type)


def measure_throughput(place: Place) -> Outcome:
    """ms, clips a second, peak memory and MFU of the maskings' steps at .95 and .90, and of a double batch."""
    rows, faults = {}, []
    wanted = [(name, ratio, 32) for ratio in (.95, .90) for name in ("random", "tube", "adamae", "tats")]
    wanted += [("tats-lean", .95, 32), ("tats", .95, 64)]
    for name, ratio, batch in wanted:
        size = size_of(place, .75 if place.small else ratio, batch)
        step = OurStep(name, size)
        rows[f"{name} {ratio:g} batch {batch}"] = row = timed_step(step, size, place, flops_of(step))
        if not row["loss_is_finite"]:
            faults.append(f"{name} at {ratio:g}: the loss is not finite")
    over = rows["tats 0.95 batch 32"]["ms"] / rows["tube 0.95 batch 32"]["ms"]
    if not place.small and over > TATS_OVER_TUBE:
        faults.append(f"a TATS step takes {over:.2f} times a tube step, more than {TATS_OVER_TUBE}")
    shown = ", ".join(f"{name} {rows[f'{name} 0.95 batch 32']['ms']:.0f} ms" for name in ("tube", "adamae", "tats"))
    return verdict(faults, f"{shown}; tats/tube {over:.2f}", rows)


def flops_of(step: OurStep) -> int:
    """Of the matrix products of one step, counted."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def timed_step(step: OurStep, size: StepSize, place: Place, flops: int) -> dict[str, float]:
    """Medians of whole steps, after two that do not count."""
    for _ in range(2):
        step()
    if place.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(place.device)
    times = []
    for _ in range(2 if place.small else 20):
        synchronize(place.device)
        start = time.perf_counter()
        step()
        synchronize(place.device)
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times)
    loss = step.meters.means().get("loss", float("nan"))
    row = {"ms": 1e3 * seconds, "clips_a_second": size.batch_size / seconds, "loss_is_finite": loss == loss,
           "gflop_a_clip": flops / size.batch_size / 1e9}
    if place.device.type == "cuda":
        row["peak_gib"] = torch.cuda.max_memory_allocated(place.device) / 2**30
        peak = next((value for name, value in MATRIX_PEAK.items() if name in torch.cuda.get_device_name()), None)
        if peak is not None:
            row["mfu"] = flops / seconds / peak
    return row


def look_for_waits(place: Place) -> Outcome:
    """Five steps of TATS: where the host waits for the GPU, how much of the time it is busy, which attention runs."""
    step = OurStep("tats", size_of(place, .75 if place.small else .95))
    step()
    cuda, faults, numbers = place.device.type == "cuda", [], {}
    if cuda:
        numbers["waits"] = waits_of(step)
        if numbers["waits"]:
            faults.append(f"the host waits in a step: {'; '.join(numbers['waits'][:3])}")
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda
    start = time.perf_counter()
    with profile(activities=activities) as found:
        for _ in range(1 if place.small else 5):
            step()
        synchronize(place.device)
    wall = time.perf_counter() - start
    names = {event.key for event in found.key_averages()}
    numbers["attention"] = sorted(name for name in names if "_scaled_dot_product" in name and "backward" not in name)
    if any("attention_math" in name for name in numbers["attention"]):
        faults.append("the attention runs as plain softmax(q k) v, not as one of the fused kernels")
    if cuda:
        numbers["busy"] = sum(event.self_device_time_total for event in found.key_averages()) / 1e6 / wall
        if numbers["busy"] < .9:
            faults.append(f"the GPU is busy for {numbers['busy']:.0%} of the time: the host starts kernels too slowly, "
                          "or others use the machine")
    return verdict(faults, f"attention by {', '.join(numbers['attention'])}", numbers)


def waits_of(step: OurStep) -> list[str]:
    """file:line of every wait that torch notes in one step, without the line that reads the meters."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return [f"{one.filename.rsplit('/', 1)[-1]}:{one.lineno}" for one in caught if "synchroniz" in str(one.message)]


def try_compiling(place: Place) -> Outcome:
    """The MAE compiled and plain: the same keys, losses within rounding, and the time of both."""
    if place.device.type == "cuda" and torch.cuda.get_device_capability(place.device) < (7, 0):
        return Outcome(SKIPPED, "torch.compile needs a GPU of compute capability 7.0")
    backend = "inductor" if place.device.type == "cuda" else "aot_eager"
    rows, faults = {}, []
    for name in ("plain", "compiled"):
        torch.manual_seed(0)
        size = size_of(place, .75 if place.small else .95)
        step = OurStep("tats", size)
        keys, flops = list(step.model.state_dict()), flops_of(step)
        if name == "compiled":
            step.model.compile(backend=backend, fullgraph=True)
        rows[name] = timed_step(step, size, place, flops) | {"loss": step.meters.means()["loss"]}
        if list(step.model.state_dict()) != keys:
            faults.append("compiling changed the names of the weights")
    off = abs(rows["compiled"]["loss"] / rows["plain"]["loss"] - 1)
    if not off < 1e-2:
        faults.append(f"the compiled loss is {rows['compiled']['loss']:.5f}, the plain one {rows['plain']['loss']:.5f}")
    return verdict(faults, f"plain {rows['plain']['ms']:.0f} ms, compiled ({backend}) {rows['compiled']['ms']:.0f} ms",
                   rows)
