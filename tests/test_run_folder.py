"""A run's folder: one run at a time, nothing lost that lies there, and no result under another's name."""

import json
import logging
import multiprocessing
import os
import shutil
import signal
from argparse import Namespace

import pytest
import torch
from tats.engines.core import run_folder
from tats.engines.core.run_folder import FolderInUse, set_aside
from tats.engines.core.runtime import Runtime
from tats.engines.run_class_finetuning import main as finetune
from tats.engines.run_mae_pretraining import main as pretrain
from tats.engines.runs import going_on, resumable
from tiny_runs import final_state, finetuning_flags, log_lines, small_pretraining_flags

KEEP = ("--save_ckpt_freq", "1", "--keep_last", "0")


def names(folder):
    return {path.name for path in folder.iterdir()}


def history(folder):
    return json.loads((folder / "settings.json").read_text())["history"]


@pytest.fixture(scope="module")
def pretrained(shapes, tmp_path_factory):
    """A run of three epochs."""
    out = tmp_path_factory.mktemp("pretrained") / "out"
    pretrain(small_pretraining_flags(shapes, out, *KEEP, "--epochs", "3"))
    return out


@pytest.fixture(scope="module")
def finetuned(shapes, tmp_path_factory):
    """A run of two epochs, and its result."""
    out = tmp_path_factory.mktemp("finetuned") / "out"
    return out, finetune(finetuning_flags(shapes, out, *KEEP, "--model_ema"))


@pytest.fixture
def copied(pretrained, tmp_path):
    shutil.copytree(pretrained, tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture(autouse=True)
def messages(caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(run_folder, "PATIENCE", .3)


def hold(folder, ready):
    held = FolderInUse(folder, Runtime(torch.device("cpu")))
    ready.set()
    signal.pause()
    held.release()


@pytest.mark.faults
def test_two_runs_in_one_folder(shapes, copied, fault):
    """The second is refused before it writes; a kill of the first lets go of the folder."""
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    other = context.Process(target=hold, args=(copied, ready))
    other.start()
    try:
        assert ready.wait(60)
        before = names(copied), (copied / "log.txt").read_bytes()
        with pytest.raises(ValueError, match=rf"in use by another run \(.*process {other.pid}, .*--output_dir"):
            pretrain(small_pretraining_flags(shapes, copied, *KEEP, "--epochs", "4"))
        assert before == (names(copied), (copied / "log.txt").read_bytes())
    finally:
        other.kill()
        other.join()
    pretrain(small_pretraining_flags(shapes, copied, *KEEP, "--epochs", "4"))
    pretrain(small_pretraining_flags(shapes, copied, *KEEP, "--epochs", "5"))   # the first has let go of it
    fault("two runs in one folder", "the second is refused", "nothing")


def test_a_file_system_without_locks_keeps_nobody_out(tmp_path, monkeypatch):
    def unknown(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(run_folder.fcntl, "lockf", unknown)
    FolderInUse(tmp_path, Runtime(torch.device("cpu"))).release()


@pytest.mark.parametrize("own", [True, False])
def test_a_folder_that_only_this_node_sees_is_refused_before_the_first_step(own, tmp_path):
    """Rank 1 of two; rank 0 has written into its own folder of that name."""
    folder = tmp_path / "local"
    folder.mkdir()
    if own:
        (folder / run_folder.LOCK).write_text("n1, process 7")
    answers = iter([[("n1, process 7", None)], [(True, "n1"), (own, "n2")]])
    here = Namespace(is_main=False, world_size=2, gather_objects=lambda value: next(answers))
    if own:
        FolderInUse(folder, here)
        return
    with pytest.raises(ValueError, match="n2 sees other files there than n1"):
        FolderInUse(folder, here)


@pytest.mark.faults
@pytest.mark.parametrize("moved", [1, 3, 5])
def test_starting_anew_and_killed_while_the_old_run_is_moved(moved, copied, monkeypatch, fault):
    """The next start finds what is left and moves it to the same place."""
    before, real, done = names(copied) - {run_folder.LOCK}, run_folder.Path.rename, []

    def rename(path, target):
        if len(done) == moved:
            raise KeyboardInterrupt
        done.append(path)
        return real(path, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(run_folder.Path, "rename", rename)
        set_aside(copied)
    assert set_aside(copied) == copied / "replaced-1"
    assert names(copied / "replaced-1") == before and names(copied) == {"replaced-1", run_folder.LOCK}
    fault("killed while an old run is moved to replaced-1", "the next start moves the rest", "nothing")


def test_a_result_without_checkpoints_is_kept_too(shapes, tmp_path):
    """--no_save_ckpt, or checkpoints that were deleted for room."""
    for seed in ("0", "1"):
        (tmp_path / "evaluation-1").mkdir(exist_ok=True)   # of the first run, as --eval leaves it
        finetune(finetuning_flags(shapes, tmp_path, "--epochs", "1", "--no_save_ckpt", "--seed", seed))
    assert {"result.json", "log.txt", "settings.json", "evaluation-1"} <= names(tmp_path / "replaced-1")
    assert "evaluation-1" not in names(tmp_path)
    assert json.loads((tmp_path / "replaced-1/settings.json").read_text())["settings"]["run"]["seed"] == 0


def test_the_log_of_another_run_that_saved_nothing_is_kept(tmp_path):
    """It was killed before its first checkpoint; the very same command begins its log again."""
    def begin(own):
        run = Namespace(folder=tmp_path, flags=Namespace(resume="", auto_resume=True), identity=Namespace(hash=own))
        going_on.GoingOn._make_room(run, None)

    (tmp_path / "log.txt").write_text('{"epoch": 0}\n')
    (tmp_path / "settings.json").write_text('{"identity": "a"}')
    begin("a")
    assert names(tmp_path) == {"log.txt", "settings.json"}
    begin("b")
    assert names(tmp_path) == {"replaced-1"} and names(tmp_path / "replaced-1") == {"log.txt", "settings.json"}


def stopped_after(step, monkeypatch, main, words):
    """Start a run that a signal ends after an optimiser step."""
    real = resumable.Resumable.after_step

    def signalled(run):
        if run.main.steps == step:
            os.kill(os.getpid(), signal.SIGTERM)
        real(run)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(resumable.Resumable, "after_step", signalled)
        main(words)


def test_starting_anew_is_not_repeated_by_a_job_that_is_queued_again(shapes, copied, monkeypatch, caplog):
    words = small_pretraining_flags(shapes, copied, *KEEP, "--epochs", "3", "--auto_resume", "false")
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    stopped_after(2, monkeypatch, pretrain, words)
    assert "the same command without --auto_resume false goes on" in caplog.text
    assert names(copied) >= {"replaced-1", "epoch-0-step-2.pth"} and "checkpoint-2.pth" not in names(copied)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    pretrain(words)
    assert "resumed from" in caplog.text and "replaced-2" not in names(copied)
    monkeypatch.setenv("SLURM_JOB_ID", "78")   # another job, queued again before it began: it starts anew
    pretrain(words)
    assert "replaced-2" in names(copied)


@pytest.mark.parametrize("name", ["checkpoint-0.pth", "kept.pth"])
def test_going_back_to_an_older_checkpoint(name, shapes, copied, monkeypatch, caplog):
    """What came after it is set aside, whatever its name; the same command, stopped, goes on and not back again."""
    older = (copied / "checkpoint-0.pth").rename(copied / name)
    words = small_pretraining_flags(shapes, copied, *KEEP, "--epochs", "3", "--resume", str(older), "--change", "lr",
                                    "0.01")
    stopped_after(8, monkeypatch, pretrain, words)
    assert {"checkpoint-1.pth", "checkpoint-2.pth", "log.txt", "settings.json"} <= names(copied / "replaced-1")
    assert len(log_lines(copied / "replaced-1")) == 3 and "checkpoint-2.pth" not in names(copied)
    pretrain(words)
    assert "resumed from " + str(copied / "epoch-1-step-8.pth") in caplog.text and "replaced-2" not in names(copied)
    state = final_state(copied)
    assert (state["epoch"], [one["flag"] for one in state["changes"]]) == (2, ["lr"])


def test_going_on_elsewhere(shapes, pretrained, tmp_path, monkeypatch, caplog):
    """--resume with a folder of its own; queued again it goes on there, and what lay there is kept."""
    out = tmp_path / "elsewhere"
    shutil.copytree(pretrained, out)
    words = small_pretraining_flags(shapes, out, *KEEP, "--epochs", "3", "--resume", str(pretrained /
                                                                                       "checkpoint-0.pth"))
    stopped_after(8, monkeypatch, pretrain, words)
    assert "checkpoint-2.pth" in names(out / "replaced-1") and "checkpoint-2.pth" not in names(out)
    pretrain(words)
    assert f"resumed from {out / 'epoch-1-step-8.pth'}" in caplog.text
    assert len(log_lines(out)) == 2   # the first line is in the other folder


@pytest.mark.parametrize("content", [None, "", "{", "[]"])
def test_settings_that_are_gone_or_damaged(content, shapes, copied, caplog):
    path = copied / "settings.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    pretrain(small_pretraining_flags(shapes, copied, *KEEP, "--epochs", "4"))
    record = json.loads(path.read_text())
    assert record["run"] is None and [start["from"] for start in record["history"]] == ["checkpoint-2.pth"]
    assert "the history in it begins anew" in caplog.text
    if content is not None:
        assert (copied / "settings-damaged-1.json").read_text() == content


def test_a_run_that_is_over_takes_no_change(shapes, finetuned, tmp_path):
    shutil.copytree(finetuned[0], tmp_path / "out")
    before = (tmp_path / "out/result.json").read_text()
    for name, value in (("test_num_segment", "5"), ("lr", "0.5")):
        with pytest.raises(ValueError, match=f"all 2 epochs behind it: .*--change {name} could act on"):
            finetune(finetuning_flags(shapes, tmp_path / "out", *KEEP, "--model_ema", "--change", name, value))
    assert (tmp_path / "out/result.json").read_text() == before


def test_flags_of_another_version_are_named(shapes, copied, caplog):
    path = copied / "checkpoint-2.pth"
    state = torch.load(path, weights_only=True)
    state["settings"]["sampler"]["curiosity"] = .5
    torch.save(state, path)
    pretrain(small_pretraining_flags(shapes, copied, *KEEP, "--epochs", "4"))
    assert "flags that this version does not know; it goes on without: curiosity 0.5" in caplog.text


def test_another_dtype_on_another_machine_is_named_and_recorded(shapes, copied, monkeypatch, caplog):
    path = copied / "checkpoint-2.pth"
    torch.save(torch.load(path, weights_only=True) | {"dtype": "bfloat16"}, path)
    pretrain(small_pretraining_flags(shapes, copied, *KEEP, "--epochs", "4"))
    assert "--amp: auto, float32 | auto, bfloat16" in caplog.text
    assert history(copied)[-1]["changed"]["amp"] == ["auto, bfloat16", "auto, float32"]


# Tests of a training's weights.

@pytest.fixture
def tested(finetuned, shapes, tmp_path):
    """(folder of a training, a function that tests in it)."""
    out = tmp_path / "out"
    shutil.copytree(finetuned[0], out)
    return out, lambda *more: finetune(finetuning_flags(shapes, out, "--eval", *more))


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def test_another_test_does_not_take_the_place_of_the_trainings_result(tested, finetuned, caplog):
    out, test = tested
    before = {name: (out / name).read_bytes() for name in ("result.json", "predictions.csv", "confusion.csv")}
    assert test() == finetuned[1]   # the very test: the same numbers in the same place
    for number, more in enumerate((("--test_num_segment", "3"), ("--test_weights", "ema"),
                                   ("--resume", str(out / "checkpoint-0.pth"))), start=1):
        found = test(*more)
        assert found == test(*more) == result_of(out / f"evaluation-{number}")   # once more: in the same place
        assert f"the result goes to evaluation-{number}" in caplog.text
    assert before == {name: (out / name).read_bytes() for name in before}
    assert result_of(out / "evaluation-3")["trained_epochs"] == 1
    assert not (out / "evaluation-4").exists()


def test_a_training_without_a_result_gets_its_own_test_alone(tested):
    out, test = tested
    (out / "result.json").unlink()
    test("--test_weights", "ema")
    test("--resume", str(out / "checkpoint-0.pth"))
    assert not (out / "result.json").exists() and {"evaluation-1", "evaluation-2"} <= names(out)
    test()
    assert result_of(out)["trained_epochs"] == result_of(out)["epochs"] == 2


def test_tests_of_another_list(tested, shapes, tmp_path):
    out, test = tested
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "test.csv").write_text("".join((shapes / "test.csv").read_text().splitlines(keepends=True)[:4]))
    before = (out / "result.json").read_bytes()
    test("--data_path", str(lists))
    assert (out / "result.json").read_bytes() == before and result_of(out / "evaluation-1")["num_expected"] == 4


def test_elsewhere_another_tests_result_is_kept(finetuned, shapes, tmp_path):
    out = tmp_path / "tests"
    for segments in ("1", "2", "2"):
        finetune(finetuning_flags(shapes, out, "--eval", "--finetune", str(finetuned[0] / "checkpoint-1.pth"),
                                  "--test_num_segment", segments))
    assert result_of(out)["views"]["segments"] == 2 and result_of(out / "replaced-1")["views"]["segments"] == 1
    assert not (out / "replaced-2").exists()


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


def test_the_first_of_several_processes_keeps_its_lock(tmp_path):
    """A file that is read and closed would give POSIX's lock away."""
    here = Namespace(is_main=True, world_size=2, rank=0, gather_objects=lambda value: [value, value])
    held = FolderInUse(tmp_path, here)
    context = multiprocessing.get_context("fork")
    other = context.Process(target=may_write, args=(tmp_path,))
    other.start()
    other.join()
    assert other.exitcode == 2
    held.release()


def may_write(folder):
    try:
        FolderInUse(folder, Runtime(torch.device("cpu")))
    except ValueError:
        os._exit(2)
    os._exit(0)


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


def test_an_output_folder_that_is_a_file_is_said_to_be(tmp_path):
    (tmp_path / "out").touch()
    for folder in (tmp_path / "out", tmp_path / "out" / "run"):
        with pytest.raises(ValueError, match=f"--output_dir {folder} cannot be a folder: .* give another one"):
            FolderInUse(folder, Runtime(torch.device("cpu")))
