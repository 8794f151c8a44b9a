"""A run whose folder is deleted, replaced or full while it runs."""

import logging
import shutil

import pytest
import torch
from tats.engines.run_class_finetuning import main as finetune
from tats.engines.run_mae_pretraining import main as pretrain
from tats.engines.runs import resumable
from tiny_runs import finetuning_flags, history, log_lines, names, small_pretraining_flags


@pytest.fixture(scope="module")
def pretrained(shapes, tmp_path_factory):
    """A run of three epochs."""
    out = tmp_path_factory.mktemp("pretrained") / "out"
    pretrain(small_pretraining_flags(shapes, out, "--epochs", "3"))
    return out


@pytest.fixture(autouse=True)
def messages(caplog):
    caplog.set_level(logging.INFO)


@pytest.fixture
def losing(monkeypatch):
    """`losing(run, epoch, act)`: `act(folder)` at the end of that epoch, before it is logged."""
    def lose(run, epoch, act):
        record = run.epoch_record

        def epoch_record(self):
            numbers = record(self)
            if self.epoch == epoch:
                act(self.folder)
            return numbers

        monkeypatch.setattr(run, "epoch_record", epoch_record)

    return lose


@pytest.mark.parametrize("lost", [shutil.rmtree, lambda folder: folder.rename(folder.with_name("moved"))])
def test_a_folder_that_is_deleted_in_a_run_is_made_again_whole(shapes, pretrained, tmp_path, losing, caplog, lost):
    """The same lines and weights as without; saved at once, though a checkpoint would only be due at the end."""
    from tats.engines.runs.pretraining_run import Pretraining

    out, found = tmp_path / "out", []
    losing(Pretraining, 1, lost)
    after = Pretraining.after_epoch
    Pretraining.after_epoch, kept = lambda self, *rest: (found.append(names(out)), after(self, *rest)), after
    try:
        pretrain(small_pretraining_flags(shapes, out, "--epochs", "3", "--save_ckpt_freq", "50"))
    finally:
        Pretraining.after_epoch = kept
    assert {"settings.json", "log.txt", ".lock", "checkpoint-1.pth"} <= found[1]
    assert log_lines(out) == log_lines(pretrained) and len(history(out)) == 1
    assert any(b"train_loss" in path.read_bytes() for path in out.glob("events*"))
    (said,) = [record.message for record in caplog.records if "made again" in record.message]
    assert str(out) in said and "checkpoints from before are not there" in said


def test_a_folder_that_holds_another_run_now_ends_this_one(shapes, tmp_path, losing):
    from tats.engines.runs.pretraining_run import Pretraining

    def another(folder):
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / "settings.json").write_text('{"run": "other"}')

    losing(Pretraining, 0, another)
    with pytest.raises(ValueError, match="holds another run now"):
        pretrain(small_pretraining_flags(shapes, tmp_path / "out", "--epochs", "2"))
    assert names(tmp_path / "out") == {"settings.json", ".lock"}


def test_best_weights_that_were_in_a_deleted_folder_are_looked_for_anew(shapes, tmp_path, losing, caplog):
    from tats.engines.runs.finetuning_run import Finetuning

    losing(Finetuning, 0, shutil.rmtree)
    result = finetune(finetuning_flags(shapes, tmp_path / "out", "--epochs", "2", "--num_frames", "4",
                                       "--test_weights", "best"))
    assert result["trained_epochs"] == 2 and "the best weights, of validation top-1" in caplog.text
    assert {"checkpoint-best.pth", "result.json", "settings.json"} <= names(tmp_path / "out")


class Full:
    """A disk that is full, as Python, numpy and torch meet it."""

    def write(self, data):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("error", ["python", "numpy", "torch"])
def test_a_full_disk_names_the_file(tmp_path, error, capsys):
    from tats.datasets.files import written_whole
    from tats.datasets.program import run_program

    def write():
        with written_whole(tmp_path / "some.file", "wb"):
            if error == "python":
                Full().write(b"")
            if error == "numpy":   # ndarray.tofile
                raise OSError("800 requested and 0 written")
            torch.save({"a": torch.ones(3)}, Full())

    with pytest.raises(SystemExit) as ended:
        run_program(write)
    line = capsys.readouterr().err
    assert ended.value.code == 2 and line.count("\n") == 1 and line.startswith("error: ")
    assert line.rstrip().endswith("some.file") and names(tmp_path) == set()


def test_a_checkpoint_that_cannot_be_written_is_named(shapes, tmp_path, monkeypatch, caplog):
    def full(state, path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(resumable.checkpointing, "save_atomically", full)
    with pytest.raises(OSError, match="make room") as error:
        pretrain(small_pretraining_flags(shapes, tmp_path / "out", "--epochs", "1"))
    assert error.value.filename == str(tmp_path / "out/checkpoint-0.pth")
    assert f"{tmp_path / 'out/checkpoint-0.pth'} cannot be written" in caplog.text
