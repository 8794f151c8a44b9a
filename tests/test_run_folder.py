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
from tiny_runs import final_state, finetuning_flags, history, log_lines, names, small_pretraining_flags

KEEP = ("--save_ckpt_freq", "1", "--keep_last", "0")


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


def test_an_output_folder_that_is_a_file_is_said_to_be(tmp_path):
    (tmp_path / "out").touch()
    for folder in (tmp_path / "out", tmp_path / "out" / "run"):
        with pytest.raises(ValueError, match=f"--output_dir {folder} cannot be a folder: .* give another one"):
            FolderInUse(folder, Runtime(torch.device("cpu")))
