"""Runs that were trained go on with what `--change` names, and with nothing else."""

import hashlib
import json
import logging
import shutil

import pytest
import torch
from tats.engines.core import checkpointing
from tats.engines.run_class_finetuning import main as finetune
from tats.engines.run_mae_pretraining import main as pretrain

SMALL = ["--num_workers", "0", "--batch_size", "4", "--sampling_rate", "1", "--warmup_epochs", "0", "--device", "cpu",
         "--save_ckpt_freq", "1"]
PRETRAIN = [*SMALL, "--model", "pretrain_tats_tiny", "--mask_ratio", "0.75", "--lr", "0.05", "--mae_only_epochs", "1",
            "--num_frames", "4", "--input_size", "16", "--mask_type", "tats"]
FINETUNE = [*SMALL, "--model", "vit_tats_tiny", "--data_set", "moving-shapes", "--num_sample", "1", "--lr", "0.03",
            "--disable_eval_during_finetuning", "--num_frames", "4"]


@pytest.fixture(autouse=True)
def messages(caplog):
    caplog.set_level(logging.INFO)


def folder_digest(folder):
    return {path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def trained(shapes, tmp_path_factory):
    """(folder with runs of one epoch, a function (name, words) that starts one of them again in a copy)."""
    folder = tmp_path_factory.mktemp("identity")
    commands = {
        "pre": (pretrain, [*PRETRAIN, "--data_path", str(shapes / "train.csv")]),
        "fine": (finetune, [*FINETUNE, "--data_path", str(shapes)]),
        "linear": (finetune, [*FINETUNE, "--data_path", str(shapes), "--eval_mode", "linear"]),
    }
    for name, (main, words) in commands.items():
        main([*words, "--epochs", "1", "--output_dir", str(folder / name)])

    def again(name, out, *more, epochs=2):
        if not out.exists():
            shutil.copytree(folder / name, out)
        main, words = commands[name]
        return main([*words, "--epochs", str(epochs), "--output_dir", str(out), *more])

    return folder, again


def last(folder):
    return torch.load(checkpointing.numbered_checkpoints(folder)[0][1], weights_only=True)


@pytest.mark.parametrize(("name", "words"), [
    ("pre", ["--seed", "1", "--lr", "1e-2"]), ("fine", ["--opt", "lion"]), ("fine", ["--model_ema"]),
    ("linear", ["--eval_mode", "finetune"])])
def test_another_run_is_refused_before_anything_is_written(name, words, trained, tmp_path):
    """Of several flags, and where the run is over; each flag by itself: test_second_starts.py."""
    folder, again = trained
    out = tmp_path / "out"
    shutil.copytree(folder / name, out)
    (out / "finished").write_text("note\n")
    before = folder_digest(out)
    for epochs in (1, 2):   # finished, or with something left to train
        with pytest.raises(ValueError, match=r"belongs to another run .*" + words[0]):
            again(name, out, *words, epochs=epochs)
        assert folder_digest(out) == before


def test_a_change_is_applied_named_and_recorded(trained, tmp_path, caplog):
    _, again = trained
    again("pre", tmp_path / "out", "--change", "lr", "1e-3", "--change", "opt_betas", "0.8 0.99", "--change",
          "entropy_coef", "0.5", "--num_workers", "1")
    state, record = last(tmp_path / "out"), json.loads((tmp_path / "out/settings.json").read_text())
    assert state["optimizer"]["optimizer"]["param_groups"][0]["betas"] == (.8, .99)
    assert state["sampler_optimizer"]["optimizer"]["param_groups"][0]["betas"] == (.8, .99)
    assert state["entropy_coef"] == pytest.approx(.5)
    assert record["settings"]["optim"]["lr"] == state["settings"]["optim"]["lr"] == 1e-3
    assert {one["flag"]: (one["from"], one["to"]) for one in state["changes"]} == {
        "lr": (.05, 1e-3), "opt_betas": ([.9, .95], [.8, .99]), "entropy_coef": (pytest.approx(6e-5), .5),
        "epochs": (1, 2)}
    first, second = record["history"]
    assert first["from"] is None and second["from"] == "checkpoint-0.pth" and second["processes"] == 1
    assert second["changed"]["lr"] == [.05, 1e-3] and first["identity"] != second["identity"]
    assert "lr: 0.001 | 0.05" in caplog.text
    rates = [json.loads(line)["train_lr"] for line in (tmp_path / "out/log.txt").read_text().splitlines()]
    assert rates[1] < rates[0] / 10
    again("pre", tmp_path / "out", "--lr", "1e-3", "--opt_betas", ".8", ".99", "--entropy_coef", ".5")   # its own now


@pytest.mark.parametrize("change", [("weight_decay", "0"), ("layer_decay", "1"), ("opt_eps", "1e-4")])
def test_settings_of_the_optimiser_are_applied_to_every_average(change, trained, tmp_path):
    folder, again = trained
    again("fine", tmp_path / "out", "--change", *change)
    before, after = (last(one)["optimizer"]["optimizer"] for one in (folder / "fine", tmp_path / "out"))
    assert sorted(before["names"]) == sorted(after["names"])
    shapes = [{name: state["state"][place]["exp_avg"].shape for place, name in enumerate(state["names"])}
              for state in (before, after)]
    assert shapes[0] == shapes[1]
    groups = after["param_groups"]
    if change[0] == "weight_decay":
        assert {group["weight_decay"] for group in groups} == {0}
    if change[0] == "layer_decay":
        assert {group["lr_scale"] for group in groups} == {1}
    if change[0] == "opt_eps":
        assert {group["eps"] for group in groups} == {1e-4}


def test_averages_follow_their_parameters_into_other_groups(trained, tmp_path):
    """Resumed without layer decay and without a step: each name has the average that it had."""
    from tats.engines.training.optimizer_state import load_state, state_of

    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 2))
    one = torch.optim.AdamW([{"params": [net[1].weight, net[0].bias]}, {"params": [net[0].weight, net[1].bias]}])
    net(torch.ones(1, 2)).sum().backward()
    one.step()
    other = torch.optim.AdamW(net.parameters(), betas=(.1, .2))
    load_state(other, net, state_of(one, net))
    for parameter in net.parameters():
        assert torch.equal(other.state[parameter]["exp_avg"], one.state[parameter]["exp_avg"])
    assert other.param_groups[0]["betas"] == (.1, .2)
    old = {key: value for key, value in state_of(one, net).items() if key != "names"}
    with pytest.raises(ValueError, match="does not name"):
        load_state(other, net, old)


def test_a_moving_average_that_begins_at_a_resume_starts_from_the_weights(trained, tmp_path, caplog):
    folder, again = trained
    again("fine", tmp_path / "out", "--change", "model_ema", "true", "--change", "model_ema_decay", "0.999999")
    start, after = last(folder / "fine")["model"], last(tmp_path / "out")
    for name, value in after["model_ema"].items():
        torch.testing.assert_close(value, start[name], atol=1e-4, rtol=0)
    assert not torch.equal(after["model"]["head.weight"], start["head.weight"])
    assert "it starts from the weights" in caplog.text


def test_starting_anew_keeps_the_old_run(trained, tmp_path):
    folder, again = trained
    out = tmp_path / "out"
    again("fine", out, "--auto_resume", "false", "--seed", "5", epochs=1)
    kept = out / "replaced-1"
    assert {"checkpoint-0.pth", "settings.json", "log.txt", "result.json"} <= {path.name for path in kept.iterdir()}
    records = [json.loads((place / "settings.json").read_text()) for place in (kept, out)]
    assert [one["settings"]["run"]["seed"] for one in records] == [0, 5]
    assert records[0]["run"] != records[1]["run"] and len(records[1]["history"]) == 1
    again("fine", out, "--auto_resume", "false", "--seed", "6", epochs=1)
    assert (out / "replaced-2").is_dir()


def test_another_list_under_the_same_name_is_another_run(shapes, tmp_path):
    rows = (shapes / "train.csv").read_text().splitlines(keepends=True)
    train = tmp_path / "train.csv"
    for place, keep in enumerate((24, 16, 24)):
        train.write_text("".join(f"{shapes}/{row}" if not row.startswith("/") else row for row in rows[:keep]))
        words = [*PRETRAIN, "--data_path", str(train), "--epochs", "1", "--output_dir", str(tmp_path / "out")]
        if place == 1:
            with pytest.raises(ValueError, match=r"data_path \(train\): 16 rows, \w+ \| 24 rows, \w+ \(the first 16"):
                pretrain(words)
            pretrain([*words, "--epochs", "2", "--change", "data_path", str(train)])
            (tmp_path / "out/checkpoint-1.pth").unlink()
        else:
            pretrain(words)


def test_settings_of_an_evaluation_do_not_replace_those_of_the_run(trained, tmp_path):
    _, again = trained
    again("fine", tmp_path / "out", epochs=1)
    before = (tmp_path / "out/settings.json").read_text()
    result = again("fine", tmp_path / "out", "--eval", "--seed", "9", epochs=1)
    assert (tmp_path / "out/settings.json").read_text() == before
    assert result["identity"] == json.loads(before)["identity"]


def test_neighbours_do_not_replace_a_trained_result(trained, tmp_path):
    _, again = trained
    again("fine", tmp_path / "out", epochs=1)
    with pytest.raises(ValueError, match="is of --eval_mode finetune"):
        again("fine", tmp_path / "out", "--eval_mode", "knn", epochs=1)


def test_fewer_epochs_than_a_run_has_behind_it(trained, tmp_path):
    _, again = trained
    again("fine", tmp_path / "out", epochs=3)
    with pytest.raises(ValueError, match=r"epochs: 1 \| 3"):
        again("fine", tmp_path / "out", epochs=1)
    with pytest.raises(ValueError, match="3 epochs behind it.*give --epochs 3 or more, or another --output_dir"):
        again("fine", tmp_path / "out", "--change", "epochs", "1", epochs=3)
    with pytest.raises(ValueError, match="all 3 epochs behind it.*--epochs above 3 beside it, or another --output_dir"):
        again("fine", tmp_path / "out", "--change", "lr", "1", epochs=3)


def test_a_run_of_a_version_without_a_history_goes_on(trained, tmp_path):
    """What such a version left: no identity, no names in the optimiser, no history."""
    folder, again = trained
    out = tmp_path / "out"
    out.mkdir()
    state = last(folder / "pre")
    for name in ("identity", "source", "changes"):
        del state[name]
    for name in ("optimizer", "sampler_optimizer"):
        del state[name]["optimizer"]["names"]
    torch.save(state, out / "checkpoint-0.pth")
    record = json.loads((folder / "pre/settings.json").read_text())
    for name in ("identity", "run", "history"):
        del record[name]
    (out / "settings.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="another run"):
        again("pre", out, "--lr", "1")
    again("pre", out)
    again("pre", tmp_path / "whole")
    for name, value in last(tmp_path / "whole")["model"].items():
        assert torch.equal(value, last(out)["model"][name]), name
    assert len(json.loads((out / "settings.json").read_text())["history"]) == 2


def test_change_of_such_a_flag_ends_the_program_before_it_begins(tmp_path):
    for name, value in (("output_dir", "x"), ("auto_resume", "false"), ("warmup_lr", "1")):
        for main, words in ((pretrain, PRETRAIN), (finetune, [*FINETUNE, "--eval"])):
            with pytest.raises(ValueError, match=f"--change {name}"):
                main([*words, "--data_path", "nowhere", "--output_dir", str(tmp_path / "o"), "--change", name, value])
    assert not list(tmp_path.iterdir())
