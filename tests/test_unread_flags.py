"""Flags of the policy beside a strategy that takes no notice of them: accepted, and named once."""

import pytest
from tats.engines.config.pretraining import SamplerConfig, resolve_recipe
from tats.engines.config.unread import remarks_on, unread_flags
from tats.engines.run_mae_pretraining import main
from tats.masking import MASKINGS, find_masking
from tiny_runs import small_pretraining_flags


def test_what_each_strategy_reads():
    every = set(vars(SamplerConfig()))
    assert unread_flags(MASKINGS["tats"]) == set()
    assert unread_flags(MASKINGS["tube"]) == every - {"trajectory_kernel"}
    assert unread_flags(MASKINGS["adamae"]) == every - {"trajectory_kernel", "reward", "reward_reach"}
    assert "sampler_lr" not in unread_flags(MASKINGS["adamae"], own_rate=True)


@pytest.mark.parametrize(("name", "flags", "given", "lines"), [
    ("learnable", {}, {"m_o", "mae_only_epochs", "reward", "lr"}, ["--mask_type learnable takes no notice of "
                                                                 "--mae_only_epochs"]),
    ("tats", {}, {"mae_only_epochs", "tats_approx"}, []),
    ("tats", {}, {"num_landmarks"}, ["exact trajectory attention takes no notice of --num_landmarks: it is of "
                                     "--tats_approx orthoformer"]),
    ("tats", {"tats_recipe": "paper"}, {"num_landmarks"}, []),
    ("tats", {"tats_attention": "mha"}, {"num_landmarks", "tats_approx"},
     ["--tats_attention mha takes no notice of --num_landmarks, --tats_approx"]),
    ("tats", {}, {"flush_buffer"}, ["--flush_buffer has no effect: with --update_every 1 nothing is left in the buffer "
                                    "at an epoch's end"]),
    ("tats", {"update_every": 2}, {"flush_buffer"}, []),
])
def test_lines(name, flags, given, lines):
    assert list(remarks_on(find_masking(name), name, resolve_recipe(SamplerConfig(**flags)), given)) == lines


def test_a_run_names_those_of_its_command_line_once(shapes, tmp_path, caplog):
    """An alias counts, and so does --change; what a settings file says does not."""
    (tmp_path / "policy.args").write_text("--clip_epsilon 0.1\n")
    words = small_pretraining_flags(shapes, tmp_path / "out", "--mask_type", "random", "--epochs", "1", "--m_o", "3",
                                    f"@{tmp_path}/policy.args", "--no_flush_buffer", "--sampler_lr=0.1")
    main(words)
    found = [record.message for record in caplog.records if "no notice" in record.message]
    assert found == ["--mask_type random takes no notice of --flush_buffer, --mae_only_epochs, --sampler_lr"]
