"""Each alert trips on its own planted fault and is silent on the log of a demo run that learned."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from tats.engines.config.pretraining import SamplerConfig, resolve_recipe
from tats.engines.pretrain.alerts import alerts

DEMO = [json.loads(line) for line in (Path(__file__).parent / "data" / "demo_log.txt").read_text().splitlines()]
OURS = resolve_recipe(SamplerConfig())

FAULTS = [
    ({"train_effective_tokens": 40.0}, {}, "entropy collapse"),
    ({"train_policy_moved": 3e-4}, {}, "stands still"),
    ({"train_entropy_share": 0.9995}, {}, "as good as uniform"),
    ({"train_value_explained_variance": -0.4}, {"adv_norm": "none"}, "worse than the mean"),
    ({"train_clip_fraction": 0.0}, {"ppo_epochs": 3}, "clip is idle"),
    ({"train_clip_fraction": 0.4}, {}, "clip is saturated"),
    ({"train_coverage_frame_min": 0.01}, {}, "a frame is seen 0.01"),
    ({"train_coverage_place_max": 2.2}, {}, "a place is seen"),
    ({"train_data_share": 0.8}, {}, "80% of the time"),
]


@pytest.mark.parametrize(("fault", "settings", "words"), FAULTS, ids=[words for *_, words in FAULTS])
def test_one_fault_one_message(fault, settings, words):
    messages = alerts(DEMO[-1] | fault, replace(OURS, **settings))
    assert len(messages) == 1 and words in messages[0]


@pytest.mark.parametrize("record", DEMO, ids=lambda record: f"epoch {record['epoch']}")
def test_silent_on_the_demo(record):
    assert alerts(record, OURS) == []


def test_adamae_is_not_told_of_flags_that_it_does_not_take():
    adamae = {name: DEMO[-1][name] for name in ("train_entropy_share", "train_policy_moved", "train_visible_tokens")}
    for fault in ({"train_effective_tokens": 40.0}, {"train_policy_moved": 0.0}, {"train_entropy_share": 0.9999}):
        message, = alerts(adamae | fault, OURS)
        assert "--sampler_lr" not in message and "--entropy_coef" not in message


def test_what_is_seen_too_often_depends_on_how_much_is_seen():
    """With one token in 20 visible a frame can be seen 20 times as often as under uniform masks, with one in 4 four."""
    record = DEMO[-1] | {"train_coverage_frame_max": 3.0}
    assert len(alerts(record | {"train_visible_share": 0.25}, OURS)) == 1
    assert alerts(record | {"train_visible_share": 0.05}, OURS) == []


def test_what_cannot_matter_is_not_judged():
    assert alerts(DEMO[-1] | {"train_value_explained_variance": -9.0, "train_clip_fraction": 0.0}, OURS) == []
    assert alerts({"train_loss": 1.0, "epoch": 0}, OURS) == []


@pytest.mark.parametrize(("flags", "epochs", "steps", "said"), [
    ({}, 800, 10, None), ({"update_every": 10}, 800, 10, None), ({"mae_only_epochs": 5}, 5, 10, "never acts"),
    ({"update_every": 11}, 800, 10, "updated once, at the end of each"),
    ({"update_every": 100, "flush_buffer": False}, 19, 10, "never learns.*acts in 90 "),
    ({"update_every": 90, "flush_buffer": False}, 19, 10, "epochs in which the policy is not updated"),
    ({"update_every": 10, "flush_buffer": False}, 11, 10, None)])
def test_a_policy_that_will_not_learn_is_named_before_it_starts(flags, epochs, steps, said):
    from tats.engines.runs.pretraining_build import idle_policy

    found = idle_policy(SamplerConfig(**{"mae_only_epochs": 10} | flags), epochs, steps)
    assert found is None if said is None else re.search(said, found)


def test_a_run_says_at_its_start_that_its_policy_never_learns(shapes, tmp_path, caplog):
    from tats.engines.run_mae_pretraining import main
    from tiny_runs import log_lines, small_pretraining_flags

    for k, learns in ((13, False), (12, True)):
        caplog.clear()
        main(small_pretraining_flags(shapes, tmp_path / str(k), "--mask_type", "tats", "--epochs", "3",
                                     "--update_every", str(k), "--flush_buffer", "false"))
        assert any("train_sampling_loss" in line for line in log_lines(tmp_path / str(k))) == learns
        assert ("the policy never learns" in caplog.text) != learns
