"""torch.compile: no break in the graph, the same numbers, the same names."""

import pytest
import torch
from tats.engines.benchmark.steps import OurStep, StepSize
from tats.engines.runs import pretraining_build
from tats.masking import TATS
from tats.models import create_model
from tats.models.mixed_precision import float32_product

SIZE = StepSize("pretrain_tats_tiny", 2, 16, 24, 0.75, 1, "fp32", "cpu")


def networks(kinds):
    mae = create_model("pretrain_tats_tiny", decoder_depth=1)
    tokens = mae.encoder.patch_embed.num_patches
    mae.num_masked = 3 * tokens // 4
    mask = torch.rand(2, tokens).argsort(dim=1) < mae.num_masked
    yield mae, (torch.randn(2, 3, 16, *mae.encoder.img_size), mask)
    for options in ({}, {"attention": "mha"})[:kinds]:
        yield TATS((4, 3, 3), 32, num_heads=2, head_init="xavier", **options), (torch.randn(2, 36, 32),)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_graph_is_whole_and_gives_the_same(dtype):
    for net, inputs in networks(2 if dtype == torch.float32 else 1):
        found = []
        for compiled in (False, True):
            if compiled:
                names = list(net.state_dict())
                net.compile(backend="aot_eager", fullgraph=True)
                assert list(net.state_dict()) == names
            net.zero_grad(set_to_none=True)
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                out = net(*inputs)
            out = out if isinstance(out, tuple) else (out,)
            sum(one.float().square().sum() for one in out).backward()
            found.append([*(one.detach() for one in out), *(one.grad for one in net.parameters())])
        close = {} if dtype == torch.float32 else {"rtol": .05, "atol": .05}
        for plain, one in zip(*found, strict=True):
            torch.testing.assert_close(one, plain, **close)
        torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_ten_compiled_steps_have_the_losses_of_ten_plain_ones(backend, monkeypatch, tmp_path, request):
    """Through the flag. Torch's own compiler has a cache of its own here, as a killed run leaves torn files."""
    if backend == "inductor":
        if not request.config.getoption("--long"):
            pytest.skip("torch's own compiler takes minutes on a CPU: --long")
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    else:
        compiled = torch.nn.Module.compile
        monkeypatch.setattr(torch.nn.Module, "compile", lambda net: compiled(net, backend=backend, fullgraph=True))
    losses = []
    for extra in ((), ("--compile",)):
        torch.manual_seed(0)
        step, own = OurStep("tats", SIZE, extra), []
        for learner in step.learners:
            learner.start(2000)   # past the warm-up, whose first rates move nothing
        for _ in range(10):
            step()
            own.append(step.meters.means()["loss"])
            step.meters.reset()
        losses.append(own)
    torch.compiler.reset()
    torch.testing.assert_close(torch.tensor(losses[1]), torch.tensor(losses[0]), rtol=1e-4, atol=1e-5)
    assert losses[0][0] != losses[0][-1]


def test_without_a_compiler_one_line_says_so(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match="finds no no-such-compiler"):
        pretraining_build.compile_in_place()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_in_float32_keeps_its_half_precision_input(dtype):
    inputs, weight = torch.randn(2, 5, 7).to(dtype).requires_grad_(), torch.randn(1, 7, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one) or one, lambda one: one):
        fast = float32_product(inputs, weight)
    plain = inputs.float() @ weight.t()
    assert torch.equal(fast, plain) and fast.dtype == torch.float32
    assert {one.data_ptr() for one in kept} == {inputs.data_ptr(), weight.data_ptr()}
    direction = torch.randn(plain.shape)
    for one, other in zip(torch.autograd.grad(fast, (inputs, weight), direction),
                          torch.autograd.grad(plain, (inputs, weight), direction), strict=True):
        torch.testing.assert_close(one, other)
