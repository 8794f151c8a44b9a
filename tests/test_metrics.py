"""The table of the numbers of log.txt: whole, without doubles, and it knows the old names."""

import json
from pathlib import Path

import pytest
from tats.engines.core import metrics
from tats.engines.core.metrics import (
    AUTOENCODER,
    CLASSIFIER,
    COST,
    MASKS,
    METRICS,
    POLICY,
    PPO,
    Metric,
    current_name,
    current_names,
    find_metric,
    metrics_markdown,
    questions,
    register_metric,
)
from tats.engines.run_mae_pretraining import main

DEMO = json.loads((Path(__file__).parent / "data" / "demo_log.txt").read_text().splitlines()[-1])
FINE_TUNING = ("train_loss", "train_class_acc", "train_grad_norm", "train_data_share", "train_lr", "epoch", "step",
               "val_loss", "val_acc1", "val_acc5", "val_unreadable", "val_best_acc1", "val_ema_loss", "val_ema_acc1",
               "val_ema_acc5", "val_ema_unreadable", "seconds", "peak_memory_gb")


@pytest.fixture
def own_table(monkeypatch):
    monkeypatch.setattr(metrics, "METRICS", list(METRICS))


def test_every_number_of_a_log_is_there():
    missing = [name for name in (*DEMO, "train_ppo_passes", "peak_memory_gb") if find_metric(name) is None]
    assert not missing and not [name for name in FINE_TUNING if find_metric(name, fine_tuning=True) is None]


@pytest.mark.parametrize("mask_type", ["tats", "adamae"])
def test_a_run_logs_nothing_else(shapes, tmp_path, mask_type):
    main(["--model", "pretrain_tats_tiny", "--data_path", str(shapes / "train.csv"), "--output_dir", str(tmp_path),
          "--batch_size", "4", "--num_workers", "0", "--mask_type", mask_type, "--mae_only_epochs", "0", "--epochs",
          "2", "--sampling_rate", "1", "--device", "cpu"])
    record = json.loads((tmp_path / "log.txt").read_text().splitlines()[-1])
    assert {"train_explained_variance", "train_policy_moved", "train_reward"} <= set(record)
    assert [name for name in record if find_metric(name) is None or current_name(name) != name] == []


def test_each_has_one_sentence_of_each_kind():
    assert len({(metric.name, metric.question) for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert metric.meaning.endswith(".") and metric.good.endswith("."), metric.name
    assert questions() == [AUTOENCODER, POLICY, PPO, MASKS, CLASSIFIER, COST]


def test_the_loss_of_a_classifier_is_another_number():
    assert find_metric("train_loss").question == AUTOENCODER
    assert find_metric("train_loss", fine_tuning=True).question == CLASSIFIER
    assert find_metric("seconds", fine_tuning=True).question == COST
    assert find_metric("train_own") is None and find_metric("val_class_acc") is None


@pytest.mark.parametrize(("name", "today"), [
    ("explained", "explained_variance"), ("train_explained", "train_explained_variance"),
    ("val_explained", "val_explained_variance"), ("train_value_explained", "train_value_explained_variance"),
    ("train_explained_variance", "train_explained_variance"), ("train_explained_by", "train_explained_by"),
    ("loss", "loss"), ("train_", "train_")])
def test_old_names(name, today):
    assert current_name(name) == today


def test_a_line_under_today_s_names_loses_nothing():
    assert current_names({"train_explained": 1, "epoch": 2}) == {"train_explained_variance": 1, "epoch": 2}
    both = {"train_explained": 1, "train_explained_variance": 2}
    assert current_names(both) == both


def test_a_number_of_one_s_own(own_table):
    metric = Metric("sharpness", "Is it sharp?", "How sharp it is.", "It rises.", ("sharp",))
    register_metric(metric)
    register_metric(metric)   # a plugin that is imported twice
    assert find_metric("train_sharp") == metric and questions()[-1] == "Is it sharp?"
    assert current_name("train_sharp") == "train_sharpness"
    with pytest.raises(ValueError, match="already a metric 'sharpness'"):
        register_metric(Metric("sharpness", "Is it sharp?", "Otherwise.", "It falls."))
    with pytest.raises(ValueError, match="old name 'explained' .* already belongs to 'explained_variance'"):
        register_metric(Metric("mine", POLICY, "Mine.", "It rises.", ("explained",)))
    with pytest.raises(ValueError, match="old name 'loss' .* already belongs to 'loss'"):
        register_metric(Metric("mine", POLICY, "Mine.", "It rises.", ("loss",)))


def test_markdown_has_a_table_a_question_and_a_line_a_number():
    text = metrics_markdown()
    assert [line[4:] for line in text.splitlines() if line.startswith("### ")] == questions()
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    assert len(lines) == len(METRICS)
    line, = (line for line in lines if line.startswith("| `explained_variance`"))
    assert "before: `explained`" in line and "It rises" in line
