"""A learner by hand: one weight, plain SGD, rates that tell the step."""

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from tats.engines.core.runtime import Precision, Runtime
from tats.engines.training.learner import Learner, apply_schedules
from tats.engines.training.optim import make_optimizer, parameter_groups
from torch.nn.parallel import DistributedDataParallel


def line(weight=1.0, bias=False):
    net = torch.nn.Linear(1, 1, bias=bias)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(weight)
    return net


def sgd(net, lr=lambda step: 0.1, **options):
    return Learner(net, torch.optim.SGD(net.parameters()), lr, **options)


def loss_of(learner, factor=1.0):
    """Its gradient is `factor`, for the weight."""
    return factor * learner(torch.ones(1, 1)).float().sum()


def test_rates_and_decay_of_each_group():
    first, second, third = (torch.nn.Parameter(torch.ones(1)) for _ in range(3))
    optimizer = torch.optim.SGD([{"params": [first], "weight_decay": 0.5, "lr_scale": 0.25},
                                 {"params": [second], "weight_decay": 0.0, "lr_scale": 1.0},
                                 {"params": [third], "weight_decay": 0.5}], lr=9.0)
    apply_schedules(optimizer, 3, lambda step: 2.0 * step, None)
    assert [group["lr"] for group in optimizer.param_groups] == [1.5, 6.0, 6.0]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0, 0.5]
    apply_schedules(optimizer, 3, lambda step: 2.0 * step, lambda step: step / 10)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0, 0.3]   # what has none gets none
    apply_schedules(optimizer, 3, lambda step: 2.0 * step, lambda step: 7.0)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [7.0, 0.0, 7.0]


def test_each_step_has_its_own_rate():
    learner = sgd(line(), lambda step: [0.5, 0.25, 0.125][step])
    assert (learner.steps, learner.optimizer.param_groups[0]["lr"]) == (0, 0.5)
    learner.backward(loss_of(learner))
    assert learner.module.weight.grad.item() == 1.0
    assert learner.step().item() == 1.0
    assert (learner.steps, learner.optimizer.param_groups[0]["lr"]) == (1, 0.25)
    assert learner.module.weight.item() == 0.5 and learner.module.weight.grad is None
    learner.backward(loss_of(learner))
    learner.step()
    assert (learner.module.weight.item(), learner.steps) == (0.25, 2)
    learner.start(1)
    assert (learner.steps, learner.optimizer.param_groups[0]["lr"]) == (1, 0.25)


@pytest.mark.parametrize(("clip_grad", "moved"), [(None, 4.0), (8.0, 4.0), (2.0, 2.0)])
def test_clipping_by_hand(clip_grad, moved):
    """The gradient is 4; its norm before clipping is what is reported."""
    learner = sgd(line(), lambda step: 1.0, clip_grad=clip_grad)
    learner.backward(loss_of(learner, 4.0))
    assert learner.step().item() == 4.0
    assert 1 - learner.module.weight.item() == pytest.approx(moved, rel=1e-5)


def test_gradients_of_micro_batches_add_up():
    learner = sgd(line())
    for more in (True, True, False):
        with learner.accumulating(more):
            learner.backward(loss_of(learner, 2.0) / 3)
    learner.step()
    assert learner.module.weight.item() == pytest.approx(1 - 0.2)


@pytest.mark.parametrize("broken", ["loss", "gradient", "reward"])
def test_a_value_that_is_not_finite_moves_nothing(broken):
    learner = sgd(line(), lambda step: [0.5, 0.25, 0.125][step])
    if broken == "reward":
        learner.check(reward=torch.tensor(float("nan")))
    loss = loss_of(learner)
    learner.backward(loss * float("nan") if broken == "loss" else loss)
    if broken == "gradient":
        learner.module.weight.grad.fill_(float("inf"))
    learner.step()
    assert learner.module.weight.item() == 1.0 and learner.module.weight.grad is None
    assert (learner.steps, learner.optimizer.param_groups[0]["lr"]) == (1, 0.25)   # the skipped step counts
    learner.backward(loss_of(learner))
    learner.step()
    assert learner.module.weight.item() == 0.75


@pytest.mark.parametrize("fused", [True, False])
def test_adamw_skips_alike_whether_fused_or_not(fused):
    net = line()
    learner = Learner(net, make_optimizer(parameter_groups(net, 0.0), fused=fused), lambda step: 0.5)
    for factor in (1.0, float("nan"), 1.0):
        learner.backward(loss_of(learner, factor))
        learner.step()
    assert net.weight.item() == pytest.approx(0.0, abs=1e-6) and learner.steps == 3   # two steps of the rate itself
    for name in ("grad_scale", "found_inf"):   # what is set for one step is gone
        assert not hasattr(learner.optimizer, name)


def test_half_precision_scales_the_loss_and_tells_no_norm():
    learner = sgd(line(), precision=Precision("cpu", torch.float16))
    assert learner.scaler.is_enabled()
    learner.backward(loss_of(learner, 0.5))
    assert learner.module.weight.grad.item() == 0.5 * learner.scaler.get_scale() > 1
    assert learner.step() is None
    assert learner.module.weight.item() == pytest.approx(0.95)
    assert learner(torch.ones(1, 1)).dtype == torch.float16
    assert not sgd(line(), precision=Precision("cpu", torch.bfloat16)).scaler.is_enabled()
    assert sgd(line())(torch.ones(1, 1)).dtype == torch.float32


def momentum(net):
    return Learner(net, torch.optim.SGD(net.parameters(), momentum=0.5), lambda step: [0.5, 0.25, 0.125, 0.1][step])


def test_what_is_saved_goes_on_as_if_it_had_not_stopped():
    learner, folder = momentum(line()), Path("checkpoint-0")
    for _ in range(2):
        learner.backward(loss_of(learner))
        learner.step()
    weights = {name: value.clone() for name, value in learner.weights().items()}
    assert list(weights) == ["weight"]
    state = copy.deepcopy(learner.save(folder))   # as a file would keep it: the learner goes on with its own tensors
    assert state.keys() == {"optimizer", "scaler", "steps", "health"} and state["steps"] == 2
    fresh = momentum(line(7.0))
    fresh.load(weights, state, folder)
    assert (fresh.steps, fresh.optimizer.param_groups[0]["lr"]) == (2, 0.125)
    for one in (learner, fresh):
        one.backward(loss_of(one))
        one.step()
    assert fresh.module.weight.item() == learner.module.weight.item()
    # 1; velocities 1, 1.5, 1.75: 1 - .5 - .25 * 1.5 - .125 * 1.75
    assert learner.module.weight.item() == pytest.approx(1 - 0.5 - 0.375 - 0.21875)


def test_bad_steps_in_a_row_are_counted_over_a_restart():
    def break_one(learner):
        learner.backward(loss_of(learner, float("nan")))
        learner.step()

    learner, fresh, without = (momentum(line()) for _ in range(3))
    break_one(learner)
    state = learner.state_dict()
    fresh.load_state_dict(state)
    assert fresh.health.state() == learner.health.state() != momentum(line()).health.state()
    without.load_state_dict({name: value for name, value in state.items() if name != "health"})   # an older checkpoint
    assert without.health.state() == momentum(line()).health.state()


def test_a_network_that_learns_nothing_has_no_state():
    still = Learner(line())
    assert still.state_dict() == {} == still.save(Path("x"))
    still.load_state_dict({})
    still.load({"weight": torch.full((1, 1), 3.0)}, {}, Path("x"))
    assert still.module.weight.item() == 3.0 and still(torch.ones(1, 1)).item() == 3.0


def test_another_ones_state_is_refused():
    learner = momentum(line())
    with pytest.raises(ValueError, match="--enable_deepspeed"):
        learner.load({"weight": torch.ones(1, 1)}, {"deepspeed": True}, Path("runs/checkpoint-3"))
    with pytest.raises(ValueError, match="checkpoint-3.*bias"):
        learner.load({"weight": torch.ones(1, 1), "bias": torch.ones(1)}, {}, Path("runs/checkpoint-3"))


def test_the_state_of_other_groups_is_refused():
    more = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.ones(1))]} for _ in range(2)])
    state = momentum(line()).state_dict() | {"optimizer": more.state_dict()}
    with pytest.raises(ValueError):
        momentum(line()).load_state_dict(state)


def test_alone_the_largest_value_is_ones_own():
    assert sgd(line()).largest(torch.tensor(3.0)).item() == 3.0


def test_a_released_network_is_the_bare_one():
    learner = sgd(line())
    learner.net = torch.nn.Identity()
    learner.release()
    assert learner.net is learner.module


def test_half_precision_takes_a_smaller_scale_after_an_overflow():
    learner = sgd(line(), precision=Precision("cpu", torch.float16))
    before = learner.scaler.get_scale()
    learner.backward(loss_of(learner, float("inf")))
    assert learner.step() is None
    assert learner.module.weight.item() == 1.0 and learner.scaler.get_scale() == before / 2


@pytest.fixture
def group():
    """A process group of this process alone, with which DistributedDataParallel can be built."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_several_processes_share_gradients_once_a_step(group):
    learner = sgd(line(), runtime=Runtime(torch.device("cpu"), rank=0, world_size=2))
    assert isinstance(learner.net, DistributedDataParallel) and list(learner.weights()) == ["weight"]
    assert isinstance(sgd(line(), runtime=Runtime(torch.device("cpu"))).net, torch.nn.Linear)
    for more in (True, False):
        with learner.accumulating(more):
            assert learner.net.require_backward_grad_sync is not more
            learner.backward(loss_of(learner))
    learner.step()
    assert learner.module.weight.item() == pytest.approx(0.8)
    learner.release()
    assert learner.net is learner.module
