"""Loops and models that nobody prepared for: tokens, layouts, masks and errors of other shapes, and clear refusals."""

import pytest
import torch
from tats.engines.hook import SamplingHook, errors_of_mean
from tats.engines.hook import first_batch as first
from tats.engines.hook.looking import probabilities
from tats.engines.hook.tokens import ModelTokens, bare
from tats.masking import TokenGrid
from tats.models.positions import sincos3d_table
from torch import nn

GRID = TokenGrid(2, 3, 4)
SETTINGS = {"tats_heads": 2, "mae_only_epochs": 0}
CLIPS = torch.randn(3, 3, 4, 12, 16, generator=torch.Generator().manual_seed(0))


class Embed(nn.Module):
    """`returned` says what becomes of the convolution's (B, D, T', H', W')."""

    def __init__(self, returned=lambda x: x.flatten(2).transpose(1, 2), images=False, width=10):
        super().__init__()
        kind, size = (nn.Conv2d, (4, 4)) if images else (nn.Conv3d, (2, 4, 4))
        self.proj, self.returned = kind(3, width, size, size), returned

    def forward(self, videos):
        return self.returned(self.proj(videos))


def model_with(positions=None, **embed):
    model = nn.Module()
    model.patch_embed, model.pos_embed = Embed(**embed), positions
    return model


def hook_of(model=None, **settings):
    return SamplingHook(model or model_with(), "tats", GRID, .75, **SETTINGS | settings)


@pytest.mark.parametrize("returned", [
    lambda x: x, lambda x: x.movedim(1, -1), lambda x: x.flatten(3).movedim(1, -1), lambda x: x.flatten(2)],
    ids=["channels first", "channels last", "MAE-ST", "not transposed"])
def test_tokens_are_in_their_order_however_the_embedding_returns_them(returned):
    torch.manual_seed(1)
    model = model_with(torch.zeros(1, 24, 10), returned=returned)
    want = model.patch_embed.proj(CLIPS)[:, :, 1, 2, 3]             # the last token, 1 * 12 + 2 * 4 + 3
    torch.testing.assert_close(ModelTokens(model, GRID)(model, CLIPS, True)[:, 23], want)


def test_an_embedding_of_images_looks_at_videos_frame_by_frame():
    model, grid = model_with(torch.zeros(1, 48, 10), images=True), TokenGrid(4, 3, 4)
    found = ModelTokens(model, grid)(model, CLIPS, True)
    torch.testing.assert_close(found[:, 47], model.patch_embed.proj(CLIPS[:, :, 3])[:, :, 2, 3])
    with pytest.raises(ValueError, match="tokens of shape"):         # its grid has half the frames
        hook_of(model).choose(model, CLIPS)


@pytest.mark.parametrize(("embed", "words"), [
    ({"returned": lambda x: (x, (3, 4))}, "returns a tuple"),
    ({"returned": lambda x: x.transpose(1, 2), "width": 7}, "not to be told"),
    ({"returned": lambda x: x[..., :2], "width": 2}, "not to be told")])
def test_an_embedding_that_cannot_be_read_is_refused(embed, words):
    model = model_with(**embed)
    with pytest.raises(ValueError, match=words):
        hook_of(model, **{"tats_heads": 1}).choose(model, CLIPS)


def test_a_mask_that_is_coarser_than_the_patches_is_named_with_the_way_out():
    """As SimMIM's and Hiera's, whose positions are not found beside the patch embedding either."""
    model = model_with()
    sampling = SamplingHook(model, "tats", (1, 3, 2), .5, tats_heads=2)
    with pytest.raises(ValueError, match=r"tokens of shape \(3, 24, 10\).*several patches.*pixels"):
        sampling.choose(model, CLIPS, None, 0)


@pytest.mark.parametrize("other", [None, nn.Linear(2, 2)], ids=["none", "another"])
def test_a_model_that_is_not_the_hooks_is_refused(other):
    with pytest.raises(ValueError, match="that the hook was made for"):
        hook_of(model_with()).choose(other, CLIPS)


def test_positions_are_found_or_it_is_said(caplog):
    table = torch.randn(24, 10)
    for positions in (table, table[None], table.view(2, 3, 4, 10), nn.Parameter(torch.cat([torch.ones(2, 10), table])),
                      nn.Embedding.from_pretrained(table)):
        model = model_with(positions)
        tokens = ModelTokens(model, GRID)
        torch.testing.assert_close(tokens(model, CLIPS, True) - tokens(model, CLIPS, False), table.expand(3, -1, -1))
    assert not caplog.records
    for positions in (None, torch.randn(1, 196, 10), torch.randn(1, 24, 5)):   # none, for another size, of another kind
        model = model_with(positions)
        tokens = ModelTokens(model, GRID)
        added = tokens(model, CLIPS, True) - tokens(model, CLIPS, False)
        torch.testing.assert_close(added, sincos3d_table(GRID, 10).expand(3, -1, -1))
    assert caplog.text.count("are not found") == 3


def test_wrapped_models_are_seen_through():
    model = model_with()
    compiled = torch.compile(model, backend="eager")
    assert bare(compiled) is model and bare(nn.DataParallel(compiled)) is model
    found = ModelTokens(compiled, GRID)(compiled, CLIPS, True)
    torch.testing.assert_close(found, ModelTokens(model, GRID)(model, CLIPS, True))
    model.patch_embed.proj.weight = nn.Parameter(torch.empty(0))     # as ZeRO 3 leaves it between two forwards
    with pytest.raises(ValueError, match="shared out"):
        ModelTokens(model, GRID)


@pytest.mark.parametrize("layout", ["bthwc", "btchw"])
def test_other_layouts_are_the_same_clips(layout):
    other = CLIPS.permute(*("bcthw".index(letter) for letter in layout))
    plain, named = (hook_of(tokens="pixels", width=12, layout=order) for order in (None, layout))
    torch.testing.assert_close(named.read_tokens(None, other), plain.read_tokens(None, CLIPS))
    assert torch.equal(named.incoming.videos(other), CLIPS)


@pytest.mark.parametrize(("settings", "videos", "words"), [
    ({}, CLIPS.permute(0, 2, 3, 4, 1), 'layout= .*"bthwc"'), ({"layout": "bthwc"}, CLIPS[:, :, 0], "layout='bthwc'"),
    ({"layout": "thwcc"}, CLIPS, "letters"), ({}, CLIPS.mul(9).byte(), "uint8"), ({}, CLIPS.numpy(), "ndarray"),
    ({}, CLIPS[..., :15], "cannot be cut"),
])
def test_videos_that_do_not_fit_are_refused(settings, videos, words):
    with pytest.raises(ValueError, match=words):
        hook_of(tokens="pixels", **settings).choose(None, videos)


@pytest.mark.parametrize("grid", [(3, 4), 196, (2, 3, 0), (2, 3.5, 4)], ids=str)
def test_a_grid_is_three_numbers(grid):
    with pytest.raises(ValueError, match="grid must be"):
        SamplingHook(None, "random", grid)


def masks(hidden):
    return torch.stack([torch.arange(24) < count for count in hidden])


def test_masks_that_are_turned_round_or_ragged_are_refused():
    for hidden, words in (((6, 6, 6), "~mask"), ((18, 18, 17), "17 to 18")):
        with pytest.raises(ValueError, match=words):
            hook_of(tokens="pixels").choose(None, CLIPS, masks(hidden))


def test_a_hook_that_is_older_than_the_process_group_is_refused(monkeypatch):
    hook = hook_of(tokens="pixels")
    monkeypatch.setattr(first.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(first.dist, "get_world_size", lambda: 2)
    with pytest.raises(ValueError, match="init_process_group"):
        hook.choose(None, CLIPS)


def test_a_loop_that_does_not_count_its_epochs_is_counted_for():
    def epochs(hook, count):
        seen = []
        for _ in range(count):
            given = masks((18,) * 3)
            seen.append(not torch.equal(hook.choose(None, CLIPS, given), given))
            hook.learn(torch.rand(3, 24))
            hook.end_epoch()
        return seen

    hook = hook_of(tokens="pixels", mae_only_epochs=2)
    assert epochs(hook, 3) == [False, False, True]
    again = hook_of(tokens="pixels", mae_only_epochs=5)
    again.load_state_dict(hook.state_dict())
    assert again.next_epoch == 3 and epochs(again, 3) == [False, False, True]


def test_what_is_never_learned_from_and_a_policy_that_never_acts_are_said(caplog):
    hook = hook_of(tokens="pixels", mae_only_epochs=3, epochs=3, steps_per_epoch=1)
    hook.choose(None, CLIPS)
    assert "never act" in caplog.text
    hook.end_epoch()
    assert "call learn(errors)" in caplog.text
    caplog.clear()
    hook.choose(None, CLIPS)
    hook.learn(torch.rand(3, 24))
    hook.end_epoch()
    assert not caplog.records


def test_the_errors_of_a_loss_that_is_their_mean():
    prediction, target = torch.randn(2, 3, 24, 10)
    mask = masks((18, 18, 18))
    want = (prediction - target).abs().mean(-1)

    def loss_of(mask):
        return (want * mask).sum() / mask.sum()

    with torch.no_grad():                                            # as a loop may call it
        torch.testing.assert_close(errors_of_mean(loss_of, mask), want)
    for other, words in ((lambda mask: loss_of(mask) + .1 * mask.sum(), "no mean of errors"),
                         (lambda mask: want.mean() + 0 * mask.sum(), "does not depend")):
        with pytest.raises(ValueError, match=words):
            errors_of_mean(other, mask)
    assert errors_of_mean(lambda mask: loss_of(mask) * torch.nan, mask).isnan().all()   # `learn` skips such a step


def test_what_a_policy_thinks_can_be_asked():
    hook = hook_of(tokens="pixels")
    pi = probabilities(hook, None, CLIPS)
    torch.testing.assert_close(pi, torch.full((3, 24), 1 / 24), atol=1e-3, rtol=0)
    torch.testing.assert_close(pi.sum(1), torch.ones(3))
    with pytest.raises(ValueError, match="no policy"):
        probabilities(SamplingHook(None, "random", GRID), None, CLIPS)
