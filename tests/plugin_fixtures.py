"""Registries that forget what a test has registered."""

import sys

import pytest
from plugin_cases import forget
from tats.datasets.catalog import DATA_SETS
from tats.engines.core.metrics import METRICS
from tats.engines.pretrain.rewards import REWARDS
from tats.masking import MASKINGS


@pytest.fixture
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
