"""What the samplers of the table start from and refuse, value by value."""

import pytest
import torch
from pretraining_setup import tiny_mae
from tats.engines.pretrain.interface import tokenize
from tats.masking import MASKINGS, AdaMAESampler, Masking, RandomMasking, TokenGrid, TokenSampler
from tats.masking.tats import TATS, SamplerBlock
from torch import nn

GRID = TokenGrid(4, 3, 3)


class Even(TokenSampler):
    def policy(self, tokens):
        return tokens.mean(dim=-1), None


@pytest.mark.parametrize(("options", "count"), [({}, 1), ({"mask_ratio": 0.75}, 9), ({"visible": 7}, 7)])
def test_a_sampler_shows_what_ratio_or_count_say(options, count):
    """36 tokens: 5 % are 1.8, rounded down."""
    sampler = Even(GRID, **options)
    log_pi, value = sampler(torch.randn(2, 36, 8), log=True)
    assert sampler.num_visible == count and value is None
    assert (~sampler.draw(log_pi).mask).sum(dim=1).tolist() == [count] * 2
    assert (~sampler.draw(log_pi, visible=3).mask).sum(dim=1).tolist() == [3] * 2


def test_only_policy_must_be_written():
    with pytest.raises(TypeError, match="policy"):
        TokenSampler(GRID)


def test_the_published_start_of_adamaes_sampler():
    """Xavier-uniform weights, within sqrt(6 / (in + out)) and filling that range; biases 0."""
    torch.manual_seed(0)
    for module in AdaMAESampler(GRID, 64).modules():
        if isinstance(module, nn.Linear):
            bound = (6 / (module.in_features + module.out_features)) ** .5
            assert .9 * bound < module.weight.abs().max() <= bound
            assert module.bias is None or not module.bias.any()


@pytest.mark.parametrize(("options", "word"), [
    ({"num_heads": 5}, "heads"), ({"attention": "linear"}, "linear"), ({"head_init": "ones"}, "ones")])
def test_tats_refuses_what_it_cannot_build(options, word):
    with pytest.raises(ValueError, match=word):
        TATS(GRID, 24, **options)


def test_joint_attention_has_biases_as_trajectory_attention_has():
    for attention in ("trajectory", "mha"):
        block = TATS(GRID, 24, 2, attention=attention).blocks[0]
        assert block.attn.qkv.bias is not None, attention


@pytest.mark.parametrize("eps_of", ["norm1", "norm2"])
def test_norms_have_a_small_epsilon(eps_of):
    assert getattr(SamplerBlock(8, nn.Identity()), eps_of).eps == 1e-6


@pytest.mark.parametrize("learner", ["ppo", "reinforce"])
def test_a_learner_without_a_sampler_is_refused(learner):
    with pytest.raises(ValueError, match="sampler"):
        Masking(RandomMasking, learner=learner)


def test_probabilities_are_float32_under_autocast():
    """bf16 would round log pi to three digits; the policy differs from float32's by the tokens' rounding alone."""
    torch.manual_seed(0)
    sampler = TATS(GRID, 24, 2, mask_ratio=0.75, head_init="xavier")
    tokens = torch.randn(3, 36, 24)
    with torch.autocast("cpu", torch.bfloat16):
        log_pi, value = sampler(tokens, log=True)
    assert log_pi.dtype == value.dtype == torch.float32
    assert not torch.equal(log_pi, log_pi.bfloat16().float())
    torch.testing.assert_close(value, sampler(tokens)[1])


def test_tokens_with_and_without_positions():
    mae = tiny_mae()
    videos = torch.randn(2, 3, 8, 12, 12)
    bare, placed = (tokenize(mae, videos, positions=positions) for positions in (False, True))
    torch.testing.assert_close(bare, mae.encoder.patch_embed(videos).detach())
    torch.testing.assert_close(placed - bare, mae.encoder.pos_embed.expand(2, -1, -1), rtol=1e-4, atol=1e-5)
    assert not bare.requires_grad and not placed.requires_grad


def test_a_ratio_that_hides_nothing_is_said_to():
    """Of 36 patches of a frame a tube mask hides int(.01 * 36) = 0."""
    with pytest.raises(ValueError, match="mask_ratio 0.01 hides none of the 36 patches.* 0.0278"):
        MASKINGS["tube"].per_clip((8, 6, 6), .01)
    assert MASKINGS["tube"].per_clip((8, 6, 6), .01, visible=8).num_visible == 8
    assert MASKINGS["tube"].per_clip((8, 6, 6), .0278).num_visible == 280
