"""The forms for GPUs, of few large operations, against those for CPUs and against plain ones, in value and gradient."""

import pytest
import torch
import torch.nn.functional as F
from tats.engines.benchmark.ledger import Ledger
from tats.engines.benchmark.steps import OurStep, StepSize
from tats.masking import TATS
from tats.models import TrajectoryAttention, kernels, mixed_precision, reconstruction_targets, temporal_pooling_large
from tats.models import trajectory_attention as trajectory
from tats.models.mixed_precision import gelu_product, squared_errors
from tats.models.temporal_pooling import plain_pool_over_time
from tats.models.temporal_pooling_large import pool_over_time_large
from torch import nn


@pytest.fixture
def form(monkeypatch):
    """`form(large)`: which of the two runs from now on."""
    return lambda large: monkeypatch.setattr(kernels, "wants_large", lambda tensor: large)


def gradients(output, inputs):
    torch.manual_seed(7)
    return torch.autograd.grad((output * torch.randn(output.shape)).sum(), inputs)


def equal_in_value_and_gradient(one, other, inputs, **close):
    torch.testing.assert_close(one, other, **close)
    for mine, wanted in zip(gradients(one, inputs), gradients(other, inputs), strict=True):
        torch.testing.assert_close(mine, wanted, **close)


FLOAT32 = {"rtol": 1e-5, "atol": 1e-5}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, FLOAT32), (torch.float64, {})])
@pytest.mark.parametrize("most_bytes", [1 << 20, 700], ids=["at once", "in pieces"])
def test_all_tokens_at_once_are_eq_2_as_it_stands(bias, dtype, close, most_bytes, monkeypatch):
    monkeypatch.setattr(temporal_pooling_large, "MOST_BYTES", most_bytes)
    attention = TrajectoryAttention(8, 2, qkv_bias=bias).to(dtype)
    for layer in (attention.proj_q, attention.proj_kv):
        if bias:
            nn.init.normal_(layer.bias)
    trajectories = torch.randn(2, 12, 4, 8, dtype=dtype, requires_grad=True)      # token, frame that is looked at
    fast = pool_over_time_large(trajectories, attention.proj_q, attention.proj_kv.weight, 2)
    fast = fast + attention.proj_kv.bias[8:] if bias else fast
    plain = plain_pool_over_time(trajectories.transpose(1, 2), attention.proj_q, attention.proj_kv, 2)
    equal_in_value_and_gradient(fast, plain, (trajectories, *attention.proj_q.parameters(), attention.proj_kv.weight),
                                **close)


def test_pieces_keep_below_their_bytes(monkeypatch):
    monkeypatch.setattr(temporal_pooling_large, "MOST_BYTES", 4 * 2 * 8 * 4 * 5)   # of five rows
    pieces = temporal_pooling_large._pieces(torch.empty(3, 4, 2, 8), 2)
    assert [piece.stop - piece.start for piece in pieces] == [4, 4, 4]


@pytest.mark.parametrize(("heads", "options"), [
    (3, {}), (1, {}), (3, {"approx": "orthoformer", "num_landmarks": 5}), (3, {"project_values": False}),
], ids=["exact", "one head", "orthoformer", "unprojected"])
def test_the_attention_is_the_same_in_both_forms(heads, options, form):
    attention, norm = TrajectoryAttention(12, heads, qkv_bias=True, **options), nn.LayerNorm(12)
    nn.init.normal_(norm.weight)
    tokens = torch.randn(2, 20, 12, requires_grad=True)
    weights = [one for name, one in attention.named_parameters() if not name.startswith("proj_kv") or not options]
    found = []
    for large in (True, False):
        form(large)
        found.append(attention(tokens, 4, norm))
    equal_in_value_and_gradient(*found, [tokens, *weights, *norm.parameters()], **FLOAT32)


def test_in_bfloat16_both_forms_are_equally_near_to_float32(form):
    attention = TrajectoryAttention(16, 2, qkv_bias=True)
    tokens = torch.randn(2, 24, 16, requires_grad=True)
    weights = (tokens, *attention.proj_q.parameters(), attention.proj_kv.weight)
    form(False)
    exact = attention(tokens, 4)
    wanted = [exact, *gradients(exact, weights)]
    for large in (False, True):
        form(large)
        with torch.autocast("cpu", torch.bfloat16):
            half = attention(tokens, 4)
        for one, other in zip([half, *gradients(half, weights)], wanted, strict=True):
            assert (one - other).norm() < 0.02 * other.norm(), large


@pytest.mark.parametrize("options", [{}, {"depth": 2}, {"attention": "mha"}, {"softmax_temp": 2.0}], ids=str)
def test_the_policy_is_the_same_in_both_forms(options, form):
    sampler = TATS((4, 3, 1), 8, 2, visible=2, head_init="xavier", **options)
    for block in sampler.blocks:
        nn.init.normal_(block.mlp.fc2.bias)
        nn.init.normal_(block.norm2.bias)
    tokens = torch.randn(3, 12, 8)
    found = []
    for large in (True, False):
        form(large)
        found.append(sampler(tokens, log=True))
    (one, value), (other, wanted) = found
    torch.testing.assert_close(value, wanted)
    equal_in_value_and_gradient(one, other, [*sampler.blocks.parameters(), *sampler.policy_head.parameters()],
                                rtol=1e-4, atol=1e-5)


def test_whole_steps_are_the_same_in_both_forms(form):
    losses = []
    for large in (True, False):
        form(large)
        torch.manual_seed(0)
        step, own = OurStep("tats", StepSize("pretrain_tats_tiny", 3, 16, 24, 0.75, 1, "fp32", "cpu")), []
        for learner in step.learners:
            learner.start(2000)   # past the warm-up
        for _ in range(3):
            step()
            means = step.meters.means()
            own.append([means[name] for name in ("loss", "sampling_loss", "sampler_grad_norm", "grad_norm", "reward")])
            step.meters.reset()
        losses.append(own)
    torch.testing.assert_close(torch.tensor(losses[0]), torch.tensor(losses[1]), rtol=1e-4, atol=1e-5)
    assert losses[0][0] != losses[0][2]


def test_queries_are_kept_once():
    """Of queries that are repeated for eight frames the backward pass has those of one."""
    queries = torch.randn(2, 3, 16, 4, requires_grad=True)
    with Ledger() as ledger:
        ledger.track(queries)
        before = ledger.live
        found = trajectory._with_repeated(queries, 8, lambda repeated: repeated.square().sum())
        kept = ledger.live - before
    assert kept < queries.numel() * 4
    wanted = 8 * (queries ** 2).sum()
    equal_in_value_and_gradient(found, wanted, (queries,))


def test_gelu_s_values_are_made_again():
    inputs, weight = torch.randn(3, 5, 7, requires_grad=True), torch.randn(1, 7, requires_grad=True)
    equal_in_value_and_gradient(gelu_product(inputs, weight), F.gelu(inputs) @ weight.t(), (inputs, weight))


@pytest.mark.parametrize("most_bytes", [1 << 20, 100], ids=["at once", "in pieces"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_errors_of_a_few_clips_at_once(dtype, most_bytes, monkeypatch):
    monkeypatch.setattr(mixed_precision, "MOST_BYTES", most_bytes)
    prediction, target = torch.randn(5, 3, 8).to(dtype).requires_grad_(), torch.randn(5, 3, 8)
    plain = (prediction.float() - target).square().mean(dim=-1)
    equal_in_value_and_gradient(squared_errors(prediction, target), plain, (prediction,), rtol=0, atol=0)


def test_nothing_is_one_piece():
    assert squared_errors(torch.zeros(0, 3, 8), torch.zeros(0, 3, 8)).shape == (0, 3)
    assert mixed_precision.pieces(torch.zeros(4, 0)) == [slice(0, 4)]


@pytest.mark.parametrize("normalize", [True, False])
def test_targets_of_a_few_clips_at_once(normalize, form, monkeypatch):
    monkeypatch.setattr(mixed_precision, "MOST_BYTES", 4 * 9 * 384 * 2)   # of two clips
    pixels, mask = torch.rand(5, 3, 4, 16, 24), torch.rand(5, 12).argsort(dim=1) < 9
    found = []
    for large in (True, False):
        form(large)
        found.append(reconstruction_targets(pixels, mask, 8, 2, normalize))
    assert torch.equal(*found)


def test_three_parts_in_bfloat16_are_the_float32_number(monkeypatch):
    """The product that only a GPU has is put in as its definition: products and sums in float32."""
    asked = []

    def product(one, other, out_dtype):
        asked.append((one.dtype, other.dtype))
        return one.to(out_dtype) @ other.to(out_dtype)

    half, other = torch.randn(40, 30).bfloat16(), torch.randn(30, 2) * 10.0 ** torch.arange(-9, 6).repeat(2)[:, None]
    wanted = half.double() @ other.double()
    monkeypatch.setattr(kernels, "sums_in_float32", lambda one: one.dtype == torch.bfloat16)
    monkeypatch.setattr(torch, "mm", product)
    found = kernels.float32_mm(half, other)
    torch.testing.assert_close(found, wanted.float(), rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))
    assert asked == [(torch.bfloat16, torch.bfloat16)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_an_outer_product_is_rounded_where_it_is_written(dtype, form):
    form(True)
    gradient, weight = torch.randn(2, 5, 1), torch.randn(1, 7)
    assert torch.equal(kernels.outer_product(gradient, weight, dtype), (gradient @ weight).to(dtype))
    assert torch.equal(kernels.outer_product(torch.ones(2, 3), torch.eye(3), dtype), torch.ones(2, 3, dtype=dtype))


def test_a_cpu_keeps_its_form_and_a_gpu_has_the_other():
    assert not kernels.wants_large(torch.zeros(1)) and kernels.wants_large(torch.zeros(1, device="meta"))
