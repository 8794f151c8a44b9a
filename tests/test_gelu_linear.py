"""The MLP that keeps no activation, against the plain one: the same bits, a quarter less of a block's memory."""

import copy

import pytest
import torch
from tats.engines.benchmark.timing import saved_mib
from tats.models import create_model
from tats.models.gelu_linear import GeluLinear, keep_no_activation
from timm.layers import Mlp
from torch import nn


def pair(dtype=torch.float32):
    torch.manual_seed(0)
    plain = Mlp(24, 96).to(dtype)
    lean = copy.deepcopy(plain)
    keep_no_activation(lean)
    return plain, lean


def step(mlp, inputs, autocast):
    inputs = inputs.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        found = mlp(inputs)
    (found.float() * torch.linspace(-1, 1, found.numel()).view_as(found)).sum().backward()
    return [found, inputs.grad, *(one.grad for one in mlp.parameters())]


@pytest.mark.parametrize("autocast", [False, True])
def test_values_and_gradients_have_the_same_bits(autocast):
    plain, lean = pair()
    assert list(plain.state_dict()) == list(lean.state_dict())
    inputs = torch.randn(3, 17, 24)
    for one, other in zip(step(plain, inputs, autocast), step(lean, inputs, autocast), strict=True):
        assert torch.equal(one, other) and one.dtype == other.dtype


def test_gradients_by_differences():
    _, lean = pair(torch.float64)
    assert torch.autograd.gradcheck(lean, torch.randn(2, 3, 24, dtype=torch.float64, requires_grad=True))


def test_frozen_parts_have_no_gradient():
    _, lean = pair()
    lean.fc2.requires_grad_(False)
    lean(torch.randn(2, 3, 24)).sum().backward()
    assert lean.fc2.weight.grad is None and lean.fc2.bias.grad is None and lean.fc1.weight.grad.abs().sum() > 0


def test_less_is_kept():
    plain, lean = pair()
    inputs = torch.randn(1, 4096, 24)
    kept = [saved_mib(lambda mlp=mlp: mlp(inputs).sum().backward(), [inputs, *mlp.parameters()])
            for mlp in (plain, lean)]
    assert kept[0] - kept[1] == pytest.approx(4096 * 96 * 4 / 2**20)   # the activation


def test_every_block_has_it_and_no_random_number_is_drawn_for_it():
    model = create_model("pretrain_tats_tiny", num_frames=4, img_size=32)
    assert all(isinstance(block.mlp.fc2, GeluLinear) and isinstance(block.mlp.act, nn.Identity)
               for part in (model.encoder, model.decoder) for block in part.blocks)
    torch.manual_seed(3)
    mlp = Mlp(8, 16)
    drawn = torch.get_rng_state()
    keep_no_activation(mlp)
    assert torch.equal(drawn, torch.get_rng_state())
