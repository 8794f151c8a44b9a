"""A plugin that breaks the contract of its kind is refused before the first step, with its file and line."""


import pytest
import torch
from plugin_cases import FLAGS, METRIC, REWARD, written
from tats.engines.run_mae_pretraining import main

pytest_plugins = ["plugin_fixtures"]
pytestmark = pytest.mark.usefixtures("registries")

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
