"""What measurements take from a run: how it began, its budget of visible tokens, its targets, its clips."""

import pytest
import torch
from tats.engines.compare_clips import __main__ as compare_clips
from tats.engines.compare_masks import __main__ as compare_masks
from tats.engines.core import checkpointing
from tats.engines.measure_masks import main as measure
from tats.engines.pretrain.interface import mask_ratio_of
from tats.engines.run_mae_pretraining import main as pretrain
from tats.engines.runs.pretraining_build import as_begun
from tats.masking import RandomMasking, TokenGrid
from tiny_runs import assert_equal_states
from tiny_runs import pretraining_flags as flags


@pytest.mark.parametrize("warm", [False, True])
def test_before_training_are_the_weights_that_the_run_began_with(warm, shapes, tmp_path, capsys, caplog):
    """A rate of next to nothing leaves them as they were."""
    more = ["--epochs", "1", "--lr", "1e-30", "--sampler_lr", "1e-30", "--mae_only_epochs", "0", "--mask_type",
            "adamae"]
    if warm:
        pretrain(flags(shapes, tmp_path / "warm", "--mask_type", "random", "--epochs", "1"))
        more += ["--init_from", str(tmp_path / "warm" / "checkpoint-0.pth")]
    pretrain(flags(shapes, tmp_path / "run", *more))
    path = tmp_path / "run" / "checkpoint-0.pth"
    state = checkpointing.load(path)
    mae, sampler = as_begun(state, path)
    for begun, ended in ((mae, state["model"]), (sampler, state["sampler"])):
        assert all(torch.allclose(value, ended[name], rtol=0, atol=1e-6) for name, value in begun.state_dict().items())
    if not warm:
        return
    warmed = checkpointing.load(tmp_path / "warm" / "checkpoint-0.pth")["model"]
    assert_equal_states(dict(mae.state_dict()), dict(warmed))
    arguments = ["--checkpoint", str(path), "--data", str(shapes)]
    measure(arguments)
    assert "adamae, before" in capsys.readouterr().out
    (tmp_path / "warm" / "checkpoint-0.pth").write_bytes(path.read_bytes())   # another file of this name
    measure(arguments)
    out = capsys.readouterr().out
    assert "before" not in out and "adamae, after" in out and "no line before training" in caplog.text


def test_the_budget_of_num_visible_stands_above_the_ratio():
    grid = TokenGrid(8, 6, 6)
    for count in range(1, grid.num_tokens):
        ratio = mask_ratio_of({"mask_ratio": .5, "num_visible": count}, grid)
        assert RandomMasking(grid, ratio).num_visible == count
    assert mask_ratio_of({"mask_ratio": .5, "num_visible": None}, grid) == .5


def test_what_does_not_belong_into_one_table_is_refused(shapes, tmp_path):
    for name, more in (("mse", []), ("l1", ["--loss", "l1"]), ("short", ["--num_frames", "8"])):
        pretrain(flags(shapes, tmp_path / name, "--mask_type", "random", "--epochs", "1", *more))
    paths = {name: str(tmp_path / name / "checkpoint-0.pth") for name in ("mse", "l1", "short")}
    with pytest.raises(ValueError, match="another --loss"):
        measure(["--checkpoint", paths["mse"], paths["l1"], "--data", str(shapes)])
    with pytest.raises(ValueError, match="have 16 frames, a clip of the model has 8"):
        measure(["--checkpoint", paths["short"], "--data", str(shapes)])


@pytest.mark.parametrize("program", [compare_masks, compare_clips])
def test_a_comparison_of_ratios_refuses_one_number_of_visible_tokens(program, shapes, tmp_path):
    (tmp_path / "pretrain.args").write_text("--num_visible 14\n")
    (tmp_path / "finetune.args").touch()
    where = ["--data", str(shapes)] if program is compare_masks else [str(shapes)]
    with pytest.raises(ValueError, match="must not say --num_visible"):
        program.main([*where, "--out", str(tmp_path / "out"), "--pretrain", str(tmp_path / "pretrain.args"),
                      "--finetune", str(tmp_path / "finetune.args")])
