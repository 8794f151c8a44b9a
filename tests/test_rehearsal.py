"""The report of a rehearsal: its numbers by hand, and each thing that it warns of."""

import json
import logging

import pytest
from dry_runs import run_script
from tats.engines.core.logs import Lines
from tats.engines.report.rehearsal import get_parser, main, problems_of, read_parts

FLAGS = ["--rows", "9537", "--epochs", "400", "100", "--clips", "2560", "1280"]


@pytest.fixture
def work(tmp_path):
    """2560 clips in 10 and 20 s of pre-training, 1280 in 4 s of fine-tuning; nothing is wrong."""
    for name, seconds in (("pretrain", (10, 20)), ("finetune", (4,))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "log.txt").write_text("".join(
            json.dumps({"seconds": each, "train_data_share": 0.05, "peak_memory_gb": 12.0}) + "\n" for each in seconds))
        (tmp_path / name / "settings.json").write_text('{"settings": {"run": {"keep_last": 3}}}')
        (tmp_path / name / "checkpoint-1.pth").write_bytes(b"0" * 1000)
        (tmp_path / f"{name}.log").write_text("all is well\n")
    (tmp_path / "resume.log").write_text("WARNING x goes on with another value of --epochs\nresumed from a.pth\n")
    (tmp_path / "finetune/result.json").write_text('{"num_evaluated": 20, "num_expected": 20}')
    return tmp_path


def found(work, memory=80.0):
    parts = read_parts(work, 9537, (400, 100), (2560, 1280), 10)
    return list(problems_of(work, parts, memory, (400, 100)))


def test_speed_and_days_by_hand(work, capsys):
    """256 clips/s over 9537 x 10, 128 over 9537 x 390, 320 over 9537 x 100: .004 + .336 + .034 days."""
    parts = read_parts(work, 9537, (400, 100), (2560, 1280), 10)
    assert [part.speed for part in parts] == [256, 128, 320]
    assert [part.days for part in parts] == pytest.approx([95370 / 256 / 86400, 3719430 / 128 / 86400,
                                                           953700 / 320 / 86400])
    main([str(work), *FLAGS])
    out = capsys.readouterr().out
    assert "Nothing was found" in out and "12.0 GB" in out
    assert out.splitlines()[4].split()[-1] == "0.4"


def set_line(work, name, **values):
    path = work / name / "log.txt"
    lines = [json.loads(line) | values for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_good_rehearsal_has_no_problems(work):
    assert found(work) == []
    (work / "pretrain.log").write_text("10:00 WARNING the policy never acts: all 1 epochs have random masks\n"
                                       "10:01 WARNING epoch 0: the policy does not move\n")
    assert found(work) == []


def test_a_warning_says_that_it_is_one():
    record = logging.LogRecord("x", logging.WARNING, "x.py", 1, "no room for %s", ("a.pth",), None)
    lines = Lines("%(asctime)s %(message)s", "%H:%M:%S")
    assert lines.format(record).split(" ", 1)[1] == "WARNING no room for a.pth"
    record.levelno = logging.INFO
    assert lines.format(record).split(" ", 1)[1] == "no room for a.pth"


@pytest.mark.parametrize(("harm", "said"), [
    (lambda work: set_line(work, "finetune", train_data_share=.5), "50% of the time waits for data"),
    (lambda work: set_line(work, "pretrain", peak_memory_gb=79.0), "79.0 of 80.0 GB"),
    (lambda work: (work / "resume.log").write_text("epoch 0"), "did not resume"),
    (lambda work: (work / "pretrain/bad_videos.txt").write_text("a.mp4\n"), "1 unreadable video(s)"),
    (lambda work: (work / "finetune/result.json").write_text('{"num_evaluated": 19, "num_expected": 20}'), "19 of 20"),
    (lambda work: (work / "finetune/result.json").unlink(), "0 of ?"),
    (lambda work: (work / "pretrain.log").write_text("10:00 WARNING no key frames\n"), "no key frames"),
], ids=["loaders", "memory", "resume", "videos", "test", "no-test", "warning"])
def test_what_would_go_wrong_is_named(work, harm, said):
    harm(work)
    problems = found(work)
    assert problems and all(said in one for one in problems)


def test_a_full_disk_is_seen_before_the_run(work, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 5000})())
    assert [one.split(":")[0] for one in found(work)] == ["pretrain", "finetune"]   # 12 and 8 of 1000 bytes each


def test_half_a_rehearsal_is_no_report(work):
    (work / "finetune/log.txt").unlink()
    with pytest.raises(ValueError, match="2 epochs of pre-training and 0 of fine-tuning"):
        main([str(work), *FLAGS])


@pytest.mark.parametrize(("words", "environment", "said"), [
    ((), {}, "takes a row"), (("ucf101",), {}, "takes a row"),
    (("ucf101_r095",), {"REHEARSE_STEPS": "x"}, "REHEARSE_STEPS"),
])
def test_wrong_rehearsals_end_with_a_line(tmp_path, words, environment, said):
    done = run_script("rehearse.sh", *words, OUTPUT_ROOT=str(tmp_path), PYTHON="true", GPUS="0", **environment)
    assert done.returncode == 2 and said in done.stderr and not list(tmp_path.iterdir())


def test_the_row_is_what_the_script_passes():
    args = get_parser().parse_args(["work", *FLAGS])
    assert (args.rows, args.epochs, args.clips, args.random_epochs) == (9537, [400, 100], [2560, 1280], 10)
