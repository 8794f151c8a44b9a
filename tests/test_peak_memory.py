"""The largest memory of one cell, in a process that has run larger ones."""

from types import SimpleNamespace

import numpy as np
import pytest
from tats.engines.compare_masks import cell
from tats.engines.compare_masks.cell import measured
from tats.engines.compare_masks.plan import Cell
from tats.engines.machine.peak_memory import begin_peak, peak_mib


def touched(mib):
    return np.ones(mib << 20, np.uint8)


def test_the_peak_begins_anew():
    if not begin_peak():
        pytest.skip("the system cannot let the largest resident memory begin anew")
    touched(300)
    large = peak_mib()
    assert begin_peak() and peak_mib() < large - 200
    touched(100)
    assert peak_mib() < large - 100


def test_a_cell_does_not_inherit_the_peak_of_the_one_before(monkeypatch):
    if not begin_peak():
        pytest.skip("the system cannot let the largest resident memory begin anew")
    plan, kept = SimpleNamespace(features=["linear_motion"]), {}
    monkeypatch.setattr(cell, "stored", lambda plan, one: dict(kept.get(one.seed, {})))
    monkeypatch.setattr(cell, "keep", lambda plan, one, numbers: kept.__setitem__(one.seed, numbers))

    def run(seed, mib):
        kept[seed] = measured(plan, Cell("random", .9, seed), lambda *_: {"sum": int(touched(mib)[0])},
                              lambda *_: {"linear_motion": 1.})
        return kept[seed]["peak_rss_mib"]

    large, small = run(0, 400), run(1, 10)
    assert small < large - 200
    assert run(0, 10) == large   # another reading of a finished cell leaves its peak
