"""Every numeric flag of the programs refuses what its declaration excludes; made from the declarations."""

import math
from dataclasses import replace

import pytest
from tats.engines.benchmark.measurements import BenchmarkConfig
from tats.engines.check_gpu.__main__ import CheckConfig
from tats.engines.config import finetuning, pretraining
from tats.engines.config.common import OptimConfig
from tats.engines.config.flags import EVERYWHERE, check_values, declared_flags
from tats.engines.config.intervals import Interval
from tats.engines.extract_features import ExtractConfig
from tats.engines.runs.prediction import PredictConfig

PROGRAMS = {"pre-training": pretraining.PRETRAINING, "fine-tuning": finetuning.FINETUNING,
            "predict": [PredictConfig], "features": [ExtractConfig], "benchmark": [BenchmarkConfig],
            "check_gpu": [CheckConfig]}


def is_number(item):
    """Whether a flag's values are numbers, alone or in a list."""
    text = str(item.type) if not isinstance(item.type, type) else item.type.__name__
    choices = item.metadata.get("choices")   # argparse refuses everything else
    return ("int" in text or "float" in text) and not isinstance(item.default, bool) and not choices


NUMBERS = [(program, config, item) for program, configs in PROGRAMS.items() for config in configs
           for item in declared_flags([config]).values() if is_number(item)]
IDS = [f"{program}-{item.name}" for program, _, item in NUMBERS]


def outside(text):
    """Numbers that an interval excludes: nan, both infinities, and those beyond its ends."""
    yield from (math.nan, math.inf, -math.inf)
    interval = Interval.parse(text)
    for end, inside, step in ((interval.low, interval.with_low, -1), (interval.high, interval.with_high, 1)):
        if math.isfinite(end):
            yield end + step
            if not inside:
                yield end


@pytest.mark.parametrize(("program", "config", "item"), NUMBERS, ids=IDS)
def test_a_number_outside_of_its_interval_is_refused(program, config, item):
    for value in outside(item.metadata["within"]):
        given = [value, value] if "list" in str(item.type) else value
        with pytest.raises(ValueError, match=f"--{item.name} "):
            check_values(replace(config(), **{item.name: given}))


@pytest.mark.parametrize(("program", "config", "item"), NUMBERS, ids=IDS)
def test_an_integer_has_an_interval_of_its_own(program, config, item):
    """Counts and sizes have a least value; only floats may be any finite number, and few are."""
    assert item.metadata["within"] != EVERYWHERE, f"--{item.name} declares no interval"


@pytest.mark.parametrize("configs", PROGRAMS.values(), ids=PROGRAMS)
def test_the_defaults_are_inside(configs):
    for config in configs:
        check_values(config())


@pytest.mark.parametrize(("text", "inside", "out"), [
    ("[0, 1)", [0, 0.5], [1, -0.1]), ("(0, 1]", [1, 0.1], [0, 1.1]), ("[1, inf)", [1, 10**9], [0, math.inf]),
    ("(-inf, inf)", [-1e300, 0], [math.inf, math.nan])])
def test_intervals_by_hand(text, inside, out):
    interval = Interval.parse(text)
    assert all(value in interval for value in inside) and not any(value in interval for value in out)


@pytest.mark.parametrize("text", ["0, 1", "[0; 1]", "[0, 1", "", "[a, b]"])
def test_what_is_no_interval(text):
    with pytest.raises(ValueError):
        Interval.parse(text)


def test_one_beta_is_too_few():
    with pytest.raises(ValueError, match="--opt_betas"):
        _ = replace(OptimConfig(), opt_betas=[.9]).betas
