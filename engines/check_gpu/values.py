"""Steps 2 and 3: do the networks say on this device what they say on the CPU in float32?"""

import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...masking import TATS, uniform_noise
from ...models import PretrainVisionTransformer
from ...models.vit import PatchEmbed
from ..benchmark.steps import OurStep, StepSize
from ..core.runtime import Precision
from .steps import Outcome, Place, verdict

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 5e-3}   # of the largest value of the reference


def compare_values(place: Place) -> Outcome:
    """Outputs and gradients of the masked autoencoder and of the policy in three precisions, the draw's noise bit by
    bit, and the ratio of the first pass."""
    faults, numbers = [], {}
    for name, net, inputs in networks():
        reference = outputs(net, inputs, Precision("cpu"))
        moved = net.to(place.device)
        for dtype, allowed in TOLERANCE.items():
            if "orthoformer" in name and dtype != torch.float32:
                continue   # its landmarks are chosen by an argmin, which rounding may turn to another token
            found = outputs(moved, [one.to(place.device) for one in inputs], Precision(place.device.type, dtype))
            worst = max(map(distance, found, reference))
            numbers[f"{name} {str(dtype)[6:]}"] = worst
            if not worst <= allowed:
                faults.append(f"{name} in {str(dtype)[6:]} is off by {worst:.1e} (allowed {allowed:g})")
    keys = torch.arange(1000) * 7919
    if not torch.equal(uniform_noise((1000, 64), keys, torch.device("cpu")),
                       uniform_noise((1000, 64), keys.to(place.device), place.device).cpu()):
        faults.append("the same clip draws other noise on this device than on the CPU")
    numbers["ratio"] = first_ratio(place)
    if not abs(numbers["ratio"] - 1) <= 1e-6:
        faults.append(f"the ratio of the first pass is {numbers['ratio']:.8f}, not 1")
    return verdict(faults, ", ".join(f"{name} {value:.1e}" for name, value in numbers.items() if name != "ratio"),
                   numbers)


def networks() -> Iterator[tuple[str, nn.Module, list[Tensor]]]:
    """(name, network, its inputs) on the CPU."""
    torch.manual_seed(0)
    mae = PretrainVisionTransformer(img_size=64, num_frames=8, encoder_embed_dim=128, encoder_depth=2,
                                    encoder_num_heads=2, decoder_embed_dim=64, decoder_depth=1, decoder_num_heads=1,
                                    qkv_bias=True)
    mask = torch.rand(2, 64).argsort(dim=1) < 48
    yield "MAE", mae, [torch.randn(2, 3, 8, 64, 64), mask]
    for approx in ("none", "orthoformer"):
        policy = TATS((4, 4, 4), 128, num_heads=2, head_init="xavier", approx=approx, num_landmarks=16)
        yield f"policy, {approx}", policy, [torch.randn(2, 64, 128)]


def outputs(net: nn.Module, inputs: list[Tensor], precision: Precision) -> list[Tensor]:
    """What the network says, and the gradients of its parameters, float32 on the CPU."""
    net.zero_grad(set_to_none=True)
    with precision.autocast():
        found = net(*inputs, **({"log": True} if isinstance(net, TATS) else {}))
    found = list(found) if isinstance(found, tuple) else [found]
    generator = torch.Generator().manual_seed(1)
    # A sum with weights of about 1: gradients that float16 can hold.
    sum((one.float() * torch.randn(one.shape, generator=generator).to(one.device)).sum() for one in found).backward()
    return [one.detach().float().cpu() for one in [*found, *(p.grad for p in net.parameters() if p.grad is not None)]]


def distance(found: Tensor, reference: Tensor) -> float:
    """Root mean square of the difference, as a share of the reference's (of 1e-3 where that is less: some gradients are
    0 but for rounding); inf where a value is not finite."""
    off = (found - reference).square().mean().sqrt() / reference.square().mean().sqrt().clamp(min=1e-3)
    return float(off) if off.isfinite() else float("inf")


def first_ratio(place: Place) -> float:
    """pi_theta / pi_old before theta has moved, by the engine, in its own second forward pass."""
    size = StepSize("pretrain_tats_tiny", 4, 16, 24, 0.75, 1, "auto", place.device.type)
    step = OurStep("tats-lean", size)
    step()
    means = step.meters.means()
    return max(means["ratio_max"], 2 - means["ratio_min"])


def compare_patch_embeddings(place: Place) -> Outcome:
    """The patch embedding as one matrix product against the convolution of the same weights: value, and time."""
    embed = PatchEmbed(*((64, 8, 3, 96, 8) if place.small else (224, 16, 3, 768, 16))).to(place.device)
    videos = torch.randn(2 if place.small else 32, 3, embed.num_frames, *embed.img_size, device=place.device)
    weight, bias = embed.proj.weight, embed.proj.bias

    def convolved() -> Tensor:
        return F.conv3d(videos, weight, bias, stride=embed.proj.stride).flatten(2).transpose(1, 2)

    faults, numbers = [], {}
    with torch.no_grad():
        numbers["off"] = distance(embed(videos).cpu(), convolved().cpu())
        half = place.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        with Precision(place.device.type, torch.bfloat16 if half else torch.float32).autocast():
            numbers["conv_ms"] = milliseconds(convolved, place.device)
            numbers["linear_ms"] = milliseconds(lambda: embed(videos), place.device)
    if numbers["off"] > 2e-3:   # cuDNN's convolution may use TF32
        faults.append(f"the matrix product is off by {numbers['off']:.1e}")
    if not place.small and numbers["linear_ms"] > 1.2 * numbers["conv_ms"]:
        faults.append(f"the matrix product takes {numbers['linear_ms']:.2f} ms, the convolution "
                      f"{numbers['conv_ms']:.2f}: tell us of this GPU")
    return verdict(faults, f"linear {numbers['linear_ms']:.2f} ms, convolution {numbers['conv_ms']:.2f} ms", numbers)


def milliseconds(run, device: torch.device, times: int = 5) -> float:
    """The fastest of `times` runs."""
    best = float("inf")
    for _ in range(times + 1):
        synchronize(device)
        start = time.perf_counter()
        run()
        synchronize(device)
        best = min(best, 1e3 * (time.perf_counter() - start))
    return best


def synchronize(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
