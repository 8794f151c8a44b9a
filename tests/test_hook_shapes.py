"""Codebases in miniature: MAE-ST's random_masking, VideoMAEv2's dual masks, MAE-DFER's own loss."""

import pytest
import torch
from tats.engines.hook import SamplingHook, keep_visible, noise_of
from torch import nn

SETTINGS = {"tats_heads": 2, "policy_head_init": "xavier", "sampler_lr": 1e-2, "mae_only_epochs": 1}
GRID = (4, 3, 3)


class SmallST(nn.Module):
    """Noise that is sorted, a class token, separate positions, every other frame predicted."""

    class Embed(nn.Module):
        def __init__(self):
            super().__init__()
            self.proj = nn.Conv3d(3, 16, (2, 4, 4), (2, 4, 4))

        def forward(self, x):
            return self.proj(x).flatten(3).permute(0, 2, 3, 1)     # (B, T', H'W', D)

    def __init__(self, pred_t_dim):
        super().__init__()
        self.patch_embed, self.pred_t_dim = self.Embed(), pred_t_dim
        self.pos_embed_spatial = nn.Parameter(torch.randn(1, 9, 16))
        self.pos_embed_temporal = nn.Parameter(torch.randn(1, 4, 16))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 16))
        self.body, self.head = nn.Linear(16, 16), nn.Linear(16, 3 * 16 * pred_t_dim // 4)

    def forward(self, videos, mask):
        positions = self.pos_embed_spatial.repeat(1, 4, 1) + self.pos_embed_temporal.repeat_interleave(9, 1)
        x = self.patch_embed(videos).flatten(1, 2)
        x, mask, ids_restore, ids_keep = keep_visible(x, mask)
        x = x + positions.expand(len(x), -1, -1).gather(1, ids_keep[..., None].expand(-1, -1, 16))
        x = self.body(torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1)).mean(1, keepdim=True)
        frames = torch.linspace(0, 7, self.pred_t_dim).long()
        patches = videos[:, :, frames].unflatten(2, (4, -1)).unflatten(4, (3, 4)).unflatten(6, (3, 4))
        target = patches.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(len(videos), 36, -1)
        errors = (self.head(x + positions) - target).square().mean(-1)
        return (errors * mask).sum() / mask.sum(), errors, mask


@pytest.mark.parametrize("pred_t_dim", [8, 4])
def test_mae_st_with_a_class_token_and_fewer_predicted_frames(pred_t_dim):
    torch.manual_seed(0)
    model, videos = SmallST(pred_t_dim), torch.randn(8, 3, 8, 12, 12)
    hook = SamplingHook(model, "tats", GRID, .75, **SETTINGS)
    want = model.patch_embed.proj(videos).flatten(2).transpose(1, 2)
    want = want + model.pos_embed_spatial.repeat(1, 4, 1) + model.pos_embed_temporal.repeat_interleave(9, 1)
    torch.testing.assert_close(hook.tokens(model, videos, True), want)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for epoch in range(2):
        for part in videos.split(4):
            mask = hook.choose(model, part, None, epoch)
            loss, errors, used = model(part, mask)
            assert torch.equal(used.bool(), mask)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            hook.learn(errors)
    assert hook.end_epoch()["reward"] > 0 and hook.sampler.steps == 2


def test_what_random_masking_returns_for_a_chosen_mask():
    mask = torch.tensor([[True, False, True, True, False], [False, True, True, False, True]])
    tokens = torch.arange(20.).view(2, 5, 2)
    visible, as_float, ids_restore, ids_keep = keep_visible(tokens, mask)
    assert torch.equal(ids_keep, torch.tensor([[1, 4], [0, 3]])) and torch.equal(as_float, mask.float())
    assert torch.equal(visible, torch.stack([tokens[0, [1, 4]], tokens[1, [0, 3]]]))
    padded = torch.cat([visible, torch.full((2, 3, 2), -1.)], 1)
    back = padded.gather(1, ids_restore[..., None].expand(-1, -1, 2))
    assert torch.equal(back, torch.where(mask[..., None], torch.tensor(-1.), tokens))
    # The other way round: the noise that MAE sorts.
    order = noise_of(mask).argsort(1)[:, :2].sort(1).values
    assert torch.equal(order, ids_keep)
    with pytest.raises(ValueError, match="2 to 3"):
        keep_visible(tokens, torch.tensor([[True, True, True, False, False], [True, True, False, False, False]]))


class SmallVideoMAE(nn.Module):
    """VideoMAE's interface; with a decoder's mask it predicts the tokens that this leaves."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Module()
        self.encoder.patch_embed = SmallST.Embed()
        self.encoder.pos_embed = torch.randn(1, 36, 16)
        self.head = nn.Linear(16, 96)

    def forward(self, videos, mask, decode_mask=None):
        tokens = self.encoder.patch_embed(videos).flatten(1, 2) + self.encoder.pos_embed
        seen = tokens[~mask].view(len(videos), -1, 16).mean(1, keepdim=True)
        shown = mask if decode_mask is None else ~decode_mask
        return self.head(seen + self.encoder.pos_embed.expand(len(videos), -1, -1)[shown].view(len(videos), -1, 16))


def patches(videos):
    cut = videos.unfold(2, 2, 2).unfold(3, 4, 4).unfold(4, 4, 4)
    return cut.permute(0, 2, 3, 4, 5, 6, 7, 1).reshape(len(videos), 36, 96)


def test_dual_masking_pays_undecoded_tokens_their_clips_mean():
    torch.manual_seed(0)
    model, videos = SmallVideoMAE(), torch.randn(4, 3, 8, 12, 12)
    decode_mask = torch.arange(36).remainder(2).bool().expand(4, -1)      # every other token is decoded
    hook = SamplingHook(model, "tats", GRID, .75, **SETTINGS | {"mae_only_epochs": 0, "update_every": 9})
    mask = hook.choose(model, videos, torch.zeros(4, 36).index_fill(1, torch.arange(27), 1), 0)
    labels = patches(videos)[~decode_mask].view(4, -1, 96)
    errors = (model(videos, mask, decode_mask) - labels).square().mean(-1)
    assert errors.shape == (4, 18)
    hook.learn(errors, ~decode_mask)
    (episode,) = hook.buffer
    for clip in range(4):
        known = {token: float(errors[clip, token // 2].detach()) for token in range(0, 36, 2) if mask[clip, token]}
        mean = sum(known.values()) / len(known)
        want = torch.tensor([known.get(token, mean) for token in range(36) if mask[clip, token]])
        torch.testing.assert_close(episode.reward[clip], want)


def test_a_loss_of_ones_own_is_what_the_policy_is_paid_for_and_the_model_trains_on():
    """Frame differences, weighted: the loop's loss is untouched by the hook."""
    torch.manual_seed(0)
    videos, weight = torch.randn(4, 3, 8, 12, 12), .3
    losses = []
    for hooked in (False, True):
        torch.manual_seed(1)
        model = SmallVideoMAE()
        optimizer = torch.optim.SGD(model.parameters(), 1e-2)
        hook = SamplingHook(model, "random", GRID, .75)
        for step in range(3):
            mask = torch.arange(36).roll(step).expand(4, -1) < 27
            mask = hook.choose(model, videos, mask, 0) if hooked else mask
            target = patches(videos).unflatten(2, (2, 48)).clone()
            target[:, :, 1] -= target[:, :, 0]
            output = model(videos, mask).unflatten(2, (2, 48))
            error = (output - target[mask].view(4, -1, 2, 48)).square().mean(-1)
            errors = (1 - weight) * error[..., 0] + weight * error[..., 1]
            optimizer.zero_grad()
            errors.mean().backward()
            optimizer.step()
            if hooked:
                hook.learn(errors)
        losses.append(errors.mean())
    assert torch.equal(*losses)
