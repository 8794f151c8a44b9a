"""The sampler as two calls in a loop of one's own: the engines' numbers, tokens and errors of any kind, resume."""

import pytest
import torch
from pretraining_setup import EpisodeBuffer, clips, learner, loader, ppo_training, setup, tiny_mae, tiny_sampler
from tats.engines import engine_for_pretraining, engine_for_pretraining_ppo
from tats.engines.config.pretraining import SamplerConfig, resolve_recipe
from tats.engines.core.meters import Meters
from tats.engines.hook import PixelTokens, SamplingHook
from tats.engines.hook.errors import masked_errors
from tats.engines.pretrain.reconstruction import Reconstruction
from tats.engines.training.bad_steps import NonFiniteError
from tats.engines.training.batches import Normalizer
from tats.masking import MASKINGS, Masking, RandomMasking, TokenSampler

CPU = torch.device("cpu")
GRID = (4, 3, 3)
TATS = {"tats_heads": 2, "policy_head_init": "xavier"}


def hook_of(mae, name="tats", **settings):
    """A hook whose policy has the weights of `tiny_sampler`."""
    options = {"sampler_lr": 1e-2, "mae_only_epochs": 1} | (TATS if name == "tats" else {}) | settings
    hook = SamplingHook(mae, name, GRID, 0.75, **options)
    if hook.sampler is not None and "tokens" not in settings:
        hook.sampler.module.load_state_dict(tiny_sampler(name).state_dict())
    return hook


def batches_of(epoch, steps=10, size=4):
    """(videos normalised, masks, keys)."""
    normalizer = Normalizer(CPU)
    return [normalizer.prepare(batch, CPU) for batch in loader(steps, size, seed=epoch)]


def errors_of(mae, batch, mask):
    """What a loop of one's own computes: one number a masked token, with its graph."""
    target = Reconstruction().target(batch, mask, setup(mae).patch)
    return (mae(batch.videos, mask) - target).square().mean(-1)


def plain_loop(mae, hook, optimizer, epoch, batches, update_freq=1):
    for place, batch in enumerate(batches):
        mask = hook.choose(mae, batch.videos, batch.mask, epoch, keys=batch.keys)
        errors = errors_of(mae, batch, mask)
        (errors.mean() / update_freq).backward()
        if (place + 1) % update_freq == 0:
            torch.nn.utils.clip_grad_norm_(mae.parameters(), 1e9)
            optimizer.step()
            optimizer.zero_grad()
        hook.learn(errors)


@pytest.mark.parametrize(("name", "flags", "update_freq"), [
    ("tats", {}, 1), ("tats", {"update_every": 3, "ppo_epochs": 2}, 1), ("tats", {"tats_recipe": "paper"}, 1),
    ("tats", {"update_every": 3, "flush_buffer": False, "mae_only_epochs": 0}, 1),
    ("tats", {"random_share": .5, "context_share": .2, "reuse_forward": False}, 1), ("tats", {}, 2),
    ("adamae", {}, 1), ("adamae", {}, 2), ("random", {}, 1),
], ids=str)
def test_twenty_steps_equal_those_of_the_engine(name, flags, update_freq):
    """Of TATS as it is by default; eight steps of every other setting."""
    results, steps = [], 4 if flags or update_freq > 1 or name != "tats" else 10
    for ours in (True, False):
        mae = learner(tiny_mae())
        if ours:
            config = resolve_recipe(SamplerConfig(**flags))
            approx = {"approx": config.tats_approx} if name == "tats" else {}
            sampler, c3 = learner(tiny_sampler(name, **approx)) if MASKINGS[name].sampler else None, config.entropy_coef
            training = ppo_training(mae.module, update_freq, c3, **{"mae_only_epochs": 1} | flags)
        else:
            hook = hook_of(mae.module, name, update_freq=update_freq, **flags)
            optimizer = mae.optimizer
        torch.manual_seed(4)
        buffer = EpisodeBuffer()
        for epoch in (0, 1):
            if not ours:
                plain_loop(mae.module, hook, optimizer, epoch, batches_of(epoch, steps), update_freq)
                hook.end_epoch()
            elif name == "tats":
                engine_for_pretraining_ppo.train_one_epoch(epoch, loader(steps, 4, seed=epoch), mae, sampler,
                                                           buffer, training, Meters())
            else:
                engine_for_pretraining.train_one_epoch(epoch, loader(steps, 4, seed=epoch), mae, sampler,
                                                       setup(mae.module, update_freq), Meters())
        policy = sampler if ours else hook.sampler
        results.append((mae.module.state_dict(), policy.module.state_dict() if policy else {}))
    for first, second in zip(*results, strict=True):
        for key, value in first.items():
            torch.testing.assert_close(second[key], value, atol=1e-6, rtol=0, msg=lambda m, k=key: f"{k}: {m}")


KINDS = {name: ["model", "pixels", "function", "given"] if row.sampler else ["model"] for name, row in MASKINGS.items()}


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, kinds in KINDS.items() for kind in kinds])
def test_every_row_trains_on_tokens_of_every_kind(name, kind):
    mae = tiny_mae()
    embed = mae.encoder.patch_embed
    tokens = {"function": lambda videos: embed(videos)}.get(kind, kind)
    hook = hook_of(mae, name, tokens=tokens, width={"model": None, "pixels": 48}.get(kind, 24))
    optimizer, batches = torch.optim.AdamW(mae.parameters(), 1e-3), batches_of(0, 2)
    for epoch in (0, 1):
        for batch in batches:
            given = embed(batch.videos) if kind == "given" else mae
            mask = hook.choose(given, batch.videos, batch.mask, epoch)
            assert mask.dtype == torch.bool and (mask.sum(1) == mask.sum(1)[0]).all()
            errors = errors_of(mae, batch, mask)
            optimizer.zero_grad()
            errors.mean().backward()
            optimizer.step()
            hook.learn(errors)
        numbers = hook.end_epoch()
    assert {"visible_tokens", "mask_overlap"} <= set(numbers) and not {"loss", "lr", "grad_norm"} & set(numbers)
    assert ("entropy_share" in numbers) == (name in ("tats", "adamae"))


class Nothing(TokenSampler):
    """A policy without parameters: the first tokens are the likeliest."""

    def __init__(self, grid, embed_dim, **count):
        super().__init__(grid, **count)

    def policy(self, tokens):
        return torch.linspace(3, 0, tokens.shape[1]).expand(len(tokens), -1), None


def test_a_sampler_that_nothing_trains_and_a_row_that_is_in_no_table():
    mae = tiny_mae()
    hook = SamplingHook(mae, Masking(RandomMasking, sampler=Nothing), GRID, 0.75)
    plain_loop(mae, hook, torch.optim.AdamW(mae.parameters()), 0, batches_of(0, 3))
    seen = hook.end_epoch() and hook.choose(mae, batches_of(0, 1, 64)[0].videos, None, 1).logical_not().sum(0)
    assert seen[:12].sum() > 2 * seen[-12:].sum()
    assert hook.state_dict()["optimizer"] == {}


def test_errors_of_any_kind_by_hand():
    masked = torch.tensor([[0, 2, 3], [1, 2, 4]])
    dense = torch.arange(10.).view(2, 5)
    want = torch.tensor([[0., 2, 3], [6, 7, 9]])
    assert torch.equal(masked_errors(dense, masked, 5), want)
    assert torch.equal(masked_errors(want, masked, 5), want)
    known = torch.tensor([[True, True, True, False, False], [False, False, False, True, False]])
    filled = torch.tensor([[0., 2, 1], [1, 1, 1]])     # clip 0: mean of 0 and 2; clip 1 knows none: the batch's
    assert torch.equal(masked_errors(dense, masked, 5, known), filled)
    of_masked = known.gather(1, masked)
    assert torch.equal(masked_errors(torch.where(of_masked, want, torch.nan), masked, 5, of_masked), filled)
    decoded = torch.tensor([[True, False, False, True, False], [False, True, True, False, False]])   # K = 2 each
    assert torch.equal(masked_errors(torch.tensor([[5., 7], [1, 3]]), masked, 5, decoded),
                       torch.tensor([[5., 6, 7], [1, 3, 2]]))


@pytest.mark.parametrize(("errors", "known", "words"), [
    ((2, 5, 4), None, "one number a token"), ((2, 4), None, "4 tokens"), ((3, 5), None, "one number"),
    ((2, 3), (2, 4), "known"), ((2, 2), (2, 5), "known marks"),
])
def test_errors_that_fit_nothing_are_refused(errors, known, words):
    masked = torch.tensor([[0, 2, 3], [1, 2, 4]])
    with pytest.raises(ValueError, match=words):
        masked_errors(torch.zeros(errors), masked, 5, None if known is None else torch.ones(known).bool())


def test_a_run_that_was_cut_in_the_middle_of_an_epoch_goes_on_the_same():
    """k = 3: four steps leave an episode in the buffer, which travels."""
    batches, flags = batches_of(2, 7), {"update_every": 3, "mae_only_epochs": 0}
    ends = []
    for cut in (False, True):
        mae = tiny_mae()
        hook, optimizer = hook_of(mae, **flags), torch.optim.SGD(mae.parameters(), 1e-2)
        plain_loop(mae, hook, optimizer, 0, batches[:4])
        if cut:
            assert len(hook.buffer) == 1
            state, hook = hook.state_dict(), hook_of(mae, **flags)
            hook.load_state_dict(state)
        plain_loop(mae, hook, optimizer, 0, batches[4:])
        hook.end_epoch()
        assert hook.sampler.steps == 7     # 3 + 3 + what the end of the epoch left
        ends.append({**mae.state_dict(), **hook.sampler.module.state_dict()})
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, msg=lambda m, n=name: f"{n}: {m}")


def test_states_that_do_not_fit_are_refused():
    with_policy = hook_of(tiny_mae())
    for hook, state in ((with_policy, {}), (hook_of(tiny_mae(), "random"), with_policy.state_dict()),
                        (hook_of(tiny_mae(), "adamae"), with_policy.state_dict())):
        with pytest.raises(ValueError, match="--mask_type"):
            hook.load_state_dict(state)


def test_the_loops_autocast_and_no_grad_are_its_own():
    ends = []
    for strange in (False, True):
        mae = tiny_mae()
        hook = hook_of(mae, mae_only_epochs=0)
        for batch in batches_of(3, 3):
            with torch.autocast("cpu", torch.bfloat16, enabled=strange), torch.set_grad_enabled(not strange):
                mask = hook.choose(mae, batch.videos, batch.mask, 0, keys=batch.keys)
                hook.learn(mask.float().mul(torch.arange(36)))
        ends.append(hook.sampler.module.state_dict())
    for name, value in ends[0].items():
        assert torch.equal(ends[1][name], value)


@pytest.mark.parametrize(("name", "flags"), [("tats", {}), ("adamae", {})])
def test_errors_that_are_not_finite_move_nothing_and_end_the_run(name, flags):
    mae = tiny_mae()
    hook = hook_of(mae, name, mae_only_epochs=0, max_bad_steps=3, **flags)
    before = {key: value.clone() for key, value in hook.sampler.module.state_dict().items()}
    for batch in batches_of(0, 4):
        hook.choose(mae, batch.videos, batch.mask, 0)
        hook.learn(torch.full((4, 36), torch.nan))
    assert all(torch.equal(before[key], value) for key, value in hook.sampler.module.state_dict().items())
    with pytest.raises(NonFiniteError):
        hook.end_epoch()


def test_a_policy_that_is_not_finite_masks_at_random():
    mae, hook = tiny_mae(), hook_of(tiny_mae(), mae_only_epochs=0)
    with torch.no_grad():
        hook.sampler.module.policy_head.weight.fill_(torch.nan)
    masks = [hook.choose(mae, batch.videos, batch.mask, 0) for batch in batches_of(0, 2)]
    assert all((mask.sum(1) == 27).all() for mask in masks) and not torch.equal(*masks)
    assert not torch.equal(masks[0][0], masks[0][1])


def test_images_are_clips_of_one_frame_and_pixels_are_tokens_enough():
    torch.manual_seed(0)
    images = torch.randn(8, 3, 12, 16)
    hook = SamplingHook(None, "tats", (1, 3, 4), .75, tokens="pixels", width=32, mae_only_epochs=0, sampler_lr=1e-2,
                        tats_heads=2)
    hard = torch.zeros(8, 12)
    hard[:, 5] = 1                       # the sixth token is always the hard one
    for _ in range(30):
        hook.choose(None, images, None, 0)
        hook.learn(hard)
    policy, _ = hook.sampler.module(hook.tokens(None, images, True))
    assert (policy.argmax(1) == 5).all() and policy[:, 5].min() > 2 / 12
    with pytest.raises(ValueError, match="divide|cut"):
        hook.choose(None, torch.randn(8, 3, 13, 16), None, 0)


def test_pixel_tokens_keep_the_distances_of_patches():
    tokens, again = PixelTokens((2, 3, 3), 512), PixelTokens((2, 3, 3), 512)
    videos = torch.randn(2, 3, 4, 12, 12)
    found = tokens(None, videos, False)
    assert found.shape == (2, 18, 512) and torch.equal(found, again(None, videos, False))
    patch = videos[0, :, 2:4, 4:8, 8:12].flatten(), videos[1, :, 2:4, 0:4, 0:4].flatten()    # tokens 14 and 9
    distance = (patch[0] - patch[1]).norm() / 96**.5 * 512**.5
    assert abs((found[0, 14] - found[1, 9]).norm() / distance - 1) < .15


@pytest.mark.parametrize(("change", "words"), [
    ({"mask": torch.zeros(4, 35)}, "mask of shape"), ({"videos": torch.zeros(4, 1, 8, 12, 12)}, "videos of shape"),
    ({"videos": torch.zeros(4, 3, 8, 12, 12, dtype=torch.uint8)}, "uint8"),
    ({"model": torch.zeros(4, 35, 24)}, "tokens of shape"),
])
def test_wrong_inputs_are_one_clear_line_in_the_first_step(change, words):
    mae = tiny_mae()
    hook, (batch,) = hook_of(mae, mae_only_epochs=9), batches_of(0, 1)
    given = {"model": mae, "videos": batch.videos, "mask": batch.mask} | change
    with pytest.raises(ValueError, match=words):
        hook.choose(**given)


@pytest.mark.parametrize(("settings", "words"), [
    ({"m_oo": 3}, "m_oo"), ({"sampler_lr": -1.}, "sampler_lr"), ({"tokens": "mine"}, "tokens must be"),
    ({"tokens": len}, "width"), ({"mae_only_explained": .1}, "mae_only_explained"),
    ({"sampler_lr_final": 1e-5}, "epochs="),
])
def test_settings_that_cannot_be_run_with_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        SamplingHook(tiny_mae(), "tats", GRID, .75, **TATS | settings)


def test_a_model_whose_tokens_are_unknown_and_learning_without_a_choice_are_refused():
    with pytest.raises(ValueError, match='tokens="pixels"'):
        SamplingHook(torch.nn.Linear(2, 2), "tats", GRID, .75)
    with pytest.raises(ValueError, match="choose"):
        hook_of(tiny_mae()).learn(torch.zeros(4, 36))


def test_a_loader_that_shows_another_number_of_tokens_is_named(caplog):
    mae, batch = tiny_mae(), clips(4)
    videos = torch.randn(batch.video.shape)
    mask = MASKINGS["tube"].per_clip(GRID, .75)().expand(4, -1)     # 12 of 36, the policy 9
    hook_of(mae).choose(mae, videos, mask, 0)
    assert "num_visible=12" in caplog.text
    with pytest.raises(ValueError, match="num_visible=12"):
        hook_of(mae, random_share=.5).choose(mae, videos, mask, 0)


@pytest.mark.parametrize(("mask_type", "said"), [("random", True), ("tube", False)])
def test_a_loader_of_another_ratio_is_named_for_fixed_masks_too(mask_type, said, caplog):
    mae, batch = tiny_mae(), clips(4)
    mask = MASKINGS["tube"].per_clip(GRID, .75)().expand(4, -1)     # 12 of 36; random shows 9, whole tubes 12
    SamplingHook(mae, mask_type, GRID, .75).choose(mae, torch.randn(batch.video.shape), mask, 0)
    assert ("show 12 tokens and the hook was made for 9" in caplog.text) is said
    with pytest.raises(ValueError, match="~mask"):
        SamplingHook(mae, "random", GRID, .75).choose(mae, torch.randn(batch.video.shape),
                                                      (torch.arange(36) < 9).expand(4, -1), 0)
    with pytest.raises(ValueError, match="a mask of shape"):
        SamplingHook(mae, "random", GRID, .75).choose(mae, torch.randn(batch.video.shape), torch.arange(36) < 27, 0)


def test_nobody_is_told_of_what_is_to_be_expected_or_so_already(caplog):
    """A policy whose rewards are all alike stays uniform: silence in its first epochs, then what a fork can do."""
    mae = tiny_mae()
    hook = SamplingHook(mae, "tats", GRID, .75, mae_only_epochs=1, tats_heads=2, sampler_lr=1e-9)
    for epoch in range(5):
        for batch in batches_of(epoch, 2):
            hook.choose(mae, batch.videos, batch.mask, epoch)
            hook.learn(torch.rand(4, 36))
        hook.end_epoch()
    lines = [record.getMessage() for record in caplog.records if "uniform" in record.getMessage()]
    assert [line.split(":")[0] for line in lines] == ["epoch 4"]
    assert not any(word in lines[0] for word in ("explained_variance", "policy_moved", "ppo_weighting", "picture"))
