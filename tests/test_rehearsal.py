"""The report of a rehearsal: its numbers by hand, and each thing that it warns of."""

import json
import logging

import pytest
from dry_runs import run_script
from tats.engines.core import logs
from tats.engines.report.rehearsal import Row, get_parser, main, peak_memory, problems_of, read_parts, timing_of

FLAGS = "--videos 9537 3783 3783 --epochs 400 100 --clips 2560 1280 --tested 24 20".split()
ROW = Row((9537, 3783, 3783), (400, 100), 10, 6)


def step(title, batch, batches, each, waiting=5, loss="loss 0.9000, "):
    return f"10:00:00 {title} [{batch}/{batches}] {loss}{each:.3f} s a step, {waiting}% of it waiting for data\n"


def steps(title, batches, first, each, waiting=5, **more):
    """A first batch of `first` seconds, the others of `each`."""
    return "".join(step(title, batch, batches, (first + (batch - 1) * each) / batch, waiting, **more)
                   for batch in range(1, batches + 1))


@pytest.fixture
def work(tmp_path):
    """Ten batches: 256 and 128 clips/s of pre-training, 320 of fine-tuning, 8 of validation, 12 views of the test."""
    texts = {"pretrain": steps("epoch 0", 10, 7, 1),
             "resume": "10:00:00 resumed from a.pth\n" + steps("epoch 1", 10, 9, 2),
             "finetune": steps("epoch 0", 20, 4, .2) + steps("validation", 3, 5, 1, loss="")
             + steps("test", 20, 9, .5, loss="")}
    for name, text in texts.items():
        (tmp_path / f"{name}.log").write_text(f"10:00:00 all is well\n{text}"
                                              "10:00:00 at most 3.0 GB of main memory in this process\n")
    for name, epochs in (("pretrain", 2), ("finetune", 1)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "log.txt").write_text(epochs * (json.dumps({"peak_memory_gb": 12.0}) + "\n"))
        (tmp_path / name / "settings.json").write_text('{"settings": {"run": {"keep_last": 3}}}')
        (tmp_path / name / "checkpoint-1.pth").write_bytes(b"0" * 1000)
    (tmp_path / "finetune/result.json").write_text('{"num_evaluated": 20, "num_expected": 20}')
    return tmp_path


def parts_of(work):
    return read_parts(work, ROW, (2560, 1280), (24, 20))


def found(work, memory=80.0):
    return list(problems_of(work, parts_of(work), memory, (400, 100)))


def test_speed_and_days_by_hand(work, capsys):
    """256 clips/s over 9537 x 10, 128 over 9537 x 390, 320 over 9537 x 100, 8 over 3783 x 100, 12 over 3783 x 6."""
    parts = parts_of(work)
    assert [part.speed for part in parts] == pytest.approx([256, 128, 320, 8, 12], rel=2e-3)
    days = [95370 / 256, 3719430 / 128, 953700 / 320, 378300 / 8, 22698 / 12]
    assert [part.days for part in parts] == pytest.approx([seconds / 86400 for seconds in days], rel=2e-3)
    main([str(work), *FLAGS])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines[1:7]] == ["0.00431", "0.336", "0.0345", "0.547", "0.0219", "0.944"]
    assert "12.0 GB" in lines[1] and "RAM" not in lines[1] and lines[-1] == "Nothing was found that would go wrong."


def test_a_single_batch_is_timed_without_the_start_of_its_loaders():
    timing = timing_of(step("epoch 0", 1, 1, 4.0, 50), "epoch 0")
    assert (timing.batches, timing.seconds, timing.data_share, timing.of) == (1, 2.0, None, 1)


def test_the_lines_of_a_program_are_read(monkeypatch, caplog):
    """A real loader's lines: 10 s for the first batch, of which 9 wait, then 3 s, of which 1 waits."""
    clock = iter([0, 9, 10, 11, 13, 14, 16])
    monkeypatch.setattr(logs.time, "perf_counter", lambda: float(next(clock)))
    caplog.set_level(logging.INFO)
    for means in (lambda: {"loss": 1.0}, None):
        list(logs.Progress([1, 2, 3], "epoch 0" if means else "test", means, 1))
        clock = iter([0, 9, 10, 11, 13, 14, 16])
    said = "".join(f"10:00:00 {message}\n" for message in caplog.messages)
    for title in ("epoch 0", "test"):
        timing = timing_of(said, title)
        assert (timing.batches, timing.of) == (2, 3)
        assert (timing.seconds, timing.data_share) == (pytest.approx(6, abs=.01), pytest.approx(1 / 3, abs=.03))


def test_memory_of_a_process_without_a_gpu(work):
    assert peak_memory(work) == [(12.0, True)] * 5
    (work / "pretrain/log.txt").write_text("{}\n{}\n")
    (work / "resume.log").write_text("10:00:00 at most 17.5 GB of main memory in this process\n")
    assert peak_memory(work)[:3] == [(3.0, False), (17.5, False), (12.0, True)]


def test_a_good_rehearsal_has_no_problems(work):
    assert found(work) == []
    with open(work / "pretrain.log", "a") as file:
        file.write("10:00 WARNING the policy never acts: all 1 epochs have random masks\n"
                   "10:01 WARNING epoch 0: the policy does not move\n")
    assert found(work) == []


def test_a_warning_says_that_it_is_one():
    record = logging.LogRecord("x", logging.WARNING, "x.py", 1, "no room for %s", ("a.pth",), None)
    lines = logs.Lines("%(asctime)s %(message)s", "%H:%M:%S")
    assert lines.format(record).split(" ", 1)[1] == "WARNING no room for a.pth"
    record.levelno = logging.INFO
    assert lines.format(record).split(" ", 1)[1] == "no room for a.pth"


def append(path, text):
    path.write_text((path.read_text() if path.exists() else "") + text)


@pytest.mark.parametrize(("harm", "said"), [
    (lambda work: (work / "resume.log").write_text("resumed from a.pth\n" + steps("epoch 1", 10, 9, 2, 50)),
     "50% of the time waits for data"),
    (lambda work: (work / "pretrain/log.txt").write_text(2 * '{"peak_memory_gb": 79.0}\n'), "79.0 of 80.0 GB"),
    (lambda work: (work / "resume.log").write_text("resumed from a.pth\n" + steps("epoch 1", 10, 9000, 2000)),
     "days on this machine"),
    (lambda work: (work / "resume.log").write_text(steps("epoch 1", 10, 9, 2)), "did not resume"),
    (lambda work: (work / "pretrain/bad_videos.txt").write_text("a.mp4\n"), "1 unreadable video(s)"),
    (lambda work: (work / "finetune/result.json").write_text('{"num_evaluated": 19, "num_expected": 20}'), "19 of 20"),
    (lambda work: (work / "finetune/result.json").unlink(), "0 of ?"),
    (lambda work: append(work / "pretrain.log", "10:00 WARNING no key frames\n"), "no key frames"),
    (lambda work: append(work / "pretrain.log", "10:00 WARNING /a/b.py:3: UserWarning: ten workers\n"
                         "10:00 WARNING /a/b.py:9: UserWarning: ten workers\n"), "ten workers"),
    (lambda work: append(work / "pretrain.log", "note: 3 GPUs cannot make the batch\n"), "3 GPUs cannot make"),
    (lambda work: append(work / "problems.txt", "train.csv has 5 rows\n"), "train.csv has 5 rows"),
], ids=["loaders", "memory", "days", "resume", "videos", "test", "no-test", "warning", "torch", "note", "list"])
def test_what_would_go_wrong_is_named(work, harm, said):
    harm(work)
    problems = found(work)
    assert len(problems) == (2 if "GB" in said else 1) and all(said in one for one in problems)


def test_a_full_disk_is_seen_before_the_run(work, monkeypatch):
    """12 and 8 checkpoints of 1000 bytes do not fit into 5000; of 400 bytes they do, but not with DeepSpeed's half."""
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 5000})())
    assert [one.split(":")[0] for one in found(work)] == ["pretrain", "finetune"]
    for name in ("pretrain", "finetune"):
        (work / name / "checkpoint-1.pth").write_bytes(b"0" * 400)
    assert found(work) == []
    (work / "finetune/checkpoint-1/rank0").mkdir(parents=True)
    (work / "finetune/checkpoint-1/rank0/optim.pt").write_bytes(b"0" * 600)
    assert [one.split(":")[0] for one in found(work)] == ["finetune"]


@pytest.mark.parametrize("name", ["pretrain", "resume", "finetune"])
def test_half_a_rehearsal_is_no_report(work, name):
    (work / f"{name}.log").write_text("10:00:00 killed\n")
    with pytest.raises(ValueError, match=rf"{name}.log: no line of .*has not come to its end"):
        main([str(work), *FLAGS])


@pytest.mark.parametrize(("words", "environment", "said"), [
    ((), {}, "takes a row"), (("ucf101",), {}, "takes a row"),
    (("ucf101_r095",), {"REHEARSE_STEPS": "x"}, "REHEARSE_STEPS"),
    (("ucf101_r095",), {"SMOKE": "1"}, "real flags"),
    (("ucf101_r095",), {"METHOD": "tat"}, "METHOD"),
    (("ucf101_r095",), {"DATA_ROOT": "/nowhere"}, "no list /nowhere/ucf101/train.csv"),
    (("ucf101_r095", "--batch_size", "x"), {}, "--batch_size must be a number from 1 on, got 'x'"),
    (("ucf101_r095", "--epochs=09"), {}, "--epochs must be a number"),
    (("ucf101_r095",), {"OUTPUT_ROOT": "/dev/null/x"}, "OUTPUT_ROOT=/dev/null/x"),
])
def test_wrong_rehearsals_end_with_a_line(tmp_path, words, environment, said):
    settings = {"OUTPUT_ROOT": str(tmp_path), "PYTHON": "true", "GPUS": "0"} | environment
    done = run_script("rehearse.sh", *words, **settings)
    assert done.returncode == 2 and said in done.stderr and not list(tmp_path.iterdir())


def test_the_row_is_what_the_script_passes():
    args = get_parser().parse_args(["work", *FLAGS])
    assert (args.videos, args.epochs, args.clips) == ([9537, 3783, 3783], [400, 100], [2560, 1280])
    assert (args.tested, args.random_epochs, args.views) == ([24, 20], 10, 6)
