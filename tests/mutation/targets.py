"""Which files are mutated, and which tests must notice. Tests of a room that take seconds; the quickest come first.

A pattern of files below the root of the checkout -> test files below tests/, perhaps with `::test` behind them.
"""

_CONTRACT = "test_a_sampler_that_breaks_the_contract_is_refused_before_training"
_PRETRAINING = ("test_samplers.py", "test_models_golden.py", "test_engine_rows.py", "test_engine_ppo.py", "test_ppo.py",
                "test_diagnostics.py", "test_bad_steps.py")
_ATTENTION = ("test_trajectory_attention.py", "test_fast_paths.py")

TARGETS = {
    "masking/gumbel.py": ("test_gumbel.py", "test_masking_contract.py"),
    "masking/sampler.py": ("test_samplers.py", "test_masking_contract.py", f"test_plugin_contracts.py::{_CONTRACT}",
                           "test_engine_rows.py"),
    "masking/tats.py": ("test_samplers.py", "test_fast_paths.py", "test_masking_contract.py", "test_figures.py",
                        "test_engine_rows.py"),
    "masking/*.py": ("test_samplers.py", "test_masking_contract.py", "test_gumbel.py", "test_models_golden.py",
                     "test_engine_rows.py"),
    "engines/pretrain/ppo.py": ("test_ppo.py", "test_diagnostics.py", "test_engine_ppo.py"),
    "engines/pretrain/reconstruction.py": ("test_engine_rows.py", "test_models_golden.py"),
    "engines/pretrain/interface.py": _PRETRAINING,
    "engines/engine_for_pretraining.py": _PRETRAINING,
    "engines/engine_for_pretraining_ppo.py": _PRETRAINING,
    "engines/training/learner.py": ("test_learner.py", *_PRETRAINING),
    "engines/training/schedule.py": ("test_finetune_optim.py", "test_schedule.py"),
    "engines/training/layer_decay.py": ("test_finetune_optim.py",),
    "engines/finetune/evaluation.py": ("test_multiview.py",),
    "models/trajectory_attention.py": _ATTENTION,
    "models/temporal_pooling.py": _ATTENTION,
}


def tests_of(file: str) -> tuple[str, ...] | None:
    """The tests of a file, by the first pattern that it matches; None: it is not mutated."""
    from pathlib import PurePosixPath

    return next((tests for pattern, tests in TARGETS.items() if PurePosixPath(file).match(pattern)), None)
