"""Which run is which: a changed flag is refused, applied or harmless, as its declaration says; none is ignored."""

import functools
from argparse import Namespace
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest
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
from tats.engines.core.changes import HELD_BY_DEEPSPEED, Place, allowed, canonical, must_be_changeable
from tats.engines.core.identity import differences, identity_in, identity_of, list_hash
from tats.engines.run_class_finetuning import get_parser as finetuning_parser
from tats.engines.run_mae_pretraining import get_parser as pretraining_parser

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


def test_a_folder_that_is_not_the_same_for_all_processes():
    from tats.engines.config.common import RunConfig
    from tats.engines.runs.saved_state import choose

    def runtime(views):
        answers = iter(views)
        return Namespace(is_main=False, world_size=2, rank=1, gather_objects=lambda value: next(answers))

    with pytest.raises(ValueError, match="n2 sees other files"):
        choose(RunConfig(output_dir="/nowhere"), Path("/nowhere"),
               runtime([["/nowhere/checkpoint-1.pth", None], [(True, "n1"), (False, "n2")]]))
