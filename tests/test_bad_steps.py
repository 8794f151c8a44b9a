"""Numbers that are not finite: who skips which step, what is written, when it ends, and that all processes agree."""

import copy
import json
import logging

import pytest
import torch
from pretraining_setup import (
    EpisodeBuffer,
    changed,
    learner,
    loader,
    ppo_training,
    setup,
    snapshot,
    tiny_mae,
    tiny_sampler,
)
from tats.engines import engine_for_pretraining, engine_for_pretraining_ppo
from tats.engines.core.meters import Meters
from tats.engines.pretrain.reconstruction import Reconstruction
from tats.engines.run_class_finetuning import main as finetune
from tats.engines.run_mae_pretraining import main as pretrain
from tats.engines.training.bad_steps import BadSteps, NonFiniteError
from tats.engines.training.health import CHECKED, Health
from tats.engines.training.learner import Learner
from tats.engines.training.optim import make_optimizer, parameter_groups
from tats.masking import MASKINGS
from tiny_runs import finetuning_flags
from tiny_runs import small_pretraining_flags as flags

NAN = float("nan")
pytestmark = pytest.mark.faults


def poison(net, when):
    """Multiply one parameter's gradient by NaN in those of its backward passes that `when` names, from 1."""
    calls = []

    def hook(gradient):
        calls.append(None)
        return gradient * NAN if len(calls) in when else gradient

    next(net.parameters()).register_hook(hook)


def train(name, batches, mae, sampler, log, **options):
    if MASKINGS[name].learner == "ppo":
        training = ppo_training(mae.module, **options)
        engine_for_pretraining_ppo.train_one_epoch(0, batches, mae, sampler, EpisodeBuffer(), training, log)
        return training
    engine_for_pretraining.train_one_epoch(0, batches, mae, sampler, setup(mae.module), log)
    return None


def pair(name):
    return learner(tiny_mae()), learner(tiny_sampler(name)) if MASKINGS[name].sampler else None


def unmoved(one, weights, optimizer):
    """Neither weights nor the optimiser's averages have changed."""
    return not changed(one.module, weights) and all(
        torch.equal(value, optimizer[index][key]) for index, state in enumerate(one.optimizer.state.values())
        for key, value in state.items())


def averages(one):
    return [{key: value.clone() for key, value in state.items()} for state in one.optimizer.state.values()]


@pytest.mark.parametrize("fused", [False, True])
def test_a_bad_step_is_as_if_it_had_not_been(fused):
    """A fused optimiser skips on the device; any other is not called."""
    net = tiny_mae()
    mae = Learner(net, torch.optim.AdamW(net.parameters(), lr=1e-2, fused=fused), lambda step: 1e-2)
    batches = loader(4, 4)
    train("tube", batches[:2], mae, None, Meters())
    weights, optimizer = snapshot(net), averages(mae)
    poison(net, {1, 2})
    log = Meters()
    train("tube", batches[2:], mae, None, log)
    assert unmoved(mae, weights, optimizer) and mae.steps == 4
    assert (int(mae.health.in_a_row), int(mae.health.total)) == (2, 2) and mae.health.causes.tolist() == [0, 0, 0, 1]
    means = log.means()
    assert means["loss"] > 0 and "grad_norm" not in means   # its loss was finite, its norm is left out
    train("tube", batches[:1], mae, None, Meters())
    assert changed(net, weights) and (int(mae.health.in_a_row), int(mae.health.total)) == (0, 2)


@pytest.mark.parametrize("fused", [False, True])
def test_a_fused_optimiser_goes_on_from_another_ones_state(fused):
    """A checkpoint of a GPU, where AdamW is fused, on a CPU, where it is not, and back."""
    def one(fused):
        net = tiny_mae()
        return Learner(net, make_optimizer(parameter_groups(net, 0.05), fused=fused), lambda step: 1e-2)

    first, second = one(fused), one(not fused)
    train("tube", loader(2, 4), first, None, Meters())
    second.module.load_state_dict(first.module.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert second.optimizer.param_groups[0]["fused"] is ((not fused) or None)
    for learner_ in (first, second):
        train("tube", loader(2, 4, seed=1), learner_, None, Meters())
    for name, value in first.module.state_dict().items():
        torch.testing.assert_close(second.module.state_dict()[name], value)
    poison(second.module, {1})
    weights = snapshot(second.module)
    train("tube", loader(1, 4), second, None, Meters())
    assert not changed(second.module, weights)


@pytest.mark.parametrize("name", ["tats", "adamae"])
def test_a_bad_gradient_of_one_network_does_not_touch_the_other(name):
    for bad, good in ((0, 1), (1, 0)):
        both = pair(name)
        poison(both[bad].module, {1})
        before = [snapshot(one.module) for one in both]
        train(name, loader(1, 4), *both, Meters())
        assert not changed(both[bad].module, before[bad]) and changed(both[good].module, before[good])
        assert [int(one.health.total) for one in both] == ([1, 0] if bad == 0 else [0, 1])


@pytest.mark.parametrize("name", ["tats", "adamae"])
def test_a_broken_policy_moves_neither_network(name, monkeypatch):
    """A mask of probabilities that are not finite means nothing: the masked autoencoder does not learn from it."""
    mae, sampler = pair(name)
    phi, theta = snapshot(mae.module), snapshot(sampler.module)
    head = sampler.module.policy_head if name == "tats" else sampler.module.get_token_probs[1]
    head.register_forward_hook(lambda module, args, out: out * NAN)
    log = Meters()
    training = train(name, loader(2, 4), mae, sampler, log, **({"update_every": 2} if name == "tats" else {}))
    assert not changed(mae.module, phi) and not changed(sampler.module, theta)
    causes = dict(zip(CHECKED, mae.health.causes.tolist(), strict=True))
    assert causes == {"loss": 0, "probability": 1, "reward": 0, "gradient": 0}
    assert int(sampler.health.in_a_row) == int(mae.health.in_a_row) == 2
    assert all(value == value for value in log.means().values())
    if training:
        assert float(training.entropy.value) == pytest.approx(6e-5)


def test_a_broken_reward_skips_both_and_only_that_step(monkeypatch):
    """The second of four steps, two of them to an update of the policy: its other episode still counts."""
    mae, tats = pair("tats")
    real, calls = Reconstruction.errors, []

    def errors(self, prediction, target):
        calls.append(None)
        return real(self, prediction, target) * (NAN if len(calls) == 2 else 1)

    monkeypatch.setattr(Reconstruction, "errors", errors)
    theta = snapshot(tats.module)
    train("tats", loader(4, 4), mae, tats, Meters(), update_every=2)
    assert (int(mae.health.total), int(tats.health.total)) == (1, 1)
    assert (mae.steps, tats.steps) == (4, 4) and changed(tats.module, theta)
    assert all(value.isfinite().all() for one in (mae, tats) for value in one.module.state_dict().values())
    assert tats.health.causes.tolist() == [1, 0, 1, 1]


def test_the_entropy_coefficient_stays_where_theta_does():
    mae, tats = pair("tats")
    training = ppo_training(mae.module)
    training.entropy.target = 0.5
    poison(tats.module, {1})
    engine_for_pretraining_ppo.train_one_epoch(0, loader(1, 4), mae, tats, EpisodeBuffer(), training, Meters())
    assert float(training.entropy.value) == pytest.approx(6e-5)
    engine_for_pretraining_ppo.train_one_epoch(0, loader(1, 4), mae, tats, EpisodeBuffer(), training, Meters())
    assert float(training.entropy.value) < 6e-5


def test_float16_overflows_are_no_news_and_endless_ones_end_the_run(tmp_path, caplog):
    """A scaler finds its scale by steps that overflow."""
    net = torch.nn.Linear(1, 1)
    one = Learner(net, torch.optim.SGD(net.parameters()), lambda step: 0.1)
    one.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126)
    watch = BadSteps({"net": one}, tmp_path / "bad_steps.jsonl", 8, {})
    for _ in range(5):   # the scaled gradient of the weight, 16 times the scale, overflows until that is 2**123
        one.optimize(net(torch.full((1, 1), 16.0)).sum())
        watch.check(lambda _: {"epoch": 0, "last_step": one.steps})
    assert int(one.health.total) == 3 and int(one.health.in_a_row) == 0
    assert not caplog.records and not (tmp_path / "bad_steps.jsonl").exists()
    poison(net, range(1, 99))
    with pytest.raises(NonFiniteError, match="gradient .*net .* 8 "):
        for _ in range(20):
            one.optimize(net(torch.ones(1, 1)).sum())
            watch.check(lambda _: {"epoch": 0, "last_step": one.steps})


def test_a_value_that_is_not_finite_on_one_process_is_bad_on_all(monkeypatch):
    class Two:
        def largest(self, flags):
            return torch.maximum(flags, torch.tensor([0.0, 0.0, 1.0, 0.0]))

    health = Health(torch.device("cpu"), Two())
    health.check(loss=torch.tensor(1.0))
    assert health.close() and int(health.in_a_row) == 1


@pytest.mark.parametrize("row", ["tube", "adamae", "tats"])
def test_a_run_skips_records_and_ends(row, shapes, tmp_path, monkeypatch, caplog, fault):
    """Steps 3 and 4 are bad, then all from step 8 on: eight good, two skipped, an end with its cause."""
    real, calls = Reconstruction.errors, []

    def errors(self, prediction, target):
        if prediction.requires_grad:
            calls.append(None)
        broken = prediction.requires_grad and (len(calls) in (3, 4) or len(calls) >= 8)
        return real(self, prediction, target) * (NAN if broken else 1)

    monkeypatch.setattr(Reconstruction, "errors", errors)
    with pytest.raises(NonFiniteError, match="epoch 1, step 10: .*loss.*gradient.*MAE.* 3 "):
        pretrain(flags(shapes, tmp_path, "--mask_type", row, "--epochs", "9", "--max_bad_steps", "3",
                       "--mae_only_epochs", "0", "--save_every_steps", "1"))
    entries = [json.loads(line) for line in (tmp_path / "bad_steps.jsonl").read_text().splitlines()]
    own = [entry for entry in entries if entry["network"] == "MAE"]
    assert [(entry["last_step"], entry["in_a_row"]) for entry in own] == [(3, 1), (4, 2), (8, 1), (9, 2), (10, 3)]
    assert own[0]["not_finite"] == ["loss", "gradient"] and own[0]["settings"]["mask"]["mask_type"] == row
    assert len(own[0]["rows"]) == len(own[0]["videos"]) == 4 and own[0]["videos"][0].endswith(".mp4")
    assert set(own[0]["rows"]).isdisjoint(own[1]["rows"])   # another batch
    assert own[0]["statistics"]["MAE"]["weights"]["not_finite"] == []
    if row != "tube":
        theta = [entry for entry in entries if entry["network"] == "sampler"]
        assert theta[0]["not_finite"] == ["loss", "reward", "gradient"] and set(theta[0]["statistics"]) == {
            "MAE", "sampler"}
    assert "the step is skipped, 2 in a row" in caplog.text
    state = torch.load(tmp_path / "epoch-1-step-9.pth", weights_only=True)
    assert all(value.isfinite().all() for value in state["model"].values())
    line = json.loads((tmp_path / "log.txt").read_text())
    assert all(value == value for value in line.values() if isinstance(value, float))
    fault(f"NaN in the error of steps of {row}", "skipped on all networks, recorded; 3 in a row ended the run: exit 2",
          "the bad steps")


def test_a_broken_loss_of_fine_tuning(shapes, tmp_path, monkeypatch, caplog, fault):
    from tats.engines.finetune.mixing import BatchAugment

    real, calls = BatchAugment.loss, []

    def loss(self, logits, targets):
        calls.append(None)
        return real(self, logits, targets) * (NAN if len(calls) == 2 else 1)

    monkeypatch.setattr(BatchAugment, "loss", loss)
    result = finetune(finetuning_flags(shapes, tmp_path))
    entry = json.loads((tmp_path / "bad_steps.jsonl").read_text())
    assert (entry["network"], entry["last_step"], len(entry["rows"])) == ("classifier", 2, 8)
    assert result["num_evaluated"] == 8
    monkeypatch.setattr(BatchAugment, "loss", lambda *a: real(*a) * NAN)
    with pytest.raises(NonFiniteError, match="--max_bad_steps 2"):
        finetune(finetuning_flags(shapes, tmp_path / "b", "--max_bad_steps", "2"))
    fault("NaN in the loss of fine-tuning", "skipped, recorded; in a row ended the run: exit 2", "the bad step")


def test_meters_leave_out_what_is_not_finite_and_go_on_from_a_state():
    log = Meters()
    for value in (1.0, NAN, 3.0, float("inf")):
        log(a=torch.tensor(value), b=torch.tensor(NAN))
    for _ in range(Meters.FOLD):
        log(c=2.0)
    again = Meters()
    again.load(json.loads(json.dumps(log.state())))
    again(a=torch.tensor(5.0))
    assert log.means() == {"a": 2.0, "c": 2.0} and again.means() == {"a": 3.0, "c": 2.0}


def test_a_record_that_cannot_be_written_is_a_warning(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    mae, _ = pair("tube")
    watch = BadSteps({"MAE": mae}, tmp_path / "missing" / "bad_steps.jsonl", 9, {})
    poison(mae.module, {1})
    train("tube", loader(1, 4), mae, None, Meters())
    watch.check(lambda _: {"epoch": 0, "last_step": 1})
    assert "cannot be written" in caplog.text
