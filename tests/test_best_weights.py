"""checkpoint-best.pth: the weights that a run calls its best are of its own epochs, and are there."""

import errno

import pytest
import torch
from tats.engines.core import checkpointing
from tats.engines.run_class_finetuning import main
from tats.engines.runs.evaluator import Evaluator
from tiny_runs import error_line, finetuning_flags


@pytest.fixture
def trained(shapes, tmp_path, monkeypatch):
    """(validation top-1 of each epoch in turn, more flags) -> result of a run of so many epochs in all."""
    def train(top1, *more, epochs=3):
        values = iter(top1)
        monkeypatch.setattr(Evaluator, "validate", lambda self, learner: {
            "acc1": next(values), "acc5": 100., "loss": 1.})
        return main(finetuning_flags(shapes, tmp_path / "out", "--num_frames", "4", "--test_weights", "best",
                                     "--save_ckpt_freq", "1", "--epochs", str(epochs), *more))
    return train


def best_there(tmp_path):
    state = torch.load(tmp_path / "out" / "checkpoint-best.pth", weights_only=True)
    return state["epoch"], state["best"]


@pytest.mark.parametrize("named", [False, True])
def test_the_best_of_epochs_that_run_again_is_sought_anew(named, trained, tmp_path, caplog):
    """The first time epoch 1 was best; a run that goes on from epoch 0 never meets those weights."""
    assert trained([50., 70., 60.])["trained_epochs"] == 2 and best_there(tmp_path) == (1, 70.)
    if not named:   # as a kill leaves it: the checkpoint is older than the best weights
        for name in ("checkpoint-1.pth", "checkpoint-2.pth", "result.json", "finished"):
            (tmp_path / "out" / name).unlink(missing_ok=True)
    result = trained([40., 45.], *(["--resume", str(tmp_path / "out" / "checkpoint-0.pth")] if named else []))
    assert result["trained_epochs"] == 3 and best_there(tmp_path) == (2, 45.)
    assert "the best weights, of validation top-1 50.00, are lost" in caplog.text


def test_a_run_that_goes_on_keeps_its_best(trained, tmp_path, caplog):
    trained([50., 70.], epochs=2)
    assert trained([60.], "--change", "epochs", "3")["trained_epochs"] == 2
    assert best_there(tmp_path) == (1, 70.) and "are lost" not in caplog.text


def test_a_disk_that_is_full_at_the_best_epoch(trained, tmp_path, monkeypatch, caplog):
    """The weights before stay the best: the test is of what the file holds, and says so."""
    save, full = checkpointing.save_atomically, [False, True, False]

    def save_or_not(state, path):
        if path.name == "checkpoint-best.pth" and full.pop(0):
            raise OSError(errno.ENOSPC, "No space left on device")
        save(state, path)

    monkeypatch.setattr(checkpointing, "save_atomically", save_or_not)
    result = trained([50., 70., 60.])
    assert result["trained_epochs"] == 3 and best_there(tmp_path) == (2, 60.)   # 60 is above the 50 of the file
    assert "checkpoint-best.pth cannot be written" in caplog.text


def test_best_of_a_named_file_is_refused(shapes, tmp_path, capsys):
    line = error_line(capsys, main, *finetuning_flags(shapes, tmp_path, "--eval", "--finetune", "checkpoint-3.pth",
                                                      "--test_weights", "best"))
    assert "--test_weights best is checkpoint-best.pth of a run" in line and "leave one of them out" in line


def test_an_old_checkpoint_that_cannot_be_deleted_costs_nothing(trained, monkeypatch, caplog):
    monkeypatch.setattr(checkpointing, "thin_out", lambda *_: (_ for _ in ()).throw(PermissionError(1, "not yours")))
    assert trained([50., 60., 70.], "--keep_last", "1")["trained_epochs"] == 3
    assert "an old checkpoint cannot be deleted" in caplog.text and "cannot be written" not in caplog.text
