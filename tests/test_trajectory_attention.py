"""Trajectory attention against Motionformer's values, against a reading of Eqs. 1 and 2 loop by loop, and by itself."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tats.models import TrajectoryAttention, select_landmarks
from tats.models.landmarks import landmark_attention
from tats.models.temporal_pooling import pool_over_time
from torch import nn

CLOSE = {"atol": 1e-5, "rtol": 0}
FRAMES, PLACES, DIM, HEADS = 4, 9, 48, 4


@pytest.fixture(scope="module")
def golden():
    arrays = np.load(Path(__file__).parent / "data" / "trajectory_attention.npz")
    config = json.loads(str(arrays["config"]))
    assert (config["num_frames"], config["tokens_per_frame"], config["dim"], config["num_heads"]) == (4, 9, 48, 4)
    return {key: torch.from_numpy(arrays[key]) for key in arrays.files if key != "config"}


def public_attention(golden, **options):
    attention = TrajectoryAttention(DIM, HEADS, qkv_bias=True, **options)
    attention.load_state_dict({key.removeprefix("state/"): value for key, value in golden.items()
                               if key.startswith("state/")})
    return attention


def small_attention(dim=6, heads=2, seed=0, **options):
    torch.manual_seed(seed)
    return TrajectoryAttention(dim, heads, qkv_bias=True, **options).double()


@pytest.mark.parametrize(("project_values", "name"), [(True, "output_values_projected"),
                                                      (False, "output_values_unprojected")])
def test_public_values(golden, project_values, name):
    attention = public_attention(golden, project_values=project_values)
    torch.testing.assert_close(attention(golden["tokens"], FRAMES), golden[name], **CLOSE)


def test_public_orthoformer_layer(golden):
    attention = public_attention(golden, approx="orthoformer", num_landmarks=16)
    expected = golden["output_orthoformer_16_values_projected"]
    torch.testing.assert_close(attention(golden["tokens"], FRAMES), expected, **CLOSE)
    exact = public_attention(golden)(golden["tokens"], FRAMES)
    assert (exact - expected).abs().max() > 1e-3, "the approximation would go unnoticed"


@pytest.mark.parametrize("count", [4, 16])
def test_public_landmarks_and_their_attention(golden, count):
    queries, keys, values = golden["q"], golden["k"], golden["v"]
    indices = select_landmarks(queries, count)
    landmarks = queries.gather(1, indices[..., None].expand(-1, -1, queries.shape[-1]))
    scale = queries.shape[-1] ** -0.25      # the public code takes the landmarks from queries that are scaled already
    torch.testing.assert_close(landmarks * scale, golden[f"landmarks_{count}"], **CLOSE)
    by_frame = (len(keys), FRAMES, PLACES, -1)
    weights = landmark_attention(queries[:, None], keys.view(by_frame), landmarks[:, None])
    torch.testing.assert_close(weights.transpose(1, 2), golden[f"orthoformer_attention_{count}"], **CLOSE)
    torch.testing.assert_close((weights @ values.view(by_frame)).transpose(1, 2), golden[f"orthoformer_{count}"],
                               **CLOSE)


def loops(attention, tokens, num_frames):
    """Eqs. 1 and 2 with the usual 1 / sqrt(d), a number at a time: for every token, head, frame and place."""
    (num_tokens, dim), heads = tokens.shape, attention.num_heads
    places, width = num_tokens // num_frames, dim // heads
    queries, keys, values = attention.qkv(tokens).view(num_tokens, 3, heads, width).unbind(1)
    scale = width**-0.5
    trajectory = torch.zeros(num_tokens, num_frames, dim, dtype=tokens.dtype)           # y~_stt'
    for token in range(num_tokens):
        for head in range(heads):
            channels = slice(head * width, (head + 1) * width)
            for frame in range(num_frames):
                of_frame = range(frame * places, (frame + 1) * places)
                exponents = [torch.exp(scale * queries[token, head] @ keys[place, head]) for place in of_frame]
                trajectory[token, frame, channels] = sum(
                    exponent / sum(exponents) * values[place, head]
                    for exponent, place in zip(exponents, of_frame, strict=True))
    pooled = torch.zeros(num_tokens, dim, dtype=tokens.dtype)                           # y_st
    for token in range(num_tokens):
        query = attention.proj_q(trajectory[token, token // places])                    # q~_st from y~_stt
        over_time = attention.proj_kv(trajectory[token])                                # k~, v~ (F, 2D)
        key, value = over_time[:, :dim], over_time[:, dim:]
        if not attention.project_values:
            value = trajectory[token]
        for head in range(heads):
            channels = slice(head * width, (head + 1) * width)
            exponents = [torch.exp(scale * query[channels] @ key[frame, channels]) for frame in range(num_frames)]
            pooled[token, channels] = sum(exponent / sum(exponents) * value[frame, channels]
                                          for frame, exponent in enumerate(exponents))
    return attention.proj(pooled)


@pytest.mark.parametrize("project_values", [True, False])
def test_equations_one_and_two_in_loops(project_values):
    attention = small_attention(project_values=project_values)
    tokens = torch.randn(12, 6, dtype=torch.float64)
    torch.testing.assert_close(attention(tokens[None], 3)[0], loops(attention, tokens, 3))


@pytest.mark.parametrize("project_values", [True, False])
def test_gradients_are_those_of_the_plain_form(project_values):
    attention = small_attention(project_values=project_values)
    tokens = torch.randn(12, 6, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(12, 6, dtype=torch.float64)
    parts = (tokens, *attention.parameters())
    ours = torch.autograd.grad((attention(tokens[None], 3)[0] * weights).sum(), parts)   # all: DDP waits for each
    plain = torch.autograd.grad((loops(attention, tokens, 3) * weights).sum(), parts)
    for name, mine, theirs in zip(("tokens", *dict(attention.named_parameters())), ours, plain, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")
    key_bias = plain[list(dict(attention.named_parameters())).index("proj_kv.bias") + 1][:6]
    torch.testing.assert_close(key_bias, torch.zeros_like(key_bias))    # why it may be left out


def test_no_table_of_all_pairs_is_kept_for_the_backward_pass():
    """The fused kernels take four dimensions; with a fifth the (h, N, N) weights come back, several GB at ViT-B."""
    torch.manual_seed(0)
    attention, frames, places = TrajectoryAttention(16, 2), 4, 64
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda kept: sizes.append(kept.numel()) or kept, lambda kept: kept):
        attention(torch.randn(1, frames * places, 16, requires_grad=True), frames)
    all_pairs = 2 * (frames * places) ** 2
    assert max(sizes) <= all_pairs / 8, f"kept {max(sizes)} numbers at once, all pairs are {all_pairs}"


def test_without_biases():
    torch.manual_seed(1)
    attention = TrajectoryAttention(6, 2).double()
    assert attention.qkv.bias is None and attention.proj_kv.bias is None and attention.proj.bias is not None
    tokens = torch.randn(8, 6, dtype=torch.float64)
    torch.testing.assert_close(attention(tokens[None], 2)[0], loops(attention, tokens, 2))


@pytest.mark.parametrize("approx", ["none", "orthoformer"])
def test_maps_are_distributions_over_the_places_of_each_frame(approx):
    attention = small_attention(approx=approx, num_landmarks=5)
    tokens, chosen = torch.randn(2, 12, 6, dtype=torch.float64), torch.tensor([7, 0, 11])
    maps = attention.trajectory_maps(tokens, 3, chosen)
    assert maps.shape == (2, 2, 3, 3, 4)       # clips, heads, queries, frames, places
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, 2, 3, 3, dtype=torch.float64))
    assert (maps >= 0).all()


def test_maps_are_the_softmax_of_equation_one():
    attention = small_attention()
    tokens, chosen = torch.randn(2, 12, 6, dtype=torch.float64), torch.tensor([7, 0, 11])
    maps = attention.trajectory_maps(tokens, 3, chosen)
    queries, keys, values = attention.qkv(tokens).view(2, 12, 3, 2, 3).permute(2, 0, 3, 1, 4)
    scores = (queries @ keys.transpose(-1, -2) / 3**0.5)[:, :, chosen]
    for frame in range(3):
        torch.testing.assert_close(maps[:, :, :, frame], scores[..., 4 * frame:4 * frame + 4].softmax(-1))


def test_maps_of_the_approximation_are_what_its_forward_uses(golden):
    attention = public_attention(golden, approx="orthoformer", num_landmarks=16)
    maps = attention.trajectory_maps(golden["tokens"], FRAMES, torch.arange(FRAMES * PLACES))
    values = attention.qkv(golden["tokens"])[..., 2 * DIM:].view(2, FRAMES, PLACES, HEADS, -1)
    trajectories = torch.einsum("bhnfp,bfphd->bfnhd", maps, values).flatten(-2)
    torch.testing.assert_close(attention.proj(attention._pool_over_time(trajectories)),
                               golden["output_orthoformer_16_values_projected"], **CLOSE)


def slow_landmarks(queries, count):
    """One clip, straight from the definition: cosines to all chosen so far, and the smallest of the largest."""
    chosen = [0]
    while len(chosen) < count:
        worst = {}
        for token in range(len(queries)):
            if token not in chosen:
                worst[token] = max(abs(nn.functional.cosine_similarity(queries[token], queries[other], dim=0).item())
                                   for other in chosen)
        chosen.append(min(worst, key=worst.get))
    return sorted(chosen)


@pytest.mark.parametrize("count", [1, 2, 7, 20])
def test_landmarks_are_the_most_orthogonal_queries(count):
    queries = torch.randn(3, 20, 5, generator=torch.Generator().manual_seed(2))
    assert select_landmarks(queries, count).tolist() == [slow_landmarks(clip, count) for clip in queries]


def test_landmarks_are_never_repeated_even_among_equal_queries():
    for queries in (torch.ones(2, 6, 4), torch.zeros(2, 6, 4)):
        assert select_landmarks(queries, 4).sort(-1).values.diff(dim=-1).min() > 0
        assert select_landmarks(queries, 99).tolist() == [list(range(6))] * 2


def test_landmarks_by_hand():
    queries = torch.tensor([[[1.0, 0.0], [5.0, 0.1], [0.1, 1.0], [0.0, -3.0]]])
    assert select_landmarks(queries, 2).tolist() == [[0, 3]]             # the only one at a right angle to the first
    assert select_landmarks(queries, 2, first=2).tolist() == [[0, 2]]    # |cos| .0995 to token 0, .1194 to token 1


def test_landmarks_choose_the_same_under_autocast():
    queries = torch.randn(2, 300, 16, generator=torch.Generator().manual_seed(3))
    with torch.autocast("cpu", torch.bfloat16):
        under = select_landmarks(queries, 32)
    assert torch.equal(under, select_landmarks(queries, 32))


def test_all_tokens_as_landmarks_are_the_definition_of_the_approximation():
    """With every query a landmark the chain is softmax(q q^T) softmax(q k^T), nothing selected away."""
    attention = small_attention(approx="orthoformer", num_landmarks=12)
    tokens = torch.randn(1, 12, 6, dtype=torch.float64)
    queries, keys, _ = attention.qkv(tokens).view(1, 12, 3, 2, 3).permute(2, 0, 3, 1, 4)
    to_queries = (queries @ queries.transpose(-1, -2) / 3**0.5).softmax(-1)
    maps = attention.trajectory_maps(tokens, 3, torch.arange(12))
    for frame in range(3):
        of_frame = (queries @ keys[:, :, 4 * frame:4 * frame + 4].transpose(-1, -2) / 3**0.5).softmax(-1)
        torch.testing.assert_close(maps[:, :, :, frame], to_queries @ of_frame)


@pytest.mark.parametrize("approx", ["none", "orthoformer"])
def test_same_weights_give_the_same_output_whatever_the_random_state(approx):
    attention = small_attention(approx=approx, num_landmarks=4)
    tokens = torch.randn(2, 12, 6, dtype=torch.float64)
    torch.manual_seed(1)
    first = attention(tokens, 3)
    torch.manual_seed(2)
    assert torch.equal(attention(tokens, 3), first)


def test_number_of_landmarks_changes_the_output():
    tokens = torch.randn(2, 12, 6, dtype=torch.float64)
    few, many = (small_attention(approx="orthoformer", num_landmarks=count)(tokens, 3) for count in (2, 12))
    assert (few - many).abs().max() > 1e-6


def test_one_frame_is_self_attention():
    """With F = 1 Eq. 2's softmax is over one frame: W_v of ordinary self-attention's output."""
    attention = small_attention()
    tokens = torch.randn(1, 8, 6, dtype=torch.float64)
    queries, keys, values = attention.qkv(tokens).view(1, 8, 3, 2, 3).permute(2, 0, 3, 1, 4)
    plain = (queries @ keys.transpose(-1, -2) / 3**0.5).softmax(-1) @ values
    mixed = attention.proj_kv(plain.transpose(1, 2).flatten(2))[..., 6:]
    torch.testing.assert_close(attention(tokens, 1), attention.proj(mixed))


def test_errors():
    with pytest.raises(ValueError, match="4 .*6"):
        TrajectoryAttention(6, 4)
    with pytest.raises(ValueError, match="approx .*'nystrom'"):
        TrajectoryAttention(6, 2, approx="nystrom")
    with pytest.raises(ValueError, match="13 .*3"):
        TrajectoryAttention(6, 2)(torch.zeros(1, 13, 6), 3)


def test_one_frame_has_nothing_to_choose_from():
    """With a single frame Eq. 2's softmax is 1: y = W_v y~, and the gradients are those of a linear layer."""
    attention = small_attention()
    trajectories = torch.randn(2, 1, 5, 6, dtype=torch.float64, requires_grad=True)
    pooled = pool_over_time(trajectories, attention.proj_q, attention.proj_kv.weight, 2)
    plain = trajectories[:, 0] @ attention.proj_kv.weight[6:].T
    torch.testing.assert_close(pooled, plain)
    given = torch.randn_like(pooled)
    wanted = (trajectories, attention.proj_kv.weight)
    torch.testing.assert_close(torch.autograd.grad(pooled, wanted, given), torch.autograd.grad(plain, wanted, given))


def test_maps_keep_no_graph():
    assert not small_attention().trajectory_maps(torch.randn(1, 6, 6).double(), 3, torch.tensor([0])).requires_grad
