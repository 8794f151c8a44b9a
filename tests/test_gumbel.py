"""Draws without replacement: distinct, of the right law, and the same for the same key anywhere."""

import pytest
import torch
from tats.masking import gumbel_top_k, masked_indices, masked_probability, mixed_with_uniform
from tats.masking.gumbel import uniform_noise


@pytest.mark.parametrize("logits", [
    torch.tensor([[50.0] * 3 + [-1e4] * 61]).repeat(4, 1),
    torch.randn(4, 64) / 0.05,
    torch.zeros(4, 64),
    torch.full((4, 64), -300.0).index_fill(1, torch.tensor([7]), 0.0),
])
def test_distinct_and_equal_in_number_at_extreme_logits(logits):
    draw = gumbel_top_k(logits.log_softmax(-1), 10)
    assert (~draw.mask).sum(1).tolist() == [10] * 4
    assert torch.isfinite(draw.threshold).all()
    best = logits.argmax(1)
    if logits.max() > 40:
        assert not draw.mask.gather(1, best[:, None]).any()


def test_law_of_the_first_and_of_pairs():
    """P(both of i, j are seen) in two draws without replacement: p_i p_j / (1 - p_i) + p_j p_i / (1 - p_j)."""
    pi = torch.tensor([0.5, 0.3, 0.2])
    torch.manual_seed(0)
    mask = gumbel_top_k(pi.log().expand(60_000, 3), 2).mask
    unseen = mask.float().mean(0)
    expected = [1 - (p * (1 - p) / (1 - p) + sum(pi[j] * p / (1 - pi[j]) for j in range(3) if j != i))
                for i, p in enumerate(pi)]
    torch.testing.assert_close(unseen, torch.stack(expected), atol=0.01, rtol=0)


def test_masked_probability_estimates_a_sum_without_bias():
    """sum over masked tokens of f_i / P(masked_i | kappa) has the expectation sum_i f_i (Horvitz-Thompson)."""
    torch.manual_seed(0)
    log_pi = (torch.randn(12) * 0.7).log_softmax(0)
    f = torch.arange(12.0)
    draw = gumbel_top_k(log_pi.expand(40_000, 12), 3)
    inverse = 1 / masked_probability(log_pi.expand(40_000, 12), draw.threshold, floor=0.0)
    estimate = (draw.mask * inverse * f).sum(1)
    assert abs(estimate.mean() - f.sum()) < 4 * estimate.std() / 200
    plain = (draw.mask * f).sum(1).mean() * 12 / 9
    assert abs(plain - f.sum()) > 1  # without the division the masked tokens are a biased sample


def test_mixture_with_the_uniform_distribution_by_hand():
    pi = torch.tensor([[.5, .3, .2], [1., 0., 0.]])
    torch.testing.assert_close(mixed_with_uniform(pi.log(), .3).exp(), torch.tensor([[.45, .31, .24], [.8, .1, .1]]))
    assert torch.equal(mixed_with_uniform(pi.log(), 0.), pi.log())


def test_noise_depends_on_key_and_stream_alone():
    keys = torch.tensor([3, -9, 2**40])
    whole = uniform_noise((3, 500), keys, torch.device("cpu"))
    torch.testing.assert_close(uniform_noise((1, 500), keys[1:2], torch.device("cpu")), whole[1:2])
    assert not torch.equal(whole, uniform_noise((3, 500), keys, torch.device("cpu"), stream=1))
    assert whole.min() > 0 and whole.max() < 1
    big = uniform_noise((200, 1000), torch.arange(200), torch.device("cpu"))
    assert abs(big.mean() - 0.5) < 3e-3 and abs(big.std() - 12**-0.5) < 3e-3
    assert abs(torch.corrcoef(big[:, :2].T)[0, 1]) < 0.25 and abs(torch.corrcoef(big[:2])[0, 1]) < 0.15


def test_splitmix_finaliser_against_python_integers():
    from tats.masking.gumbel import _mix

    def reference(x: int) -> int:
        x &= 2**64 - 1
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
        return x ^ x >> 31

    values = [0, 1, -1, 2**63 - 1, -(2**63), 123456789]
    mixed = _mix(torch.tensor(values)).tolist()
    assert [value % 2**64 for value in mixed] == [reference(value) for value in values]


def test_masked_indices_are_ascending():
    mask = torch.tensor([[True, False, True, True], [False, True, True, True]])
    assert masked_indices(mask, 3).tolist() == [[0, 2, 3], [1, 2, 3]]


def test_the_chance_of_being_masked_by_hand_and_its_floor():
    """exp(-exp(log pi - kappa)): kappa = 0, pi = 1 gives 1 / e; the likeliest tokens are held at a tenth."""
    found = masked_probability(torch.tensor([[0.0, -1.0, 5.0]]), torch.tensor([0.0]))
    torch.testing.assert_close(found, torch.tensor([[0.36787944, 0.69220063, 0.1]]))
    lower = masked_probability(torch.tensor([[1.0, 5.0]]), torch.tensor([0.0]), floor=0.01)
    torch.testing.assert_close(lower, torch.tensor([[0.06598804, 0.01]]))


def test_the_first_stream_is_the_one_that_is_taken():
    logits, keys = torch.zeros(4, 64), torch.arange(4)
    masks = [gumbel_top_k(logits, 9, keys, *stream).mask for stream in ((), (0,), (1,))]
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])
