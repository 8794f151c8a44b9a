"""Step 11: trajectory attention by its Triton kernels against the plain form: values, gradients, time, memory."""

import torch
from torch import Tensor

from ...models import TrajectoryAttention, use_kernel
from ...models.fused import kernel_fault
from ..benchmark.steps import OurStep
from ..core.runtime import Precision
from .speed import flops_of, size_of, timed_step
from .steps import SKIPPED, Outcome, Place, verdict
from .values import TOLERANCE, distance, milliseconds

CHANNELS = 64   # of a head, as ViT-B's
CUT_OFF = 2     # Triton's interpreter, for tests, does not round bfloat16


def compare_trajectory_kernel(place: Place) -> Outcome:
    """The layer in three precisions against the plain form in float32, each form's time at batch 32 in bf16, and whole
    steps of TATS. Skipped where the kernels cannot run."""
    if fault := kernel_fault(place.device, CHANNELS):
        return Outcome(SKIPPED, f"--trajectory_kernel triton: {fault}")
    faults, numbers = [], {}
    attention, tokens, frames = layer(place, 1)
    reference = found_by(attention, tokens, frames, "plain", Precision(place.device.type, torch.float32))
    for dtype, allowed in TOLERANCE.items():
        found = found_by(attention, tokens, frames, "triton", Precision(place.device.type, dtype))
        numbers[f"off {str(dtype)[6:]}"] = worst = max(map(distance, found, reference))
        if not worst <= allowed * (CUT_OFF if place.small else 1):
            faults.append(f"in {str(dtype)[6:]} the kernels are off by {worst:.1e} (allowed {allowed:g}): leave "
                          "--trajectory_kernel at plain")
    attention, tokens, frames = layer(place, 1 if place.small else 32)
    precision = Precision(place.device.type, torch.bfloat16)
    for kernel in ("plain", "triton"):
        numbers[f"layer {kernel} ms"] = milliseconds(lambda kernel=kernel: found_by(
            attention, tokens, frames, kernel, precision), place.device, 1 if place.small else 5)
    if not place.small:
        for name in ("tube", "tats", "tats-triton"):
            size = size_of(place)
            step = OurStep(name, size)
            numbers[f"step {name}"] = timed_step(step, size, place, flops_of(step))
    return verdict(faults, ", ".join(f"{name} {value:.2g}" if isinstance(value, float) else
                                     f"{name} {value['ms']:.1f} ms" for name, value in numbers.items()), numbers)


def layer(place: Place, batch: int) -> tuple[TrajectoryAttention, Tensor, int]:
    """(attention, tokens (B, N, D), F): ViT-B's on 16 x 224 x 224, or two small heads."""
    torch.manual_seed(0)
    heads, frames, places = (2, 2, 5) if place.small else (12, 8, 196)
    attention = TrajectoryAttention(heads * CHANNELS, heads, qkv_bias=True).to(place.device)
    return attention, torch.randn(batch, frames * places, heads * CHANNELS, device=place.device,
                                  requires_grad=True), frames


def found_by(attention: TrajectoryAttention, tokens: Tensor, frames: int, kernel: str,
             precision: Precision) -> list[Tensor]:
    """The layer's answer and the gradients of its tokens and weights, float32."""
    use_kernel(attention, kernel)
    with precision.autocast():
        answer = attention(tokens, frames)
    generator = torch.Generator().manual_seed(1)
    wanted = torch.randn(answer.shape[-1], generator=generator).to(answer.device)
    weights = [one for name, one in attention.named_parameters() if "bias" not in name]   # a key's bias has none
    return [answer.detach().float(), *(one.float() for one in torch.autograd.grad(
        (answer.float() * wanted).sum(), [tokens, *weights]))]
