"""Every shortcut against the plain form, in value and in gradient."""

import pytest
import torch
import torch.nn.functional as F
from tats.engines.training.optim import make_optimizer
from tats.masking.tats import TATS
from tats.models import TrajectoryAttention, create_model
from tats.models.landmarks import landmark_attention, landmark_trajectories
from tats.models.mae import take, token_order
from tats.models.temporal_pooling import plain_pool_over_time
from tats.models.vit import PatchEmbed
from torch import nn


def gradients(output, inputs):
    torch.manual_seed(7)
    return torch.autograd.grad((output * torch.randn(output.shape)).sum(), inputs)


@pytest.mark.parametrize("chosen", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_patch_embedding_is_the_convolution_of_its_parameters(chosen, dtype):
    embed = PatchEmbed((16, 32), 8, 3, 24, num_frames=6, tubelet_size=2).to(dtype)
    assert {name: tuple(value.shape) for name, value in embed.state_dict().items()} == {
        "proj.weight": (24, 3, 2, 8, 8), "proj.bias": (24,)}
    videos = torch.randn(3, 3, 6, 16, 32, dtype=dtype, requires_grad=True)
    places = torch.stack([torch.randperm(embed.num_patches)[:5] for _ in range(3)]) if chosen else None
    plain = F.conv3d(videos, embed.proj.weight, embed.proj.bias, stride=(2, 8, 8)).flatten(2).transpose(1, 2)
    plain = plain if places is None else take(plain, places)
    fast = embed(videos, places)
    close = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {}
    torch.testing.assert_close(fast, plain, **close)
    inputs = (videos, *embed.parameters())
    for one, other in zip(gradients(fast, inputs), gradients(plain, inputs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 if dtype == torch.float32 else 1e-12)


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


def pooled_plainly(trajectories, attention):
    """Eq. 2 with every key and value made: trajectories (B, F, N, D)."""
    return plain_pool_over_time(trajectories, attention.proj_q, attention.proj_kv, attention.num_heads)


@pytest.mark.parametrize("bias", [True, False])
def test_pooling_over_time_a_frame_of_tokens_at_a_time(bias):
    attention = TrajectoryAttention(8, 2, qkv_bias=bias)
    if bias:
        nn.init.normal_(attention.proj_q.bias)
    trajectories = torch.randn(2, 4, 12, 8, requires_grad=True)
    fast, plain = attention._pool_over_time(trajectories), pooled_plainly(trajectories, attention)
    torch.testing.assert_close(fast, plain)
    inputs = (trajectories, *attention.proj_q.parameters(), *attention.proj_kv.parameters())
    for one, other in zip(gradients(fast, inputs), gradients(plain, inputs), strict=True):
        torch.testing.assert_close(one, other)


def test_pooling_over_time_in_bfloat16():
    attention = TrajectoryAttention(8, 2, qkv_bias=True)
    tokens = torch.randn(2, 12, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        half = attention(tokens, 4)
    assert half.dtype == torch.bfloat16
    weights = (tokens, *attention.proj_q.parameters(), attention.proj_kv.weight)
    for one, other in zip(gradients(half, weights), gradients(attention(tokens, 4), weights), strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() < 0.05 * other.norm()


@pytest.mark.parametrize("attention", ["trajectory", "mha"])
def test_the_policy_head_is_multiplied_into_the_last_block(attention):
    sampler = TATS((4, 3, 1), 8, 2, depth=2, attention=attention, visible=2, head_init="xavier")
    first, last = sampler.blocks
    nn.init.normal_(last.mlp.fc2.bias)
    tokens = torch.randn(3, 12, 8)
    fast, plain = sampler(tokens, log=True)[0], sampler.policy_head(last(first(tokens))).squeeze(-1).log_softmax(-1)
    torch.testing.assert_close(fast, plain)
    weights = [*sampler.blocks.parameters(), *sampler.policy_head.parameters()]
    for one, other in zip(gradients(fast, weights), gradients(plain, weights), strict=True):
        torch.testing.assert_close(one, other)


def test_each_clip_s_policy_is_its_own():
    sampler = TATS((4, 3, 1), 8, 2, visible=2, head_init="xavier")
    tokens = torch.randn(3, 12, 8)
    for number in range(3):
        torch.testing.assert_close(sampler(tokens)[0][number], sampler(tokens[number:number + 1])[0][0])


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
