"""Which run is which: a changed flag is refused, applied or harmless, as its declaration says; none is ignored."""

import functools
import hashlib
import json
import logging
import shutil
from argparse import Namespace
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest
import torch
from tats.datasets.lists.list_file import ClipList, Paths
from tats.engines.config import finetuning, pretraining
from tats.engines.config.flags import (
    BATCH,
    CODE,
    CONTENT,
    FIXED,
    FREE,
    IDENTITIES,
    KEPT,
    LONGER,
    SETUP,
    SOURCE,
    read_changes,
)
from tats.engines.config.intervals import Interval
from tats.engines.core import checkpointing
from tats.engines.core.changes import HELD_BY_DEEPSPEED, Place, allowed, canonical, must_be_changeable
from tats.engines.core.identity import differences, identity_in, identity_of, list_hash
from tats.engines.run_class_finetuning import get_parser as finetuning_parser
from tats.engines.run_class_finetuning import main as finetune
from tats.engines.run_mae_pretraining import get_parser as pretraining_parser
from tats.engines.run_mae_pretraining import main as pretrain

SMALL = ["--num_workers", "0", "--batch_size", "4", "--sampling_rate", "1", "--warmup_epochs", "0", "--device", "cpu",
         "--save_ckpt_freq", "1"]
PRETRAIN = [*SMALL, "--model", "pretrain_tats_tiny", "--mask_ratio", "0.75", "--lr", "0.05", "--mae_only_epochs", "1",
            "--num_frames", "4", "--input_size", "16", "--mask_type", "tats"]
FINETUNE = [*SMALL, "--model", "vit_tats_tiny", "--data_set", "moving-shapes", "--num_sample", "1", "--lr", "0.03",
            "--disable_eval_during_finetuning", "--num_frames", "4"]
PROGRAMS = {
    "pre-training": (pretraining.Settings, pretraining_parser, ["--data_path", "a.csv", "--ppo_epochs", "2"]),
    "fine-tuning": (finetuning.Settings, finetuning_parser, ["--data_path", "a", "--nb_classes", "5", "--model_ema",
                                                             "--output_dir", "o"]),
}
EVERY_FLAG = [(program, item.name) for program, (settings, _, _) in PROGRAMS.items()
              for topic in fields(settings) for item in fields(topic.type)]


def clip_list(rows):
    paths, labels = zip(*rows, strict=True)
    return ClipList(Paths(paths), np.array(labels), np.arange(len(labels)), "list")


LIST, OTHER_LIST = clip_list([("a.mp4", 0), ("b.mp4", 1)]), clip_list([("a.mp4", 0), ("b.mp4", 2)])


def field_of(program, name):
    return next(item for topic in fields(PROGRAMS[program][0]) for item in fields(topic.type) if item.name == name)


def another(item, value):
    """Words of the command line for a value of the flag that is not `value`."""
    options = item.metadata
    if item.name == "change":
        return ["num_workers", "3"]
    if isinstance(item.default, bool):
        return [str(not value).lower()]
    if options.get("choices"):
        return [str(next(choice for choice in options["choices"] if choice != value))]
    if isinstance(value, str) or (value is None and "str" in str(item.type)):
        return ["another"]
    whole = "int" in str(item.type)
    numbers = [1, 2, 3, 7, 0] if whole else [.5, .25, 2.0]
    count = options.get("nargs", 1) if isinstance(options.get("nargs", 1), int) else 2
    return [str(next(number for number in numbers if number in Interval.parse(options["within"]) and number != value))
            ] * count


parser_of = functools.cache(lambda program: PROGRAMS[program][1]())


def read(program, words):
    settings, _, base = PROGRAMS[program]
    return settings.from_args(read_changes(parser_of(program), [*base, *words]))


def identity(settings, rows=LIST, weights=None, processes=1):
    return identity_of(settings, {"train": rows}, weights, settings.optim.clips_a_step(processes))


def checkpoint(settings, own):
    return {"settings": asdict(settings), "identity": own.record(), "rng": [None]}


def verdict(program, words, change=(), rows=LIST, weights=None, processes=1):
    """The differences that a second start with `words` may go on with. Raises ValueError, as the program."""
    first = read(program, [])
    second = read(program, [*words, *[word for pair in change for word in ("--change", *pair)]])
    there = identity_in(checkpoint(first, identity(first)), type(first))
    zero = getattr(second, "zero", None)
    return [one.flag for one in allowed(differences(identity(second, rows, weights, processes), there),
                                        canonical([name for name, _ in change], type(second)), Path("c.pth"),
                                        bool(zero and zero.enable_deepspeed))]


@pytest.mark.parametrize(("program", "name"), EVERY_FLAG)
def test_every_flag_changed_on_a_second_start(program, name):
    item = field_of(program, name)
    kind = item.metadata["identity"]
    assert kind in IDENTITIES and (kind == CODE) == (name == "plugin")
    value = next(getattr(getattr(read(program, []), topic.name), name) for topic in fields(PROGRAMS[program][0])
                 if name in {one.name for one in fields(topic.type)})
    values = another(item, value)
    words, change = [f"--{name}", *values], [(name, " ".join(values))]
    more = {CONTENT: {"rows": OTHER_LIST}, SOURCE: {"weights": "1234"}}.get(kind, {})
    if kind == CODE:   # by the sources of its modules: test_plugins.py
        return
    if kind is FREE:
        assert verdict(program, words) == []
        return
    if kind == LONGER:   # 2 of 800 epochs, and back
        with pytest.raises(ValueError, match=rf"epochs: {values[0]} \| "):
            verdict(program, words)
        assert verdict(program, ["--epochs", "9999"]) == ["epochs"]
        assert verdict(program, [], [("epochs", "2")]) == ["epochs"]
        return
    with pytest.raises(ValueError, match=rf"{name if kind != BATCH else 'clips a step'}.*: .* \| .*--output_dir"):
        verdict(program, words, **more)
    if kind in (FIXED, SOURCE, SETUP):
        with pytest.raises(ValueError, match=f"cannot go on with another .*{name}"):
            verdict(program, [], change, **more)
    elif name == "tats_recipe":   # the network of theta follows it
        with pytest.raises(ValueError, match="cannot go on with another tats_approx"):
            verdict(program, [], change)
    elif name == "policy_coef":   # another flag follows it and must be named, too
        with pytest.raises(ValueError, match="--change entropy_coef"):
            verdict(program, [], change)
    else:
        assert kind in (KEPT, CONTENT, BATCH)
        assert {one.split(" (")[0] for one in verdict(program, [], change, **more)} - {"clips a step"} == {name}


def test_the_refusal_says_what_to_do():
    with pytest.raises(ValueError, match=r"lr: 0.5 \| 0.00015.*--change lr 0.5, which goes on"):
        verdict("pre-training", ["--lr", ".5"])
    with pytest.raises(ValueError, match=r"cannot go on with another seed"):
        verdict("pre-training", ["--lr", ".5", "--seed", "1"])
    with pytest.raises(ValueError, match=r"--change opt_betas '0.5 0.25', which"):
        verdict("pre-training", ["--opt_betas", ".5", ".25"])
    with pytest.raises(SystemExit):
        read("pre-training", ["--change", "no_such_flag", "1"])


def advice(program, words, behind, epochs):
    first, second = read(program, ["--epochs", "9"]), read(program, words)
    there = identity_in(checkpoint(first, identity(first)), type(first))
    with pytest.raises(ValueError, match="belongs to another run") as error:
        allowed(differences(identity(second), there), (), Path("c.pth"), False, Place(behind, behind, epochs))
    return str(error.value)


def test_the_refusal_advises_nothing_that_is_refused_in_turn():
    """Neither --change epochs to fewer than there are, nor a change of a run that has ended, without more epochs."""
    assert "--change epochs 5, which goes on" in advice("pre-training", ["--epochs", "5"], 4, 5)
    shorter = advice("pre-training", ["--epochs", "5"], 6, 5)
    assert "--change" not in shorter and "give --epochs 6 or more" in shorter
    assert "--epochs above 9" not in advice("pre-training", ["--epochs", "9", "--lr", "1"], 8, 9)
    ended = advice("pre-training", ["--epochs", "9", "--lr", "1"], 9, 9)
    assert "--change lr 1.0, which goes on and is recorded (with --epochs above 9" in ended
    first = read("pre-training", ["--clip_grad", "1", "--frame_pattern", "{:d}"])
    there = identity_in(checkpoint(first, identity(first)), type(first))
    for words in ([], ["--change", "clip_grad", "none", "--change", "frame_pattern", ""]):
        found = differences(identity(read("pre-training", words)), there)
        assert {(one.flag, one.here) for one in found} == {("clip_grad", None), ("frame_pattern", "")}
        with pytest.raises(ValueError, match="--change frame_pattern '' --change clip_grad none, which"):
            allowed(found, (), Path("c.pth"), False)


@pytest.mark.parametrize("program", PROGRAMS)
def test_change_takes_no_flag_that_is_no_part_of_what_is_computed(program):
    settings, parser, base = PROGRAMS[program]
    for topic in fields(settings):
        for item in fields(topic.type):
            if item.metadata["identity"] is FREE:
                with pytest.raises(ValueError, match=f"--change {item.name}: .*give --{item.name} itself"):
                    must_be_changeable([item.name], settings)
            else:
                must_be_changeable([f"--{item.name}"], settings)
    for name, flag in (("no_auto_resume", "auto_resume"), ("warmup_lr", "warmup_lr"), ("local-rank", "local_rank")):
        with pytest.raises(ValueError, match=f"--change {flag}: this flag"):
            must_be_changeable([name], settings)


def test_change_of_such_a_flag_ends_the_program_before_it_begins(tmp_path):
    for name, value in (("output_dir", "x"), ("auto_resume", "false"), ("warmup_lr", "1")):
        for main, words in ((pretrain, PRETRAIN), (finetune, [*FINETUNE, "--eval"])):
            with pytest.raises(ValueError, match=f"--change {name}"):
                main([*words, "--data_path", "nowhere", "--output_dir", str(tmp_path / "o"), "--change", name, value])
    assert not list(tmp_path.iterdir())


def test_what_is_the_same_run():
    assert verdict("pre-training", ["--data_path", "/moved/list.csv", "--opt_betas", "0.9", "0.95"]) == []
    assert verdict("pre-training", ["--batch_size", "16", "--update_freq", "2"], processes=2) == [
        "batch_size", "update_freq"]
    assert verdict("pre-training", ["--batch_size", "32"], processes=2) == ["batch_size"]
    with pytest.raises(ValueError, match=r"clips a step: 128 \| 64"):
        verdict("pre-training", [], processes=2)
    assert verdict("pre-training", [], [("accum_iter", "1")], processes=2) == ["clips a step"]   # an alias


@pytest.mark.parametrize("name", sorted(HELD_BY_DEEPSPEED))
def test_deepspeed_keeps_some_settings(name):
    first = read("fine-tuning", ["--enable_deepspeed"])
    values = another(field_of("fine-tuning", name), dict(vars(first.optim))[name])
    second = read("fine-tuning", ["--enable_deepspeed", "--change", name, " ".join(values)])
    there = identity_in(checkpoint(first, identity(first)), type(first))
    with pytest.raises(ValueError, match=f"cannot go on with another {name}, under DeepSpeed"):
        allowed(differences(identity(second), there), {name}, Path("c.pth"), True)


def test_hashes_are_of_what_is_computed():
    def digest(*words, **more):
        return identity(read("pre-training", words), **more).hash

    assert digest() == digest("--num_workers", "3", "--output_dir", "x", "--data_path", "y.csv")
    assert digest() == digest("--batch_size", "32", "--update_freq", "2")
    others = [digest("--seed", "1"), digest("--epochs", "9"), digest("--batch_size", "32"), digest(rows=OTHER_LIST),
              digest(weights="12")]
    assert len({digest(), *others}) == 6
    assert list_hash(LIST) != list_hash(OTHER_LIST) != list_hash(clip_list([("a.mp4", 0), ("b.mp", 42)]))


def test_a_checkpoint_from_before_there_were_identities():
    first = read("pre-training", [])
    state = {"settings": asdict(first), "rng": [None, None]}
    del state["settings"]["optim"]["opt_eps"]   # a flag that it does not know yet: its default
    there = identity_in(state, type(first))
    assert there.clips_a_step == 128
    assert differences(identity(first, processes=2), there) == []
    assert differences(identity(read("pre-training", ["--data_path", "/moved/a.csv"]), processes=2), there) == []
    found = differences(identity(read("pre-training", ["--opt_eps", "1e-6", "--data_path", "b.csv"]), processes=2),
                        there)
    assert {(one.flag, one.here, one.there) for one in found} == {("opt_eps", 1e-6, 1e-8),
                                                                  ("data_path", "b.csv", "a.csv")}


# Trained for real.

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


def test_a_folder_that_is_not_the_same_for_all_processes():
    from tats.engines.config.common import RunConfig
    from tats.engines.runs.saved_state import choose

    def runtime(views):
        answers = iter(views)
        return Namespace(is_main=False, world_size=2, rank=1, gather_objects=lambda value: next(answers))

    with pytest.raises(ValueError, match="n2 sees other files"):
        choose(RunConfig(output_dir="/nowhere"), Path("/nowhere"),
               runtime([["/nowhere/checkpoint-1.pth", None], [(True, "n1"), (False, "n2")]]))


@pytest.fixture(autouse=True)
def messages(caplog):
    caplog.set_level(logging.INFO)
