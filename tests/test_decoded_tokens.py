"""--decoder_mask_ratio: the decoder sees and predicts a share of the masked tokens, which stand for all."""

from dataclasses import replace

import pytest
import torch
from pretraining_setup import (
    CPU,
    EpisodeBuffer,
    changed,
    learner,
    loader,
    ppo_training,
    snapshot,
    tiny_mae,
    tiny_sampler,
)
from tats.engines.core.meters import Meters
from tats.engines.engine_for_pretraining import train_mae
from tats.engines.pretrain.interface import predict
from tats.engines.run_mae_pretraining import main
from tats.engines.runs.dispatch import train_one_epoch
from tats.masking import MASKINGS, some_of
from tats.models.mae import TokenOrder, token_order


def with_ratio(training, ratio):
    return replace(training, setup=replace(training.setup, decoder_mask_ratio=ratio))


def one_step(ratio):
    """(the model before the step, the batch, the outcome)."""
    mae = learner(tiny_mae())
    training = with_ratio(ppo_training(mae.module), ratio)
    batch = training.setup.normalizer.prepare(loader(1, 4)[0], CPU)
    return tiny_mae(), batch, train_mae(mae, batch, batch.mask, False, training.setup, Meters())


def test_the_decoder_sees_the_visible_and_the_chosen_tokens_alone():
    model, batch, outcome = one_step(0.5)
    visible, masked = token_order(batch.mask)
    assert outcome.masked.shape == (4, 14)                                   # half of 27, rounded
    assert all(set(chosen.tolist()) < set(every.tolist()) for chosen, every in zip(outcome.masked, masked, strict=True))
    assert torch.equal(outcome.masked, outcome.masked.sort(dim=1).values)
    with torch.no_grad():
        encoded = model.encoder_to_decoder(model.encoder(batch.videos, visible))
        table = model.pos_embed.expand(4, -1, -1)
        pick = lambda places: table.gather(1, places[..., None].expand(-1, -1, 24))   # noqa: E731
        tokens = torch.cat([encoded + pick(visible), model.mask_token + pick(outcome.masked)], dim=1)
        for block in model.decoder.blocks:
            tokens = block(tokens)
        plain = model.decoder.head(model.decoder.norm(tokens))[:, -14:]
        prediction, places = predict(model, model, batch.videos, batch.mask, decoded=lambda _: outcome.masked)
    torch.testing.assert_close(prediction, plain)
    assert torch.equal(places, outcome.masked)


def test_nothing_is_left_out_by_default():
    _, batch, outcome = one_step(0.0)
    assert torch.equal(outcome.masked, token_order(batch.mask).masked)


def test_every_masked_token_is_chosen_as_often():
    masked = torch.tensor([[1, 4, 5, 9, 11, 12, 20, 30]]).expand(4000, -1)
    chosen = some_of(masked, 2, torch.arange(4000))
    counts = torch.bincount(chosen.flatten(), minlength=31)[masked[0]]
    assert counts.sum() == 8000 and (counts - 1000).abs().max() < 5 * (1000 * 0.75) ** 0.5
    assert torch.equal(some_of(masked[:3], 2, torch.tensor([7, 8, 7]))[0], some_of(masked[:1], 2, torch.tensor([7]))[0])


@pytest.mark.parametrize("name", sorted(MASKINGS))
def test_every_strategy_trains(name):
    row = MASKINGS[name]
    mae = learner(tiny_mae())
    sampler = None if row.sampler is None else learner(tiny_sampler(name))
    training = with_ratio(ppo_training(mae.module), 0.6)
    before = [snapshot(one.module) for one in (mae, sampler) if one is not None]
    log = Meters()
    train_one_epoch(row.learner, 0, loader(3, 4), (mae, sampler), EpisodeBuffer(), training, log)
    assert all(changed(one.module, old) for one, old in zip((mae, sampler), before, strict=False))
    assert all(value == value for value in log.means().values())


def test_the_order_of_a_model_is_what_it_decodes():
    model, batch = tiny_mae(), one_step(0.0)[1]
    visible, masked = token_order(batch.mask)
    some = TokenOrder(visible, masked[:, :5])
    assert model(batch.videos, batch.mask, some).shape[1] == 5


class OfAFork(torch.nn.Module):
    def forward(self, videos, mask):
        return torch.zeros(len(videos), int(mask[0].sum()), 1)


def test_a_model_that_decodes_every_token_says_so():
    mask = torch.tensor([[True, True, False]])
    net = OfAFork()
    assert predict(net, net, torch.zeros(1), mask)[1].tolist() == [[0, 1]]
    with pytest.raises(ValueError, match="OfAFork predicts every masked token: use --decoder_mask_ratio 0"):
        predict(net, net, torch.zeros(1), mask, decoded=lambda masked: masked[:, :1])


@pytest.mark.parametrize(("flags", "message"), [
    (["--tats_recipe", "paper"], "add --ppo_ratio recorded"), (["--reward", "progress"], "compares all of them")])
def test_what_needs_every_error_is_refused(tmp_path, flags, message):
    (tmp_path / "list.csv").write_text("none.mp4\n")
    with pytest.raises(ValueError, match=message):
        main(["--data_path", str(tmp_path / "list.csv"), "--output_dir", str(tmp_path / "out"), "--model",
              "pretrain_tats_tiny", "--mask_type", "tats", "--device", "cpu", "--decoder_mask_ratio", ".5", *flags])
