"""Equations 7 and 8 by hand."""

import math
import multiprocessing

import pytest
import torch
import torch.distributed as dist
from tats.engines.config.pretraining import SamplerConfig, resolve_recipe
from tats.engines.pretrain.ppo import (
    EntropyCoefficient,
    Episode,
    advantages,
    clipped_objective,
    entropy,
    sampling_loss,
    step_moments,
    token_weights,
)


def policy_flags(**given):
    """The policy's flags, with their recipe resolved."""
    return resolve_recipe(SamplerConfig(**given))


def episode(error, old_log_prob=None, masked=None, value=None, indices=None):
    error = torch.tensor(error)
    old = torch.full_like(error, math.log(0.25)) if old_log_prob is None else torch.tensor(old_log_prob)
    return Episode(torch.zeros(len(error), 4, 2), torch.arange(error.shape[1]).expand_as(error) if indices is None
                   else torch.tensor(indices), old, error, torch.zeros(len(error)) if value is None
                   else torch.tensor(value), torch.ones_like(error) if masked is None else torch.tensor(masked))


@pytest.mark.parametrize(("ratio", "advantage", "expected"), [
    (1.0, 2.0, 2.0),      # inside
    (1.5, 2.0, 2.4),      # clipped above: 1.2 * 2
    (0.5, 2.0, 1.0),      # low ratio, positive advantage: not clipped, the step may go back up
    (1.5, -2.0, -3.0),    # high ratio, negative advantage: not clipped
    (0.5, -2.0, -1.6),    # clipped below: .8 * -2
])
def test_clipped_objective_cases(ratio, advantage, expected):
    value = clipped_objective(torch.tensor([[ratio]]), torch.tensor([[advantage]]), torch.ones(1, 1), 0.2)
    torch.testing.assert_close(value, torch.tensor(expected))


def test_clipped_terms_have_no_gradient():
    ratio = torch.tensor([[1.5, 0.5, 1.5, 0.5, 1.1]], requires_grad=True)
    advantage = torch.tensor([[2.0, 2.0, -2.0, -2.0, 3.0]])
    clipped_objective(ratio, advantage, torch.ones(1, 5), 0.2).backward()
    torch.testing.assert_close(ratio.grad, torch.tensor([[0.0, 0.4, -0.4, 0.0, 0.6]]))


def test_weights_are_the_terms_share():
    value = clipped_objective(torch.ones(1, 2), torch.tensor([[1.0, 5.0]]), torch.tensor([[0.5, 1.5]]), 0.2)
    torch.testing.assert_close(value, torch.tensor((0.5 * 1 + 1.5 * 5) / 2))


def test_policy_weights_by_hand():
    record = episode([[1.0, 2.0]], [[math.log(0.1), math.log(0.3)]], [[0.5, 0.75]])
    torch.testing.assert_close(token_weights(record, "policy"), torch.tensor([[2 * 0.2 / 0.6, 2 * 0.4 / 0.6]]))
    torch.testing.assert_close(token_weights(record, "undivided"), torch.tensor([[2 * 0.1 / 0.4, 2 * 0.3 / 0.4]]))
    torch.testing.assert_close(token_weights(record, "uniform"), torch.ones(1, 2))


def test_printed_advantage_is_error_minus_value():
    record = episode([[1.0, 3.0], [2.0, 6.0]], value=[0.5, 1.0])
    config = policy_flags(adv_norm="none", ppo_weighting="uniform")
    torch.testing.assert_close(advantages(record, torch.ones(2, 2), config), torch.tensor([[0.5, 2.5], [1.0, 5.0]]))
    mean = advantages(record._replace(reward=torch.tensor([[2.0], [4.0]])), torch.ones(2, 2), config)
    torch.testing.assert_close(mean, torch.tensor([[1.5, 1.5], [3.0, 3.0]]))


def test_batch_advantage_is_standardised():
    values = advantages(episode([[1.0, 3.0], [2.0, 6.0]]), torch.ones(2, 2), policy_flags(adv_norm="batch"))
    torch.testing.assert_close(values.mean(), torch.tensor(0.0))
    torch.testing.assert_close(values, (torch.tensor([[1.0, 3.0], [2.0, 6.0]]) - 3) / math.sqrt(14 / 3),
                               rtol=1e-5, atol=1e-5)


def _half(rank, folder, sender):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    config = policy_flags(adv_norm="batch")
    parts = [episode([[1.0, 3.0]]), episode([[2.0, 6.0]])]
    moments = step_moments([parts[rank]], config)
    sender.put((rank, advantages(parts[rank], torch.ones(1, 2), config, moments).tolist()))
    dist.destroy_process_group()


def test_batch_advantage_is_that_of_the_step_however_it_is_divided(tmp_path):
    """In one batch, in two micro-batches, on two processes: (reward - 3) / sqrt(14 / 3). One number alone: 0."""
    config, expected = policy_flags(adv_norm="batch"), (torch.tensor([[1.0, 3.0], [2.0, 6.0]]) - 3) / math.sqrt(14 / 3)
    parts = [episode([[1.0, 3.0]]), episode([[2.0, 6.0]])]
    moments = step_moments(parts, config)
    micro = torch.cat([advantages(part, torch.ones(1, 2), config, moments) for part in parts])
    torch.testing.assert_close(micro, expected, rtol=1e-5, atol=1e-5)
    context = multiprocessing.get_context("fork")
    sender = context.Queue()
    children = [context.Process(target=_half, args=(rank, tmp_path, sender)) for rank in (0, 1)]
    for child in children:
        child.start()
    found = dict(sender.get(timeout=60) for _ in children)
    for child in children:
        child.join()
    torch.testing.assert_close(torch.tensor([*found[0], *found[1]]), expected, rtol=1e-5, atol=1e-5)
    alone = advantages(episode([[5.0]]), torch.ones(1, 1), config)
    torch.testing.assert_close(alone, torch.zeros(1, 1))
    assert step_moments(parts, policy_flags(adv_norm="clip")) is None


def test_clip_advantage_by_hand():
    # Errors 1 and 4, counted 1 / .5 and 1 / 1: mean 2, variance 2/3 * 1 + 1/3 * 4 = 2; standard (-1, 2) / sqrt 2.
    record = episode([[1.0, 4.0]], [[math.log(0.2), math.log(0.2)]], [[0.5, 1.0]])
    weights = token_weights(record, "policy")  # .4 and .2, mean 1: 4/3 and 2/3
    torch.testing.assert_close(weights, torch.tensor([[4 / 3, 2 / 3]]))
    values = advantages(record, weights, policy_flags())
    centre = (4 / 3 * -1 + 2 / 3 * 2) / 2
    torch.testing.assert_close(values, torch.tensor([[-1 - centre, 2 - centre]]) / math.sqrt(2), rtol=1e-5, atol=1e-5)


def test_clip_advantage_ignores_the_value_network_and_the_scale():
    first = advantages(episode([[1.0, 2.0, 4.0]]), torch.ones(1, 3), policy_flags())
    second = advantages(episode([[10.0, 20.0, 40.0]], value=[7.0]), torch.ones(1, 3), policy_flags())
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)


def test_entropy():
    torch.testing.assert_close(entropy(torch.full((2, 8), 1 / 8).log()), torch.full((2,), math.log(8)))
    torch.testing.assert_close(entropy(torch.tensor([[0.5, 0.25, 0.25]]).log()), torch.tensor([1.5 * math.log(2)]))


def test_loss_is_the_weighted_sum_of_eq_7_over_c1():
    log_pi = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    record = episode([[1.0, 3.0]], [[math.log(0.3), math.log(0.1)]], value=[0.0], indices=[[1, 3]])
    config = policy_flags(policy_coef=2.0, value_coef=3.0, ppo_weighting="uniform", adv_norm="none")
    loss, terms = sampling_loss(log_pi, torch.tensor([1.5]), torch.tensor([[1, 3]]), record, config, 4.0)
    h = -sum(p * math.log(p) for p in (0.4, 0.3, 0.2, 0.1))
    torch.testing.assert_close(loss, torch.tensor(-(2 * 2.0 - 3 * 0.25 + 4 * h) / 2))
    torch.testing.assert_close(terms["ratio"], torch.tensor(1.0))
    torch.testing.assert_close(terms["entropy_share"], torch.tensor(h / math.log(4)))
    assert terms["clip_fraction"] == 0 and abs(terms["approx_kl"]) < 1e-6


def test_resampled_indices_change_the_ratio():
    log_pi = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    record = episode([[1.0, 3.0]], [[math.log(0.3), math.log(0.1)]], indices=[[1, 3]])
    _, terms = sampling_loss(log_pi, torch.zeros(1), torch.tensor([[0, 2]]), record, policy_flags(), 6e-5)
    torch.testing.assert_close(terms["ratio"], torch.tensor((0.4 / 0.3 + 0.2 / 0.1) / 2))
    assert terms["clip_fraction"] == 1


@pytest.mark.parametrize("weighting", ["policy", "undivided", "uniform"])
def test_a_planted_reward_raises_its_tokens_probability(weighting):
    """64 logits alone, one token that is always hard to reconstruct: its probability must come out on top."""
    from tats.masking import gumbel_top_k, masked_indices, masked_probability

    torch.manual_seed(0)
    logits = torch.zeros(64, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.02)
    config = policy_flags(ppo_weighting=weighting)
    for _ in range(60):
        log_pi = logits.log_softmax(0).expand(16, 64)
        draw = gumbel_top_k(log_pi, 16)
        masked = masked_indices(draw.mask, 48)
        old = log_pi.detach().gather(1, masked)
        error = 0.3 + 0.6 * (masked == 5)
        record = Episode(torch.zeros(16, 64, 1), masked, old, error, torch.zeros(16),
                         masked_probability(old, draw.threshold))
        loss, _ = sampling_loss(log_pi, torch.zeros(16), masked, record, config, 2e-4)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pi = logits.softmax(0)
    assert pi.argmax() == 5 and pi[5] > 2 / 64


def test_entropy_target_moves_c3():
    fixed, dual = EntropyCoefficient(1e-4), EntropyCoefficient(1e-4, target=0.9, rate=1.0, floor=5e-5)
    for coefficient in (fixed, dual):
        coefficient.update(torch.tensor(0.8))
    assert fixed.value == torch.tensor(1e-4)
    torch.testing.assert_close(dual.value, torch.tensor(1e-4 * math.exp(0.1)))
    slow = EntropyCoefficient(1e-4, target=0.9)
    slow.update(torch.tensor(0.4))
    torch.testing.assert_close(slow.value, torch.tensor(1e-4 * math.exp(0.2 * 0.5)))
    slow.update(torch.tensor(0.4), skip=torch.tensor(True))   # theta's step was skipped
    torch.testing.assert_close(slow.value, torch.tensor(1e-4 * math.exp(0.2 * 0.5)))
    for _ in range(90):
        slow.update(torch.tensor(1.0))
    torch.testing.assert_close(slow.value, torch.tensor(1e-5))
    for _ in range(40):
        dual.update(torch.tensor(1.0))
    torch.testing.assert_close(dual.value, torch.tensor(5e-5))
