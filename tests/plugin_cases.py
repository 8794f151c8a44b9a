"""What the tests of plugins share: a small run, and files of plugins."""

import sys

REWARD = '''
from tats.engines.pretrain.rewards import register_reward

register_reward("half", lambda outcome: outcome.errors / 2)
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
