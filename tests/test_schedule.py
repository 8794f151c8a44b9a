"""The schedules of a run, from its flags."""

import pytest
from tats.engines.config.common import OptimConfig
from tats.engines.training.schedule import schedules_of


@pytest.mark.parametrize(("flags", "warmup"), [
    ({"warmup_epochs": 2}, 20), ({"warmup_epochs": 2, "warmup_steps": 3}, 3), ({"warmup_steps": 0}, 0),
    ({"warmup_epochs": 99}, 50)])
def test_rate_and_decay_follow_from_the_flags(flags, warmup):
    """lr is for 256 clips a step; 4 x 2 clips on 8 processes are 64 of them."""
    optim = OptimConfig(batch_size=4, update_freq=2, epochs=5, lr=1e-2, min_lr=1e-3, weight_decay=.1,
                        weight_decay_end=.3, **flags)
    lr, decay = schedules_of(optim, steps_per_epoch=10, processes=8)
    assert (lr.base, lr.final, lr.total_steps, lr.warmup_steps) == (2.5e-3, 2.5e-4, 50, warmup)
    assert (decay.base, decay.final, decay.total_steps, decay.warmup_steps) == (.1, .3, 50, 0)


def test_weight_decay_stays_where_no_end_is_given():
    assert schedules_of(OptimConfig(weight_decay=.1, epochs=5, warmup_steps=0), 10, 1)[1](7) == .1
