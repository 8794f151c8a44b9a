"""The trajectory kernels in Triton's interpreter, case by case: `TRITON_INTERPRET=1 python fused_cases.py OUT`.

Triton reads the variable when it is imported: the cases need a process of their own. OUT gets what was wrong by case.
"""

import json
import sys
import traceback
from pathlib import Path
from unittest import mock

import torch
from tats.engines.benchmark.steps import OurStep, StepSize
from tats.engines.check_gpu import __main__ as check_gpu
from tats.engines.check_gpu.steps import PASSED, Place, outcome_of
from tats.engines.hook import SamplingHook
from tats.models import TrajectoryAttention, fused, use_kernel
from tats.models.fused import pooling, trajectories
from tats.models.temporal_pooling import plain_pool_over_time
from torch import nn

FLOAT32 = {"rtol": 1e-5, "atol": 1e-5}
CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


def gradients(output, inputs, seed=7):
    generator = torch.Generator().manual_seed(seed)
    return torch.autograd.grad((output.float() * torch.randn(output.shape, generator=generator)).sum(), inputs)


def equal(one, other, inputs, **close):
    torch.testing.assert_close(one, other, **close)
    for mine, wanted in zip(gradients(one, inputs), gradients(other, inputs), strict=True):
        torch.testing.assert_close(mine, wanted, **close)


def plain_trajectories(queries, keys, values):
    """Eq. 1 as it stands, (B, N, F, D)."""
    scores = torch.einsum("bhnd,bhfpd->bhnfp", queries, keys) * queries.shape[-1] ** -0.5
    return torch.einsum("bhnfp,bhfpd->bnfhd", scores.softmax(dim=-1), values).flatten(3)


def eq_1(batch, heads, frames, places, width, dtype=torch.float32):
    """q, k, v as the layer makes them: views of one tensor (B, N, 3 h d), the head no outer dimension."""
    qkv = torch.randn(batch, frames * places, 3 * heads * width, dtype=dtype, requires_grad=True)
    queries, keys, values = (one.unflatten(-1, (heads, width)).transpose(1, 2) for one in qkv.chunk(3, dim=-1))
    keys, values = (one.unflatten(2, (frames, places)) for one in (keys, values))
    return qkv, (queries, keys, values)


def trajectories_are_eq_1(*sizes):
    qkv, inputs = eq_1(*sizes)
    equal(fused.fused_trajectories(*inputs), plain_trajectories(*inputs), [qkv], **FLOAT32)


@case
def eq_1_of_odd_counts():
    trajectories_are_eq_1(2, 3, 3, 7, 16)


@case
def eq_1_of_one_frame_and_one_head():
    trajectories_are_eq_1(1, 1, 1, 5, 8)


@case
def eq_1_of_several_tiles_of_queries_and_keys():
    """70 places in tiles of 32: a full one, another, and one of 6; a width that is no power of two."""
    trajectories_are_eq_1(1, 1, 2, 70, 24)


@case
def eq_1_of_heads_of_64_and_128_channels():
    trajectories_are_eq_1(1, 2, 2, 5, 64)
    trajectories_are_eq_1(1, 1, 2, 5, 128)


@case
def eq_1_of_any_strides():
    """Channels far apart, in each of the three another way."""
    queries = torch.randn(2, 8, 2, 15).permute(0, 2, 3, 1).requires_grad_()
    keys = torch.randn(8, 5, 2, 2, 3).permute(2, 3, 4, 1, 0).requires_grad_()
    values = torch.randn(2, 2, 3, 5, 16)[..., ::2].requires_grad_()
    assert not any(one.is_contiguous() for one in (queries, keys, values))
    inputs = queries, keys, values
    equal(fused.fused_trajectories(*inputs), plain_trajectories(*inputs), inputs, **FLOAT32)


@case
def eq_1_of_large_scores():
    """The softmax's largest score is taken off before exp: 200 is more than float32's exp holds."""
    qkv, inputs = eq_1(1, 1, 2, 40, 16)
    inputs = [inputs[0] * 8, inputs[1] * 8, inputs[2]]
    found, plain = fused.fused_trajectories(*inputs), plain_trajectories(*inputs)
    assert (inputs[0] @ inputs[1].flatten(2, 3).transpose(2, 3) / 4).max() > 200
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-4)   # a score of 200 is rounded to 1e-5


def pool_is_eq_2(batch, frames, places, dim, heads):
    proj_q, proj_kv = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim, bias=False)
    along = torch.randn(batch, frames * places, frames, dim, requires_grad=True)
    found = fused.pool_over_time_fused(along, proj_q, proj_kv.weight, heads)
    plain = plain_pool_over_time(along.transpose(1, 2), proj_q, proj_kv, heads)
    equal(found, plain, (along, *proj_q.parameters(), proj_kv.weight), **FLOAT32)


@case
def eq_2_of_odd_counts():
    pool_is_eq_2(2, 3, 7, 48, 3)


@case
def eq_2_of_one_frame_and_one_head_and_of_heads_of_64_channels():
    pool_is_eq_2(1, 1, 5, 8, 1)
    pool_is_eq_2(1, 2, 5, 128, 2)


@case
def eq_2_of_several_tiles():
    """150 rows in tiles of 16 and their weights' gradient in several parts; 36 channels in tiles of 32; four heads at
    once, whose width is no power of two."""
    pool_is_eq_2(3, 5, 10, 36, 4)


def both_forms(attention, *inputs):
    found = []
    for kernel in ("plain", "triton"):
        use_kernel(attention, kernel)
        found.append(attention(*inputs))
    return found


@case
def the_layer_is_the_same_in_both_forms():
    attention, norm = TrajectoryAttention(24, 3, qkv_bias=True), nn.LayerNorm(24)
    for one in attention.parameters():
        nn.init.normal_(one, std=.3)
    tokens = torch.randn(2, 20, 24, requires_grad=True)
    plain, triton = both_forms(attention, tokens, 4, norm)
    equal(triton * .1, plain * .1, [tokens, *attention.parameters(), *norm.parameters()], **FLOAT32)


def near(dtype, allowed, times_plain):
    """Root mean squares of the differences from float32, as shares of float32's own: at most `allowed`, and at most
    `times_plain` of the plain form's."""
    attention, tokens = TrajectoryAttention(32, 2, qkv_bias=True), torch.randn(2, 30, 32, requires_grad=True)
    weights = (tokens, attention.qkv.weight, *attention.proj_q.parameters(), attention.proj_kv.weight)
    exact = attention(tokens, 3)
    wanted = [exact, *gradients(exact, weights)]
    off = {}
    for kernel in ("plain", "triton"):
        use_kernel(attention, kernel)
        with torch.autocast("cpu", dtype):
            half = attention(tokens, 3)
        off[kernel] = [float((one.detach().float() - other.detach()).norm() / other.detach().norm()) for one, other in
                       zip([half, *gradients(half, weights)], wanted, strict=True)]
    for plain, triton in zip(off["plain"], off["triton"], strict=True):
        assert triton <= min(allowed, times_plain * plain + 1e-4), off


@case
def in_bfloat16_it_is_near_to_float32():
    """The interpreter cuts bfloat16 off where a GPU rounds to the nearest, which multiplies errors by two to three."""
    near(torch.bfloat16, 3e-2, 4)


@case
def in_float16_it_is_as_near_to_float32_as_the_plain_form():
    near(torch.float16, 5e-3, 1.2)


@case
def torch_takes_the_operations_for_its_own():
    """Schema, shapes of the fake tensors, registered gradient, as `torch.library.opcheck` tests them."""
    torch.library.opcheck(trajectories._trajectories, eq_1(1, 2, 2, 3, 8)[1])
    queries, along, weight = torch.randn(6, 8), torch.randn(6, 2, 8), torch.randn(16, 8)
    pooled, shares = pooling._pool_rows(queries, along, weight, 2)
    torch.library.opcheck(pooling._pool_rows, (queries, along, weight, 2))
    torch.library.opcheck(pooling._pool_rows_backward, (pooled, queries, along, weight, shares))


@case
def it_compiles_without_a_break():
    attention = TrajectoryAttention(16, 2, qkv_bias=True)
    use_kernel(attention, "triton")
    tokens = torch.randn(2, 12, 16, requires_grad=True)
    plain = attention(tokens, 3)
    compiled = torch.compile(attention, backend="aot_eager", fullgraph=True)(tokens, 3)
    equal(compiled, plain, (tokens, *attention.qkv.parameters(), attention.proj_kv.weight), **FLOAT32)


@case
def two_steps_of_training_have_the_losses_of_the_plain_form():
    found = []
    for method in ("tats", "tats-triton"):
        torch.manual_seed(0)
        step = OurStep(method, StepSize("pretrain_tats_tiny", 1, 4, 24, 0.75, 1, "fp32", "cpu"))
        for learner in step.learners:
            learner.start(2000)   # past the warm-up, whose first rates move nothing
        for _ in range(2):
            step()
        sampler = step.learners[1].module
        found.append([torch.tensor(step.meters.means()["loss"]), *(one.detach() for one in sampler.parameters())])
        kernels = {one.kernel for one in sampler.modules() if isinstance(one, TrajectoryAttention)}
        assert kernels == {"triton" if method == "tats-triton" else "plain"}
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@case
def the_check_of_a_gpu_compares_and_can_fail():
    place = Place(torch.device("cpu"), True, Path())
    found = outcome_of(check_gpu.STEPS[10], place)
    assert found.state == PASSED and found.numbers["layer triton ms"] > 0, found
    with mock.patch.object(fused, "fused_trajectories", lambda *inputs: plain_trajectories(*inputs) * 1.001):
        assert "in float32 the kernels are off" in outcome_of(check_gpu.STEPS[10], place).found


@case
def a_hook_takes_it():
    masks = []
    for kernel in ("plain", "triton"):
        torch.manual_seed(0)
        hook = SamplingHook(None, "tats", grid=(2, 3, 3), mask_ratio=.5, tokens="given", width=16,
                            mae_only_epochs=0, trajectory_kernel=kernel, policy_head_init="xavier")
        masks.append(hook.sampler.module(torch.linspace(-1, 1, 2 * 18 * 16).reshape(2, 18, 16)))
    for one, other in zip(*masks, strict=True):
        if one is not None:
            torch.testing.assert_close(one.float(), other.float(), **FLOAT32)


def main(out):
    wrong = {}
    for name, run in CASES.items():
        torch.manual_seed(0)
        try:
            run()
            wrong[name] = ""
        except Exception:  # noqa: BLE001 - the next cases must run whatever this one ran into
            wrong[name] = traceback.format_exc()
    Path(out).write_text(json.dumps(wrong))


if __name__ == "__main__":
    main(sys.argv[1])
