"""The comparison on real clips where users are unlucky: odd manifests, replaced clips, lost files, signals."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import test_compare_clips as usual
import videos
from tats.datasets import reencode
from tats.datasets.lists.list_file import read_list
from tats.datasets.lists.split_files import read_k400
from tats.engines.compare_clips import cell as clips_cell
from tats.engines.compare_clips.__main__ import get_parser, main, plans_of, run
from tats.engines.compare_clips.answers import paired
from tats.engines.compare_clips.features import _finetuned
from tats.engines.compare_clips.manifest import read_manifest
from tats.engines.compare_clips.plan import ClipsPlan, answers_file, is_finished, maps_file
from tats.engines.compare_clips.prepare import ClipSize, prepare
from tats.engines.compare_clips.results import Results
from tats.engines.compare_clips.table import _difference
from tats.engines.compare_clips.truth import Geometry, read_truth, write_truth
from tats.engines.compare_masks import __main__ as compare_masks
from tats.engines.compare_masks import cell as shared
from tats.engines.compare_masks.frozen import taken
from tats.engines.compare_masks.plan import Cell, keep, keep_settings, result_file, stored, warm_file
from tats.engines.core.interrupts import Stopped
from tats.masking import TokenGrid

RANDOM = Cell("random", .9, 0)


def folder_of(tmp_path, rows):
    """A folder of empty files with this manifest."""
    for row in rows:
        (tmp_path / row[0]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / row[0]).write_bytes(row[0].encode())
    usual.write_manifest(tmp_path, rows)
    return tmp_path


@pytest.mark.parametrize(("line", "message"), [
    ("./a/1.mp4,x,g9,1,25", "twice: as a/1.mp4 and as ./a/1.mp4"), ("a/../a/1.mp4,x,g9,1,25", "twice"),
    ("a/1.mp4,x, or y,g1,0,25", "6 fields, and the first line has 5"), ("a/1.mp4", "1 fields"),
    ('a/1.mp4,"x,g1,0,25\na/2.mp4,y,g2,1,25', ":7: .* a quote that is opened must be closed"),
    ('a/1.mp4,"' + "x" * 140_000 + '",g1,0,25', "larger than field limit")])
def test_a_line_that_says_something_else_than_it_seems_is_refused(tmp_path, line, message):
    folder_of(tmp_path, usual.GOOD)
    with open(tmp_path / "manifest.csv", "a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=message):
        read_manifest(tmp_path)


def test_a_manifest_as_spreadsheets_write_it(tmp_path):
    text = (folder_of(tmp_path, usual.GOOD) / "manifest.csv").read_text()
    before = read_manifest(tmp_path)
    for other in ("\ufeff" + text, text.replace("\n", "\r\n"), text.replace(",", " , "), text.replace("\n", "\n\n")):
        (tmp_path / "manifest.csv").write_bytes(other.encode())
        assert read_manifest(tmp_path) == before
    (tmp_path / "manifest.csv").write_text(text.replace(",", ";"))
    with pytest.raises(ValueError, match="between commas, and is 'path;label;group;fold;fps'"):
        read_manifest(tmp_path)


def test_a_split_file_with_an_open_quote_is_one_line(tmp_path):
    (tmp_path / "train.csv").write_text('label,youtube_id,time_start,time_end,split\n"' + "x" * 140_000)
    with pytest.raises(ValueError, match="is a quote opened"):
        read_k400(tmp_path)


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """Empty files as clips, with an encoder that copies them; one without a label is of a tested clip's group."""
    folder_of(tmp_path / "clips", [*usual.GOOD, ("a/5.mp4", "", "g2", ""), ("a/6.mp4", "", "g6", "")])
    monkeypatch.setattr("tats.engines.compare_clips.prepare.encode", lambda job, encoding: "")

    def again(jobs=0):
        manifest = read_manifest(tmp_path / "clips")
        prepare(manifest, tmp_path / "data", ClipSize(), jobs)
        return manifest
    again()
    return again


def test_without_a_fold_no_clip_of_its_groups_is_left(tmp_path, prepared):
    for fold, numbers in ((0, [1, 2, 4, 5]), (1, [0, 3, 5])):
        paths = read_list(tmp_path / f"data/without-fold{fold}/train.csv", need_label=False).paths
        assert [int(path[-9:-4]) for path in paths] == numbers


def test_a_clip_that_was_replaced_is_refused(tmp_path, prepared):
    clip = tmp_path / "clips/a/2.mp4"
    clip.write_bytes(clip.read_bytes())   # as after a copy: another time, the same bytes
    prepared()
    clip.write_bytes(b"x" * len(clip.read_bytes()))
    with pytest.raises(ValueError, match=r"a/2.mp4 is another clip than the one that .*data was made of"):
        prepared()


def test_a_full_disk_is_not_called_a_clip_that_cannot_be_read(tmp_path, prepared, monkeypatch):
    monkeypatch.setattr("tats.engines.compare_clips.prepare.encode",
                        lambda job, encoding: "cannot be written: No space left on device")
    with pytest.raises(ValueError, match="6 clip.s. cannot be prepared; .* cannot be written: No space left"):
        prepared()


def test_two_programs_do_not_write_into_one_file(tmp_path, monkeypatch):
    """Until it is whole a video has a name of its process."""
    seen = []
    monkeypatch.setattr(reencode, "_encode", lambda job, part, *_: (seen.append(part), open(part, "w").close()))
    for process in (1, 2):
        monkeypatch.setattr("os.getpid", lambda process=process: process)
        assert reencode.encode(reencode.Job("x", str(tmp_path / "1.mp4")), reencode.Encoding()) == ""
    assert len(set(seen)) == 2 and [path.name for path in tmp_path.iterdir()] == ["1.mp4"]


@pytest.mark.parametrize(("code", "ends"), [(0, 143), (130, 130)])
@pytest.mark.parametrize("phase", ["cell", "warm-up"])
def test_a_signal_ends_the_comparison_and_not_one_cell(tmp_path, monkeypatch, phase, code, ends):
    begun = []

    def stopped(*arguments):
        begun.append(arguments)
        raise Stopped("SIGTERM: ended in epoch 0", code)

    monkeypatch.setattr(shared, "_pretrain", stopped)
    monkeypatch.setattr(clips_cell, "_run", stopped)
    if phase == "cell":
        monkeypatch.setattr("tats.engines.compare_clips.__main__.warm_up", lambda task: None)
    cells = [RANDOM, Cell("tats", .9, 0), Cell("tats", .9, 1)]
    with pytest.raises(SystemExit) as raised:
        run(usual.parts(tmp_path)[:1], cells, jobs=0)
    assert raised.value.code == ends and len(begun) == 1


def test_two_programs_in_one_folder_make_each_thing_once(tmp_path, monkeypatch, caplog):
    """The one that comes second waits for the warm-up, and finds it."""
    plan, begun, may_end = usual.parts(tmp_path)[0], threading.Event(), threading.Event()
    made = []

    def pretrain(plan, out, arguments):
        made.append(out)
        begun.set()
        assert may_end.wait(20)
        out.mkdir(parents=True)
        warm_file(plan, 0).touch()

    monkeypatch.setattr(shared, "_pretrain", pretrain)
    monkeypatch.setattr(shared, "_quiet", lambda name: None)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(shared.warm_up, (plan, 0))
        assert begun.wait(20)
        second = pool.submit(shared.warm_up, (plan, 0))
        while "waiting for it" not in caplog.text and not second.done():
            time.sleep(.01)
        may_end.set()
        assert first.result() is second.result() is None and len(made) == 1
    assert "another program works on" in caplog.text


def finished(plan, clips=(("1", "a"), ("2", "b"))):
    """A cell with all that makes it finished, on disk."""
    usual.write_cell(plan, RANDOM, [1] * len(clips), clips, fixed_error=1., linear=100., cpu_seconds=10.,
                     pretraining_cpu_seconds=5.)
    table = pd.DataFrame(clips, columns=["path", "group"]).assign(map="features", row=range(len(clips)), flow=.5)
    table.to_csv(maps_file(plan, RANDOM), index=False)
    return plan._replace(readings=("linear",))


def test_what_was_deleted_of_a_finished_cell_is_made_again(tmp_path, monkeypatch):
    plan = finished(usual.parts(tmp_path)[0])
    assert is_finished(plan, RANDOM)

    def look(plan, cell):
        maps_file(plan, cell).write_text("maps")
        return {"fixed_error": 2.}

    def read(plan, cell, names):
        assert names == ["linear"]
        answers_file(plan, cell, "linear").write_text("answers")
        return {"linear": 50.}

    monkeypatch.setattr(clips_cell, "_look", look)
    monkeypatch.setattr(clips_cell, "measure_features", read)
    monkeypatch.setattr(shared, "pretrained", lambda *_: pytest.fail("pre-trained again"))
    for path in (answers_file(plan, RANDOM, "linear"), maps_file(plan, RANDOM)):
        path.unlink()
        assert not is_finished(plan, RANDOM)
        clips_cell.run_cell((plan, RANDOM))
        assert is_finished(plan, RANDOM)
    assert stored(plan, RANDOM)["linear"] == 50 and stored(plan, RANDOM)["fixed_error"] == 2


def test_clips_whose_frames_are_repeated_are_counted(tmp_path, caplog):
    """Eight frames at ten a second: at 20 a second four neighbours are two frames, at 4 a second there are three."""
    pytest.importorskip("cv2")
    for path, *_ in usual.GOOD:
        videos.write_video(tmp_path / path, videos.drifting(0, count=8, height=32, width=40), videos.Encoding(rate=10))
    usual.write_manifest(tmp_path, usual.GOOD)
    for fps, warned in ((10, 0), (20, 1), (4, 2)):
        write_truth(read_manifest(tmp_path), tmp_path / str(fps), Geometry(TokenGrid(2, 1, 1), 4, 16), fps)
        assert caplog.text.count("4 of 4 tested clips are too short or too slow for 4") == warned
    assert read_truth(tmp_path / "10", Geometry(TokenGrid(2, 1, 1), 4, 16)).clips.shape == (4, 3, 4, 16, 16)


@pytest.mark.parametrize("file", ["cell.json", "linear.csv", "maps.csv"])
def test_a_broken_file_is_named_with_a_way_out(tmp_path, file):
    plan = finished(usual.parts(tmp_path)[0])
    path, lines = result_file(plan, RANDOM).parent / file, None
    lines = path.read_text().splitlines(keepends=True)
    cuts = ["", "".join(lines)[:len(lines[0]) // 2], "x\ny\n"]
    for text in [*cuts, *(["".join(lines[:-1])] if file != "cell.json" else ["[]", "{}"])]:   # a line less
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"{file}\b.* delete it, and it is made again"):
            list(Results([plan], 2).rows())
    if file == "cell.json":
        path.write_text("")
        with pytest.raises(ValueError, match="is broken"):
            is_finished(plan, RANDOM)


def test_broken_settings_are_not_to_be_deleted(tmp_path):
    plan = usual.parts(tmp_path)[0]
    keep_settings(plan)
    (plan.out / "plan.json").write_text("{")
    with pytest.raises(ValueError, match="broken .* take another --out"):
        keep_settings(plan)


def test_a_plugin_reaches_the_processes_of_the_cells(tmp_path, monkeypatch):
    """Those that start afresh; and a plugin whose text has changed is another setting."""
    folder_of(tmp_path / "clips", usual.GOOD)
    plugin = tmp_path / "plugin_of_a_comparison.py"
    plugin.write_text("x = 1\n")
    words = ["--out", str(tmp_path / "out"), "--pretrain", usual.write_arguments(tmp_path / "a.args", usual.PRETRAIN),
             "--finetune", usual.write_arguments(tmp_path / "b.args", usual.FINETUNE), "--plugin", str(plugin)]
    (plan,) = plans_of(get_parser().parse_args([str(tmp_path / "clips"), *words]), read_manifest(tmp_path / "clips"))
    args = compare_masks.get_parser().parse_args(["--data", str(tmp_path), *words])
    for found in (plan, compare_masks._plan(args)):
        for arguments in (found.pretrain, found.finetune):
            assert arguments[arguments.index("--plugin") + 1] == str(plugin)
    keep_settings(plan)
    keep_settings(plan)
    plugin.write_text("x = 2\n")
    with pytest.raises(ValueError, match="other settings .*--plugin plugin_of_a_comparison, source .* now --plugin"):
        keep_settings(plan)


def test_a_mean_over_fewer_folds_is_not_shown(tmp_path):
    """Two folds, of which one has no cell yet."""
    plans = usual.parts(tmp_path)
    finished(plans[0])
    results = Results(plans, 4)
    (row,) = results.rows()
    assert row["cpu_seconds"] is None and "features_flow" not in row and row["linear"] is None
    finished(plans[1], (("3", "c"), ("4", "d")))
    (row,) = Results(plans, 4).rows()
    assert (row["cpu_seconds"], row["features_flow"], row["linear"]) == (20, .5, 100)


def test_a_clip_without_a_rank_correlation_leaves_one_pair_out():
    index = pd.MultiIndex.from_tuples([("1", "a"), ("2", "b"), ("3", "c")], names=["path", "group"])
    base, ours = (pd.Series(values, index) for values in ([1., 2., np.nan], [2., 5., 7.]))
    assert paired({0: ours}, {0: base})[0].mean == 2 and paired({0: base}, {0: ours})[1].tolist() == [-2]


def test_a_video_that_cannot_be_read_any_more_is_not_compared(tmp_path):
    """Its features are zeros; both comparisons read them by this function."""
    out = tmp_path / "features.npz"
    for readable in ([True, True], [True, False]):
        np.savez(out, features=np.ones((2, 3)), paths=np.array(["0.mp4", "1.mp4"]), readable=np.array(readable))
        if all(readable):
            assert taken(out)[0].shape == (2, 3) and not out.exists()
    with pytest.raises(ValueError, match="1 of the 2 videos .*cannot be read, the first is 1.mp4: put them back"):
        taken(out)


@pytest.fixture
def tested(tmp_path):
    """A cell whose fold 0 was tested on two clips, one unreadable, in a folder that has been moved since."""
    plan = usual.parts(tmp_path)[0]._replace(folds=(0,))
    clips = pd.DataFrame({"video": ["new/0.mp4", "new/1.mp4", "new/2.mp4"], "label": [0, 1, 1],
                          "fold": [-1, 0, 0]})
    folder = plan.out / RANDOM.name / "finetune-fold0"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text('{"top1": 50.0, "num_expected": 2, "num_evaluated": 1}')
    (folder / "predictions.csv").write_text("path,label,predicted\nold/1.mp4,1,1\nold/2.mp4,1,\n")
    (plan.out / RANDOM.name / "pretrain").mkdir()
    (plan.out / RANDOM.name / "pretrain/log.txt").write_text('{"epoch": 1}')
    return folder, lambda: _finetuned(plan, RANDOM, clips).tolist()


def test_predictions_of_a_folder_that_was_moved_are_read(tested):
    assert tested[1]() == [-1, 1, 1 << 16]


@pytest.mark.parametrize(("file", "text", "cause"), [
    ("predictions.csv", "path,label,predicted\nold/1.mp4,1,1\n", "not of the 2 clips"),
    ("predictions.csv", "path,label,predicted\nold/1.mp4,1,1\nold/1.mp4,1,1\n", "not of the 2 clips"),
    ("predictions.csv", "path,label,predicted\nold/1.mp4,1,1\nold/9.mp4,1,0\n", "not of the 2 clips"),
    ("predictions.csv", "path,label,predicted\nold/1.mp4,1,0\nold/2.mp4,1,\n", "another accuracy than the 50 %"),
    ("predictions.csv", "path,label,predicted\nold/1.mp4,1,one\nold/2.mp4,1,\n", "broken .*'one'"),
    ("predictions.csv", "path,label,pred", "broken"), ("predictions.csv", "", "broken"),
    ("predictions.csv", None, "broken .*No such file"),
    ("result.json", "", "broken .*not a result"), ("result.json", "[]", "broken .*not a result"),
    ("result.json", '{"top1": 100.0, "num_expected": 2, "num_evaluated": 2}', "another accuracy than the 100 %")])
def test_predictions_that_were_cut_or_changed_are_not_trusted(tested, file, text, cause):
    folder, read = tested
    (folder / file).unlink() if text is None else (folder / file).write_text(text)
    with pytest.raises(ValueError, match=f"{cause}.*delete .*result.json, and the test is made again"):
        read()


def test_equal_answers_do_not_say_what_would_be_missed():
    """Differences of 0, -100 and 0 in three films have a deviation of 47.14, and their mean an error of 27.2."""
    index = pd.MultiIndex.from_tuples([("1", "a"), ("2", "b"), ("3", "c")], names=["path", "group"])
    base, ours = pd.Series([100., 100, 0], index), pd.Series([100., 0, 0], index)
    assert _difference(*paired({0: base}, {0: base}))["would miss"] == "–"
    assert float(_difference(*paired({0: ours}, {0: base}))["would miss"]) == pytest.approx(2.8 * 27.2, rel=.02)


def test_what_a_stopped_cell_took_is_not_known(tmp_path, monkeypatch):
    plan = ClipsPlan(tmp_path, tmp_path, [], [], 1, (0,), ("linear", "knn"))
    monkeypatch.setattr(shared, "_pretrain", lambda *_: None)
    monkeypatch.setattr(shared, "last_line", lambda *_: {})
    ended = {"linear": 1.}

    def features(*_):
        if len(ended) == 1:
            raise KeyboardInterrupt
        return ended

    assert shared.pretrained(plan, RANDOM)["pretraining_cpu_seconds"] is not None
    with pytest.raises(KeyboardInterrupt):
        shared.measured(plan, RANDOM, shared.pretrained, features)
    ended["knn"] = 1.
    numbers = shared.measured(plan, RANDOM, shared.pretrained, features)
    assert numbers["cpu_seconds"] is None and numbers["pretraining_cpu_seconds"] is not None
    keep(plan, RANDOM, {})
    (tmp_path / RANDOM.name / "pretrain").mkdir()
    (tmp_path / RANDOM.name / "pretrain/epoch-3-step-10.pth").touch()
    numbers = shared.measured(plan, RANDOM, shared.pretrained, features)
    assert numbers["cpu_seconds"] is numbers["pretraining_cpu_seconds"] is None
    keep(plan, RANDOM, numbers)
    assert json.loads(result_file(plan, RANDOM).read_text())["cpu_seconds"] is None


@pytest.mark.parametrize(("arguments", "message"), [
    (["--short_side", "20"], "--short_side 20 is less than the 24 pixels"),
    (["--methods", "tats-frames", "--ratios", ".9"], "tats-frames at a ratio of 0.9: "),
    (["--ratios", ".9", ".90000001"], "--ratios 0.90000001 .* at most six digits")])
def test_what_could_only_fail_after_the_warm_up_is_refused_before(tmp_path, arguments, message):
    folder_of(tmp_path / "clips", usual.GOOD)
    with pytest.raises(ValueError, match=message):
        main([str(tmp_path / "clips"), "--out", str(tmp_path / "out"), "--short_side", "28",
              "--pretrain", usual.write_arguments(tmp_path / "pretrain.args", usual.PRETRAIN),
              "--finetune", usual.write_arguments(tmp_path / "finetune.args", usual.FINETUNE), *arguments])
    assert not (tmp_path / "out").exists()
