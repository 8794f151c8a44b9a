"""Layer decay and the schedule against VideoMAE's own numbers."""

import json
from pathlib import Path

import pytest
import torch
from tats.engines.finetune.averaging import WeightAverage
from tats.engines.training.layer_decay import layer_decay_scale
from tats.engines.training.learner import apply_schedules
from tats.engines.training.optim import make_optimizer, parameter_groups
from tats.engines.training.schedule import CosineSchedule
from tats.models import VisionTransformer
from timm.utils import ModelEmaV3

DATA = Path(__file__).parent / "data"
SCHEDULES = json.loads((DATA / "cosine_schedule.json").read_text())


def test_groups_are_videomaes():
    golden = json.loads((DATA / "finetune_param_groups.json").read_text())
    net = VisionTransformer(img_size=32, patch_size=8, embed_dim=24, depth=golden["depth"], num_heads=2, qkv_bias=True,
                            num_classes=5)
    groups = parameter_groups(net, golden["weight_decay"], net.no_weight_decay(),
                              layer_decay_scale(golden["depth"], golden["layer_decay"]))
    found = {name: group for group in groups for name in group["names"]}
    assert found.keys() == golden["parameters"].keys() == dict(net.named_parameters()).keys()
    for name, expected in golden["parameters"].items():
        assert abs(found[name]["lr_scale"] - expected["lr_scale"]) < 1e-12, name
        assert abs(found[name]["weight_decay"] - expected["weight_decay"]) < 1e-12, name


def test_no_decay_scales_nothing():
    scale = layer_decay_scale(3, 1.0)
    assert {scale(name) for name in ("patch_embed.proj.weight", "blocks.1.norm1.bias", "head.weight")} == {1.0}
    with pytest.raises(ValueError, match="layer_decay"):
        layer_decay_scale(3, 0.0)


@pytest.mark.parametrize("golden", SCHEDULES, ids=range(len(SCHEDULES)))
def test_schedule_is_videomaes(golden):
    given = {"warmup_epochs": 0, "warmup_steps": -1, "start_warmup_value": 0} | golden["args"]
    total = given["epochs"] * given["niter_per_ep"]
    warmup = given["warmup_steps"] if given["warmup_steps"] > 0 else given["warmup_epochs"] * given["niter_per_ep"]
    schedule = CosineSchedule(given["base_value"], given["final_value"], total, warmup, given["start_warmup_value"])
    assert len(golden["values"]) == total
    for step, value in enumerate(golden["values"]):
        assert abs(schedule(step) - value) < 1e-9, step
    assert schedule(total + 5) == schedule(total - 1)   # a loader that is longer than the table keeps the last value


def test_short_schedules_by_hand():
    one = CosineSchedule(1.0, 0.0, total_steps=3, warmup_steps=1, start=0.25)
    assert one(0) == 0.25                                              # the only step of warm-up
    assert [one(step) for step in (1, 2, 3, 9)] == pytest.approx([1.0, 0.5, 0.5, 0.5])   # past the end: the last value
    two = CosineSchedule(1.0, 0.2, total_steps=3, warmup_steps=2, start=0.5)
    assert [two(step) for step in (0, 1, 2, 3)] == pytest.approx([0.5, 1.0, 1.0, 1.0])
    plain = CosineSchedule(1.0, 0.2, total_steps=4)
    assert [plain(step) for step in (0, 1, 2, 3)] == pytest.approx([1.0, 0.6 + 0.4 * 0.5 ** 0.5, 0.6,
                                                                    0.6 - 0.4 * 0.5 ** 0.5])
    assert CosineSchedule(1.0, 0.0, total_steps=2, warmup_steps=5, start=0.0)(4) == 1.0   # no step is left for it


def test_every_step_sets_every_group():
    net = VisionTransformer(img_size=8, patch_size=4, embed_dim=12, depth=1, num_heads=2, num_classes=3, all_frames=4)
    optimizer = make_optimizer(parameter_groups(net, .05, (), layer_decay_scale(1, .5)), "adamw", betas=(.9, .999))
    apply_schedules(optimizer, 3, lambda step: .1 * step, lambda step: .01 * step)
    rates = {(round(group["lr"], 12), round(group["weight_decay"], 12)) for group in optimizer.param_groups}
    assert rates == {(lr, decay) for lr in (.075, .15, .3) for decay in (0, .03)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_average_of_bf16_copies_stays_in_float32(dtype, monkeypatch):
    """1, then 3 with decay .75: 1.5. timm's own is asked where nothing has to be cast."""
    net, copies = (torch.nn.Linear(1, 1, bias=False) for _ in range(2))
    torch.nn.init.constant_(net.weight, 1.0)
    torch.nn.init.constant_(copies.weight, 3.0)
    average, asked, real = WeightAverage(net, 0.75), [], ModelEmaV3.apply_update_
    monkeypatch.setattr(ModelEmaV3, "apply_update_", lambda *words: asked.append(real(*words)))
    average.update(copies.to(dtype))
    (value,) = average.module.parameters()
    assert value.dtype == torch.float32 and value.item() == 1.5
    assert len(asked) == (dtype == torch.float32)
