"""Every shortcut against the plain form, in value and in gradient."""

import pytest
import torch
from tats.engines.optim import make_optimizer
from tats.models import TrajectoryAttention, create_model
from tats.models.landmarks import landmark_attention, landmark_trajectories
from tats.models.mae import take, token_order
from torch import nn


def gradients(output, inputs):
    torch.manual_seed(7)
    return torch.autograd.grad((output * torch.randn(output.shape)).sum(), inputs)


def test_only_the_chosen_tokens_are_embedded():
    embed = create_model("pretrain_tats_tiny", num_frames=4, img_size=32).encoder.patch_embed
    videos = torch.randn(2, 3, 4, 32, 32)
    chosen = torch.stack([torch.randperm(embed.num_patches)[:3].sort().values for _ in range(2)])
    fast, plain = embed(videos, chosen), take(embed(videos), chosen)
    torch.testing.assert_close(fast, plain)
    for one, other in zip(gradients(fast, embed.parameters()), gradients(plain, embed.parameters()), strict=True):
        torch.testing.assert_close(one, other)


def test_the_encoder_sees_the_visible_tokens_with_their_positions():
    encoder = create_model("pretrain_tats_tiny", num_frames=4, img_size=16).encoder
    videos = torch.randn(2, 3, 4, 16, 16)
    mask = torch.ones(2, encoder.patch_embed.num_patches, dtype=torch.bool)
    mask[0, 1] = mask[1, -1] = False
    visible = token_order(mask).visible
    tokens = take(encoder.patch_embed(videos) + encoder.pos_embed, visible)
    for block in encoder.blocks:
        tokens = block(tokens)
    torch.testing.assert_close(encoder(videos, visible), encoder.norm(tokens))


def test_trajectories_through_landmarks_without_the_weights():
    queries, landmarks = torch.randn(2, 3, 12, 4, requires_grad=True), torch.randn(2, 3, 5, 4, requires_grad=True)
    keys, values = (torch.randn(2, 3, 4, 3, 4, requires_grad=True) for _ in range(2))
    fast = landmark_trajectories(queries, keys, values, landmarks)
    plain = landmark_attention(queries[:, :, None], keys, landmarks[:, :, None]) @ values
    torch.testing.assert_close(fast, plain)
    inputs = (queries, keys, values, landmarks)
    for one, other in zip(gradients(fast, inputs), gradients(plain, inputs), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("project_values", [True, False])
def test_pooling_made_again_in_the_backward_pass(project_values):
    attention = TrajectoryAttention(8, 2, qkv_bias=True, project_values=project_values)
    tokens = torch.randn(2, 12, 8, requires_grad=True)
    inputs = (tokens, *(one for name, one in attention.named_parameters()))
    attention.recompute = True
    fast = attention(tokens, 4)
    found = torch.autograd.grad(fast.square().sum(), inputs, allow_unused=True)
    attention.recompute = False
    plain = attention(tokens, 4)
    assert torch.equal(fast, plain)
    expected = torch.autograd.grad(plain.square().sum(), inputs, allow_unused=True)
    for one, other in zip(found, expected, strict=True):
        assert one is other is None or torch.equal(one, other)


def test_the_fused_optimiser_steps_as_the_plain_one():
    nets = [nn.Linear(5, 3) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    optimizers = [make_optimizer([{"params": list(net.parameters()), "weight_decay": 0.1}], fused=fused)
                  for net, fused in zip(nets, (None, False), strict=True)]
    assert optimizers[0].defaults["fused"] and not optimizers[1].defaults["fused"]
    for _ in range(3):
        inputs = torch.randn(4, 5)
        for net, optimizer in zip(nets, optimizers, strict=True):
            optimizer.param_groups[0]["lr"] = 0.1
            optimizer.zero_grad()
            net(inputs).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(nets[0].weight, nets[1].weight)


@pytest.mark.parametrize("qkv_bias", [True, False])
def test_the_norm_of_tokens_without_gradient_moves_into_the_weights(qkv_bias):
    attention, norm = TrajectoryAttention(8, 2, qkv_bias=qkv_bias), nn.LayerNorm(8, eps=1e-6)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    tokens = 3 * torch.randn(2, 12, 8) + 1
    fast, plain = attention(tokens, 4, norm), attention(norm(tokens), 4)
    torch.testing.assert_close(fast, plain)
    weights = [*norm.parameters(), attention.qkv.weight, attention.proj_kv.weight]
    for one, other in zip(gradients(fast, weights), gradients(plain, weights), strict=True):
        torch.testing.assert_close(one, other)
    needed = tokens.requires_grad_()   # inside a network
    torch.testing.assert_close(gradients(attention(needed, 4, norm), needed),
                               gradients(attention(norm(needed), 4), needed))
