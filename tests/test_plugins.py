"""What a user adds: a strategy, a reward and a data set, each one file, brought in by --plugin; and what goes wrong."""

import importlib
import json
import sys

import pytest
import torch
from tats.datasets.catalog import DATA_SETS
from tats.engines import measure_masks
from tats.engines.config.flags import FlagParser
from tats.engines.core.metrics import METRICS
from tats.engines.pretrain.rewards import REWARDS
from tats.engines.run_mae_pretraining import main
from tats.masking import MASKINGS

STRATEGY = '''
from torch import nn
from tats.masking import Masking, RandomMasking, TokenSampler, register_masking


class Scorer(TokenSampler):
    def __init__(self, grid, embed_dim, **count):
        super().__init__(grid, **count)
        self.score = nn.Linear(embed_dim, 1)

    def policy(self, tokens):
        return self.score(tokens).squeeze(-1), None


class Loudest(Scorer):
    """Shows the tokens of the highest score, without chance."""

    def draw(self, log_pi, keys=None, stream=0, visible=None):
        from tats.masking import Draw
        import torch

        top = log_pi.topk(visible or self.num_visible, dim=1)
        mask = torch.ones_like(log_pi, dtype=bool).scatter(1, top.indices, False)
        return Draw(mask, log_pi.new_full((len(log_pi),), -float("inf")))


for learner in ("ppo", "reinforce", None):
    register_masking(f"scorer-{learner}", Masking(RandomMasking, sampler=Scorer, learner=learner))
register_masking("loudest", Masking(RandomMasking, sampler=Loudest, learner="ppo"))
'''

REWARD = '''
from tats.engines.pretrain.rewards import register_reward

register_reward("half", lambda outcome: outcome.errors / 2)
'''

DATA_SET = '''
from tats.datasets.catalog import DataSet, register_data_set

register_data_set("mine", DataSet(8, "dense", 1, 1, 1, False))
'''

METRIC = '''
from tats.engines.core.metrics import POLICY, Metric, register_metric

register_metric(Metric("hardest", POLICY, "The largest error of a masked token.", "It falls.",
                       measure=lambda outcome: outcome.errors.max()))
register_metric(Metric("peak", POLICY, "The largest probability.", "It rises.",
                       measure=lambda outcome: None if outcome.log_pi is None else outcome.log_pi.exp().max()))
'''

FLAGS = ["--model", "pretrain_tats_tiny", "--pretrain_aug", "resize", "--batch_size", "8", "--epochs", "2",
         "--mae_only_epochs", "1", "--warmup_epochs", "0", "--num_workers", "0", "--decode_timeout", "0",
         "--sampler_lr", "1e-2", "--mask_ratio", "0.9"]


@pytest.fixture(autouse=True)
def registries():
    """What a plugin registers is gone after the test, and its module with it."""
    tables = [(table, dict(table)) for table in (MASKINGS, REWARDS, DATA_SETS)]
    metrics = list(METRICS)
    modules, path = set(sys.modules), list(sys.path)
    yield
    for table, before in tables:
        table.clear()
        table.update(before)
    METRICS[:] = metrics
    forget(modules)
    sys.path[:] = path


def forget(kept):
    """Modules of the tests' own files; a library that has been imported meanwhile must not be there twice."""
    own = []
    for name in set(sys.modules) - kept:
        module = sys.modules[name]
        places = [getattr(module, "__file__", None) or "", *map(str, getattr(module, "__path__", []))]
        if any("pytest-of-" in place for place in places):
            own.append(name)
    for name in own:   # after all have been looked at: a folder's path asks the folder above it
        del sys.modules[name]


def written(folder, name, text):
    path = folder / f"{name}.py"
    path.write_text(text)
    return str(path)


def log_of(folder):
    return [json.loads(line) for line in (folder / "log.txt").read_text().splitlines()]


@pytest.mark.parametrize("name", ["scorer-ppo", "scorer-reinforce", "scorer-None", "loudest"])
def test_a_strategy_of_ten_lines_trains_is_saved_resumed_and_measured(shapes, tmp_path, name):
    plugin = written(tmp_path, f"strategy_{name[-3:]}", STRATEGY)
    given = ["--plugin", plugin, *FLAGS, "--data_path", str(shapes / "train.csv"), "--mask_type", name,
             "--data_set", "moving-shapes", "--output_dir", str(tmp_path / "out")]
    main(given)
    last = log_of(tmp_path / "out")[-1]
    assert last["train_visible_tokens"] == 28 and ("train_sampling_loss" in last) == (name != "scorer-None")
    assert ("train_ratio" in last) == (name in ("scorer-ppo", "loudest")) and "train_value_loss" not in last
    state = torch.load(tmp_path / "out/checkpoint-1.pth", weights_only=True)
    moved = float(state["sampler"]["score.weight"].abs().max())
    main([*given, "--epochs", "3"])
    again = torch.load(tmp_path / "out/checkpoint-2.pth", weights_only=True)
    assert len(log_of(tmp_path / "out")) == 3
    assert torch.equal(again["sampler"]["score.weight"], state["sampler"]["score.weight"]) == (name == "scorer-None")
    assert moved > 0
    measure_masks.main(["--plugin", plugin, "--checkpoint", str(tmp_path / "out/checkpoint-2.pth"), "--data",
                        str(shapes), "--out", str(tmp_path / "masks.json")])
    assert 0 <= json.loads((tmp_path / "masks.json").read_text())[-1]["auroc"] <= 1


def test_figures_and_measurements_draw_as_training_does(tmp_path):
    """`look` takes the strategy's own draw, for another number of tokens as well."""
    from pretraining_setup import clips, tiny_mae
    from tats.engines.figures.inference import look, probabilities_of
    from tats.engines.pretrain.reconstruction import Reconstruction
    from tats.engines.training.batches import Normalizer

    FlagParser("program").parse_args(["--plugin", written(tmp_path, "strategy_draw", STRATEGY)])
    mae = tiny_mae()
    sampler = MASKINGS["loudest"].sampler((4, 3, 3), 24, visible=9)
    batch = Normalizer(torch.device("cpu")).prepare(clips(4), torch.device("cpu"))
    pi = probabilities_of(mae, sampler, batch)
    for visible in (None, 5):
        seen = look(mae, sampler, batch, Reconstruction(), visible)
        loudest = torch.ones_like(seen.mask).scatter(1, pi.topk(visible or 9, dim=1).indices, False)
        assert torch.equal(seen.mask, loudest)


def test_a_reward_is_what_advantage_value_and_log_read(shapes, tmp_path):
    logs = []
    for reward in ("token", "half"):
        main(["--plugin", written(tmp_path, "reward_half", REWARD), *FLAGS, "--data_path", str(shapes / "train.csv"),
              "--data_set", "moving-shapes", "--mask_type", "tats", "--reward", reward, "--adv_norm", "none",
              "--sampler_lr", "1e-9", "--output_dir", str(tmp_path / reward)])
        logs.append(log_of(tmp_path / reward)[-1])
    whole, half = logs
    assert half["train_loss"] == pytest.approx(whole["train_loss"], rel=1e-5)
    assert half["train_reward"] == pytest.approx(whole["train_reward"] / 2, rel=1e-4)
    assert half["train_reward_std"] == pytest.approx(whole["train_reward_std"] / 2, rel=1e-4)
    # psi is near 0 at the start: L_R - psi is about L_R, and (psi - L_R)^2 falls to a quarter.
    assert half["train_advantage"] < .7 * whole["train_advantage"]
    assert half["train_value_loss"] < .5 * whole["train_value_loss"]


def test_a_metric_reaches_log_tensorboard_and_report(shapes, tmp_path):
    from tats.engines.report.__main__ import main as report

    plugin, out = written(tmp_path, "metric_hardest", METRIC), tmp_path / "out"
    main(["--plugin", plugin, *FLAGS, "--data_path", str(shapes / "train.csv"), "--data_set", "moving-shapes",
          "--mask_type", "tats", "--output_dir", str(out)])
    lines = log_of(out)
    assert all(line["train_hardest"] > line["train_loss"] for line in lines)
    assert ["train_peak" in line for line in lines] == [False, True] and lines[1]["train_peak"] >= 1 / 288
    assert any(b"train_hardest" in path.read_bytes() for path in out.glob("events*"))
    report(["--plugin", plugin, str(out), "--out", str(tmp_path / "report.html")])
    assert "The largest error of a masked token." in (tmp_path / "report.html").read_text()


def test_a_data_set_is_one_row(shapes, tmp_path):
    main(["--plugin", written(tmp_path, "data_mine", DATA_SET), *FLAGS, "--data_path", str(shapes / "train.csv"),
          "--data_set", "mine", "--mask_type", "random", "--output_dir", str(tmp_path / "out")])
    assert log_of(tmp_path / "out")[-1]["epoch"] == 1


def test_a_module_in_the_working_directory_and_a_settings_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "reward_here", REWARD)
    (tmp_path / "flags.args").write_text("--plugin reward_here  # ours\n")
    FlagParser("program").parse_args(["@flags.args"])
    assert "half" in REWARDS


@pytest.mark.parametrize(("name", "text", "words"), [
    ("gone", None, ["gone"]), ("broken", "import nothing_of_this_name\n", ["broken", "nothing_of_this_name"]),
    ("raises", "raise RuntimeError('no licence')\n", ["raises", "no licence"]),
    ("../up", None, ["../up", "no such file"]),
    ("json", "", ["json", "rename the file"]), ("ends", "import sys\nsys.exit(0)\n", ["ends", "SystemExit"]),
])
def test_a_plugin_that_cannot_be_imported_is_one_line(tmp_path, name, text, words):
    path = str(tmp_path / f"{name}.py")
    if text is not None:
        written(tmp_path, name, text)
    with pytest.raises(ValueError, match="--plugin") as error:
        FlagParser("program").parse_args(["--plugin", path])
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize("name", ["../pl", ".", "", "a/b", "a..b"])
def test_a_name_that_no_module_can_have(name):
    with pytest.raises(ValueError, match="neither a MODULE nor a FILE.py"):
        FlagParser("program").parse_args(["--plugin", name])


def test_settings_files_that_are_none(tmp_path):
    (tmp_path / "a.args").write_bytes(b"--lr 1\n\xc7\xff\n")
    with pytest.raises(ValueError, match="a.args is no UTF-8 text"):
        FlagParser("program").parse_args([f"@{tmp_path}/a.args"])
    (tmp_path / "b.args").write_text(f"@{tmp_path}/c.args\n")
    (tmp_path / "c.args").write_text(f"@{tmp_path}/b.args\n")
    with pytest.raises(ValueError, match="b.args names itself"):
        FlagParser("program").parse_args([f"@{tmp_path}/b.args"])
    with pytest.raises(SystemExit):
        FlagParser("program").parse_args([f"@{tmp_path}/nothere.args"])


def digests(*names):
    from tats.engines.config.plugin_sources import digests_of
    from tats.engines.config.plugins import load_plugins

    forget(BEFORE)
    importlib.invalidate_caches()
    load_plugins(map(str, names))
    return digests_of(map(str, names))


BEFORE = set(sys.modules)


def test_a_plugin_is_its_sources(tmp_path):
    """Its own text and what it imports from beside it, deep in functions too; not its name, nor what lies beside it."""
    first = written(tmp_path, "plug_one", "import json\nimport plug_help\n")
    written(tmp_path, "plug_help", "def late():\n    from plug_deep.part import x\n")
    written(tmp_path, "plug_other", "raise RuntimeError\n")
    (tmp_path / "plug_deep").mkdir()
    (tmp_path / "plug_deep/__init__.py").touch()
    (tmp_path / "plug_deep/part.py").write_text("x = 1\n")
    (tmp_path / "renamed.py").write_text((tmp_path / "plug_one.py").read_text())
    (before,) = digests(first).values()
    assert digests(first) == {"plug_one": before} and digests(tmp_path / "renamed.py") == {"renamed": before}
    for path, text in (("plug_one.py", "import plug_help\n"), ("plug_help.py", "late = 1\n"),
                       ("plug_deep/part.py", "x = 2\n"), ("plug_deep/__init__.py", "y = 1\n")):
        kept = (tmp_path / path).read_text()
        (tmp_path / path).write_text(text)
        assert digests(first) != {"plug_one": before}, path
        (tmp_path / path).write_text(kept)
    written(tmp_path, "plug_other", "pass\n")
    assert digests(first) == {"plug_one": before}


def test_a_package_is_its_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "plug_pack"
    (folder / "deep").mkdir(parents=True)
    for name in ("__init__.py", "one.py", "deep/two.py"):
        (folder / name).write_text("x = 1\n")
    before = digests("plug_pack", "plug_pack.one")
    assert set(before) == {"plug_pack", "plug_pack.one"}
    (folder / "deep/two.py").write_text("x = 2\n")
    after = digests("plug_pack", "plug_pack.one")
    assert after["plug_pack"] != before["plug_pack"] and after["plug_pack.one"] == before["plug_pack.one"]
    (folder / "__init__.py").write_text("x = 3\n")   # it runs before any module of the package
    assert digests("plug_pack.one")["plug_pack.one"] != before["plug_pack.one"]


@pytest.mark.parametrize("name", ["plug_folder", "plug_folder.deep", "sys"])
def test_a_folder_that_is_no_package_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plug_folder/deep").mkdir(parents=True)
    (tmp_path / "plug_folder/mine.py").write_text("x = 1\n")
    with pytest.raises(ValueError, match=rf"--plugin {name} .*without __init__.py"):
        FlagParser("program").parse_args(["--plugin", name])


def test_a_run_does_not_go_on_with_another_plugin_of_the_same_name(shapes, tmp_path):
    """Refused by name before anything is written; --change goes on; a checkpoint that knows no digests loads."""
    def go(*more, name="reward_same", text=REWARD):
        for table in (REWARDS, sys.modules):
            for key in ("half", "reward_same", "reward_new"):
                table.pop(key, None)
        main(["--plugin", written(tmp_path, name, text), *FLAGS, "--data_path", str(shapes / "train.csv"), "--reward",
              "half", "--data_set", "moving-shapes", "--mask_type", "tats", "--output_dir", str(out), *more])

    out, other = tmp_path / "out", REWARD.replace("errors / 2", "errors / 3")
    importlib.invalidate_caches()
    go("--epochs", "1")
    for name in ("reward_same", "reward_new"):
        with pytest.raises(ValueError, match=rf"--plugin \({name}\): .*--change plugin {name}"):
            go("--epochs", "2", name=name, text=other)
    assert len(log_of(out)) == 1
    go("--epochs", "2", "--change", "plugin", "reward_same", text=other)
    state = torch.load(out / "checkpoint-1.pth", weights_only=True)
    assert [one["flag"] for one in state["changes"]] == ["epochs", "plugin (reward_same)"]
    assert str(tmp_path / "reward_same.py") in state["settings"]["plugins"]["plugin"]
    del state["identity"]["code"], state["settings"]["plugins"]
    torch.save(state, out / "checkpoint-1.pth")
    go("--epochs", "3")
    assert len(log_of(out)) == 3


def test_modules_that_are_only_gone_or_only_new_alter_nothing():
    from tats.engines.config.flags import CODE
    from tats.engines.core.identity import Identity, differences

    def found(here, there):
        one, other = (Identity({"plugin": list(code)}, {"plugin": CODE}, {}, 1, code) for code in (here, there))
        return [(difference.here, difference.there) for difference in differences(one, other)]

    assert found({"a": "1"}, {"a": "2"}) == [("a 1", "a 2")]
    assert found({"b": "1"}, {"a": "2"}) == [("b 1", "a 2")]
    for here, there in (({"a": "1"}, {}), ({}, {"a": "1"}), ({"b": "1"}, {"a": "1"}),
                        ({"a": "1", "b": "2"}, {"a": "1"})):
        assert found(here, there) == []


BAD_REWARDS = {
    "shape": ("lambda outcome: outcome.errors.mean(dim=1)", r"'bad' must return floats of shape \(2, \d+\).*\(2,\)"),
    "whole": ("lambda outcome: outcome.errors.mean()", "'bad' must return floats"),
    "clip for token": ("lambda outcome: outcome.errors.mean(dim=1, keepdim=True)", "'bad' must return floats"),
    "dtype": ("lambda outcome: outcome.errors > 1", "'bad' must return floats.*torch.bool"),
    "nothing": ("lambda outcome: None", "'bad' must return floats.*None"),
    "nan": ("lambda outcome: outcome.errors / 0", "'bad' is not finite"),
    "raises": ("lambda outcome: outcome.error", r"'bad' raises AttributeError: .*\(reward_bad_raises.py, line 16\)"),
    "changes errors": ("lambda outcome: outcome.errors.mul_(2)", "'bad' changes outcome.errors in place.*a copy"),
    "changes the model": ("wrecks, looks_again=True", "'bad' changes the model's weights in place"),
    "class": ("Forgets, remembers=True", "'bad', saved and loaded.*state"),
    "arguments": ("Needs, remembers=True", "'bad', made without arguments"),
    "pickle": ("Keeps, remembers=True", "'bad', saved and loaded"),
}
BAD_REWARD = '''
from tats.engines.pretrain.rewards import register_reward

Forgets = type("Forgets", (), {"__call__": lambda self, outcome: outcome.errors})
Needs = type("Needs", (Forgets,), {"__init__": lambda self, scale: None})
Keeps = type("Keeps", (Forgets,), {"state": lambda self: {"self": self}, "load": lambda self, state: None})
Keeps.__module__ = Forgets.__module__ = __name__


def wrecks(outcome):
    for weights in outcome.again.mae.module.parameters():
        weights.detach().zero_()
    return outcome.errors


register_reward("bad", %s)
'''


def refused(shapes, tmp_path, words, plugin, more=()):
    """A run that must end before its first step."""
    with pytest.raises(ValueError, match=words):
        main(["--plugin", plugin, *FLAGS, "--data_path", str(shapes / "train.csv"), "--data_set", "moving-shapes",
              "--mask_type", "tats", "--output_dir", str(tmp_path / "out"), *more])
    assert not (tmp_path / "out/log.txt").exists() and not (tmp_path / "out/settings.json").exists()


@pytest.mark.parametrize("case", BAD_REWARDS)
def test_a_reward_that_breaks_the_contract_is_refused_before_training(shapes, tmp_path, case):
    code, words = BAD_REWARDS[case]
    name = f"reward_bad_{case.replace(' ', '_')}"
    refused(shapes, tmp_path, words, written(tmp_path, name, BAD_REWARD % code), more=["--reward", "bad"])


BAD_METRICS = {
    "string": ("'high'", "'bad' must return one number.*'high'"), "list": ("[1.0]", r"\[1.0\]"),
    "changes": ("outcome.masked.zero_().sum()", "'bad' changes outcome.masked in place"),
    "many": ("outcome.errors", r"shape \(2, \d+\)"),
    "raises": ("outcome.nothing", "'bad' raises AttributeError.*line 4"),
    "only with a policy": ("outcome.log_pi.exp().max()", "'bad' raises AttributeError.*NoneType"),
    "only without": ("None if outcome.log_pi is None else outcome.log_pi.exp()", "'bad' must return one number"),
}


@pytest.mark.parametrize("case", BAD_METRICS)
def test_a_metric_that_is_no_number_is_refused_before_training(shapes, tmp_path, case):
    code, words = BAD_METRICS[case]
    text = METRIC.split("register_metric(")[0] + (
        f'register_metric(Metric("bad", POLICY, "m.", "g.", measure=lambda outcome: {code}))\n')
    refused(shapes, tmp_path, words, written(tmp_path, f"metric_bad_{case.replace(' ', '_')}", text))


def test_numbers_of_any_kind_are_metrics():
    import numpy as np
    from tats.engines.core.metrics import POLICY, Metric, register_metric
    from tats.engines.pretrain.outcome import Outcome
    from tats.engines.pretrain.users_code import measured

    values = [1, 2.5, True, None, np.float32(3), torch.ones(1, 1, requires_grad=True), torch.tensor(4)]
    for place, value in enumerate(values):
        register_metric(Metric(f"m{place}", POLICY, "", "", measure=lambda outcome, value=value: value))
    found = measured(Outcome(torch.ones(1, 2), torch.tensor([[0, 1]]), None))
    assert [value if value is None else float(value) for value in found.values()] == [1, 2.5, 1, None, 3, 1, 4]


def test_a_trial_moves_nothing(shapes, tmp_path):
    """A reward that draws and a metric that counts: the weights after training are those of a run without a trial."""
    from unittest.mock import patch

    text = REWARD.replace("lambda outcome: outcome.errors / 2", "lambda outcome: outcome.errors * torch.rand(())")
    plugin = written(tmp_path, "reward_draws", "import torch\n" + text)
    for name, trial in (("with", None), ("without", patch("tats.engines.runs.pretraining_run.try_registered"))):
        if trial:
            trial.start()
        main(["--plugin", plugin, *FLAGS, "--data_path", str(shapes / "train.csv"), "--data_set", "moving-shapes",
              "--mask_type", "tats", "--reward", "half", "--output_dir", str(tmp_path / name)])
        if trial:
            trial.stop()
    first, second = (torch.load(tmp_path / name / "checkpoint-1.pth", weights_only=True)
                     for name in ("with", "without"))
    for net in ("model", "sampler"):
        assert all(torch.equal(value, second[net][key]) for key, value in first[net].items())


HALF = "class Half(RandomMasking):\n    __call__ = lambda self: "
BAD_STRATEGIES = {
    "shape": (HALF + "super(Half, self).__call__()[1:]", r"bool \(287,\)"),
    "count": (HALF + "~super(Half, self).__call__()", "shows 260 tokens"),
    "dtype": (HALF + "super(Half, self).__call__().float()", "float32"),
    "raises": (HALF + "self.nothing", "raises AttributeError.*line 4"),
    "no count": ("Half = lambda grid, ratio, visible: lambda: None", "need num_visible"),
    "arguments": ("Half = lambda grid: None", "raises TypeError"),
    "sampler": ("from tats.masking import TokenSampler\nHalf = RandomMasking\nclass Bad(TokenSampler):\n    def policy("
                "self, tokens):\n        return tokens @ tokens, None", "the sampler .* RuntimeError.*line 7"),
}


@pytest.mark.parametrize("case", BAD_STRATEGIES)
def test_a_strategy_that_breaks_the_contract_is_refused_before_training(shapes, tmp_path, case):
    code, words = BAD_STRATEGIES[case]
    sampler = "lambda grid, dim, **count: Bad(grid, **count), learner='ppo'" if case == "sampler" else "None"
    text = (f"from tats.masking import Masking, RandomMasking, register_masking\n\n{code}\n"
            f"register_masking('half', Masking(Half, sampler={sampler}))\n")
    name = f"strategy_bad_{case.replace(' ', '_')}"
    refused(shapes, tmp_path, words, written(tmp_path, name, text), more=["--mask_type", "half"])


BAD_SAMPLERS = {
    "no subclass": ("torch.nn.Identity()", "TokenSampler"),
    "logits": ("Bad(logits=lambda n: (1, n + 1))", "logits"),
    "value": ("Bad(value=(1, 1))", "value"),
    "draw": ("Bad(shown=3)", "num_visible"),
}


@pytest.mark.parametrize("case", BAD_SAMPLERS)
def test_a_sampler_that_breaks_the_contract_is_refused_before_training(case):
    from tats.masking import Draw, TokenSampler, check_sampler

    class Bad(TokenSampler):
        def __init__(self, logits=lambda n: (1, n), value=None, shown=9):
            super().__init__((4, 3, 3), visible=9)
            self.logits, self.value, self.shown = logits, value, shown

        def policy(self, tokens):
            return torch.zeros(self.logits(36)), None if self.value is None else torch.zeros(self.value)

        def draw(self, log_pi, keys=None, stream=0, visible=None):
            mask = torch.ones(log_pi.shape, dtype=torch.bool)
            mask[:, :self.shown] = False
            return Draw(mask, torch.zeros(len(log_pi)))

    code, word = BAD_SAMPLERS[case]
    with pytest.raises(ValueError, match=word):
        check_sampler(eval(code, {"torch": torch, "Bad": Bad}), 24)   # noqa: S307 - our own literals
    check_sampler(Bad(), 24)
