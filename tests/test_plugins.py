"""What a user adds: a strategy, a reward and a data set, each one file, brought in by --plugin."""

import importlib
import json
import sys

import pytest
import torch
from plugin_cases import FLAGS, METRIC, REWARD, forget, written
from tats.engines import measure_masks
from tats.engines.config.flags import FlagParser
from tats.engines.pretrain.rewards import REWARDS
from tats.engines.run_mae_pretraining import main
from tats.masking import MASKINGS

pytest_plugins = ["plugin_fixtures"]
pytestmark = pytest.mark.usefixtures("registries")

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

DATA_SET = '''
from tats.datasets.catalog import DataSet, register_data_set

register_data_set("mine", DataSet(8, "dense", 1, 1, 1, False))
'''


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
