"""The comparison on real clips: one command from a manifest, honest folds, resumable cells, intervals by hand."""

import csv
import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import videos
from tats.datasets.lists.list_file import read_list
from tats.engines import run_class_finetuning, run_mae_pretraining
from tats.engines.compare_clips.__main__ import main, run
from tats.engines.compare_clips.answers import over_groups, paired, read_answers, write_answers
from tats.engines.compare_clips.manifest import read_manifest
from tats.engines.compare_clips.maps import enrichment, most_moving
from tats.engines.compare_clips.plan import ClipsPlan, answers_file, maps_file
from tats.engines.compare_clips.readings import answers_by_fold, difference_statistics, linear, nearest
from tats.engines.compare_clips.results import Results
from tats.engines.compare_clips.table import summary
from tats.engines.compare_clips.token_reading import read_flow
from tats.engines.compare_clips.truth import geometry_of
from tats.engines.compare_clips.untrained import untrained
from tats.engines.compare_masks.plan import Cell, keep
from tats.engines.config import finetuning
from tats.engines.config.common import parser_of
from tats.engines.motion.rank_correlation import rank_correlation, ranks

PRETRAIN = """--model pretrain_tats_tiny --sampling_rate 1 --pretrain_aug multiscale --batch_size 4 --epochs 1
--mae_only_epochs 0 --warmup_epochs 0 --sampler_lr 1e-2 --vis_clips 0 --device cpu"""
FINETUNE = """--model vit_tats_tiny --sampling_rate 1 --test_num_segment 1 --test_num_crop 1 --batch_size 4
--num_sample 1 --epochs 1 --aa none --mixup 0 --cutmix 0 --reprob 0 --disable_eval_during_finetuning --no_save_ckpt
--device cpu"""


def write_arguments(path, text):
    path.write_text("\n".join(text.split()) + "\n")
    return str(path)


def write_clips(folder):
    """Twelve clips of drifting noise in two directions, four films in two folds, at two frame rates; one more without
    a label, and one that is only trained on."""
    rows = []
    for number in range(14):
        film, label = number // 3, ("left", "right")[number % 2]
        frames = videos.drifting(number, count=24 if film % 2 else 48, height=32, width=40)
        path = folder / f"{'toys' if number < 13 else 'more'}" / f"{number}.mp4"
        frames = frames if label == "left" else frames[::-1]
        videos.write_video(path, frames, videos.Encoding(rate=10 if film % 2 else 20))
        rows.append((path.relative_to(folder), "" if number == 13 else label, f"film{film}",
                     -1 if number >= 12 else film % 2))
    write_manifest(folder, rows)


def write_manifest(folder, rows):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.csv").write_text("path,label,group,fold,fps\n" + "".join(
        ",".join(map(str, row)) + ",25\n" for row in rows))


@pytest.mark.slow
def test_one_command_from_a_manifest_to_the_tables(tmp_path, capsys, monkeypatch):
    pytest.importorskip("cv2")
    monkeypatch.setattr("tats.engines.compare_clips.truth.FLOW_SIDE", 48)
    monkeypatch.setattr("tats.engines.runs.evaluator.draw_confusion", lambda *_: None)
    write_clips(tmp_path / "clips")
    arguments = [str(tmp_path / "clips"), "--ratios", ".9", "--seeds", "0", "--jobs", "0", "--warm_epochs", "1",
                 "--short_side", "28", "--pretrain", write_arguments(tmp_path / "pretrain.args", PRETRAIN),
                 "--finetune", write_arguments(tmp_path / "finetune.args", FINETUNE)]
    main([*arguments, "--out", str(tmp_path / "out"), "--methods", "scratch", "random", "tats"])
    shown, table = capsys.readouterr().out, (tmp_path / "out/real_clips.csv").read_text()
    rows = list(csv.DictReader(table.splitlines()))
    assert [(row["method"], row["mask_ratio"], row["clips"]) for row in rows] == [
        ("scratch", "0.0", "12"), ("random", "0.9", "12"), ("tats", "0.9", "12")]
    assert all(0 <= float(row[reading]) <= 100 for row in rows for reading in ("linear", "knn", "finetuned"))
    assert rows[0]["visible_tokens"] == rows[0]["error_flow"] == ""
    assert rows[1]["entropy_share"] == "" and float(rows[2]["entropy_share"]) > .9
    assert all(-1 <= float(row[f"{name}_flow"]) <= 1 for row in rows[1:]
               for name in ("error", "lasting", "error_around", "lasting_around"))
    assert all(-1 <= float(row["features_flow"]) <= 1 for row in rows)
    untrained_maps, trained_maps = (pd.read_csv(tmp_path / f"out/all/{cell}/maps.csv") for cell in (
        "scratch-r0-seed0", "random-r0.9-seed0"))
    assert set(untrained_maps["map"]) == {"features"} and len(untrained_maps) == 12
    trained_maps = trained_maps[trained_maps["map"] == "features"]
    assert (untrained_maps["flow"].to_numpy() != trained_maps["flow"].to_numpy()).any()
    for row in rows[1:]:   # another map, though a ranking or two may agree in all digits shown
        assert any(row[f"error_{kind}"] != row[f"lasting_{kind}"] for kind in ("flow", "own_flow", "difference"))
    assert float(rows[1]["visible_tokens"]) == 28 and rows[1]["policy_flow"] == "" != rows[2]["policy_flow"]
    assert "saw all clips" in shown and "frame difference, linear" in shown
    assert {line.split("|")[3].strip() for line in shown.splitlines() if "| flow, from tokens |" in line} == {
        "scratch", "random"}
    assert "Top-1 in % of 12 clips" in shown
    for reading in ("linear", "knn", "finetuned"):   # every tested clip once, and no other
        answers = pd.read_csv(tmp_path / f"out/all/tats-r0.9-seed0/{reading}.csv")
        assert sorted(answers["path"]) == sorted(f"toys/{number}.mp4" for number in range(12))
    videos_of = {split: {fold: set(read_list(tmp_path / f"out/data/fold{fold}/{split}.csv").paths) for fold in (0, 1)}
                 for split in ("train", "test")}
    for fold in (0, 1):
        assert len(videos_of["train"][fold]) == 7 and len(videos_of["test"][fold]) == 6   # 13 labelled ones
        assert not videos_of["train"][fold] & videos_of["test"][fold]
    assert len(read_list(tmp_path / "out/data/all/train.csv", need_label=False)) == 14

    # The same two cells again, elsewhere: the same digits.
    main([*arguments, "--out", str(tmp_path / "again"), "--methods", "random", "tats", "--readings", "linear", "knn"])
    again = list(csv.DictReader((tmp_path / "again/real_clips.csv").read_text().splitlines()))
    differ = ("finetuned", "pretraining_cpu_seconds", "cpu_seconds", "peak_rss_mib")
    assert [{name: row[name] for name in row if name not in differ} for row in again] == [
        {name: row[name] for name in row if name not in differ} for row in rows[1:]]

    with monkeypatch.context() as patched:   # what is finished is not run again
        for program in (run_mae_pretraining, run_class_finetuning):
            patched.setattr(program, "main", lambda *_: pytest.fail("a finished cell was run again"))
        main([*arguments, "--out", str(tmp_path / "out"), "--methods", "scratch", "random", "tats"])
    assert (tmp_path / "out/real_clips.csv").read_text() == table
    assert (tmp_path / "out/real_clips.png").read_bytes()[:4] == b"\x89PNG"

    # Without the tested fold: its clips are in no list of the part.
    main([*arguments, "--out", str(tmp_path / "out"), "--methods", "random", "--strict", "--folds", "1", "--readings",
          "knn"])
    (row,) = csv.DictReader((tmp_path / "out/strict/real_clips.csv").read_text().splitlines())
    assert (row["clips"], row["linear"], row["finetuned"]) == ("6", "", "")
    seen = set(read_list(tmp_path / "out/data/without-fold1/train.csv", need_label=False).paths)
    assert len(seen) == 8 and not seen & videos_of["test"][1]
    assert "never saw the clips of the fold" in capsys.readouterr().out
    with pytest.raises(ValueError, match="cells of other settings"):
        main([*arguments, "--out", str(tmp_path / "out"), "--methods", "random", "--epochs", "2"])
    with pytest.raises(ValueError, match="made of another manifest"):
        main([*arguments, "--out", str(tmp_path / "out"), "--fps", "5"])


GOOD = [("a/1.mp4", "x", "g1", 0), ("a/2.mp4", "y", "g2", 1), ("a/3.mp4", "x", "g2", 1), ("a/4.mp4", "y", "g1", 0)]


@pytest.mark.parametrize(("change", "message"), [
    (lambda rows: rows[:3] + [("a/4.mp4", "y", "g1", 1)], "the group g1 lies in the folds 0, 1"),
    (lambda rows: rows[:3] + [("a/4.mp4", "y", "g1", -1)], "the group g1 lies in the folds -1, 0"),
    (lambda rows: [*rows, ("a/9.mp4", "x", "g3", 0)], r"manifest.csv:6: a/9.mp4 is not there"),
    (lambda rows: rows[:3] + [("a/4.mp4", "y", "g1", "one")], "the fold 'one' is no whole number"),
    (lambda rows: [*rows, rows[0]], "names a clip twice"),
    (lambda rows: [row[:3] + (0,) for row in rows], "has 1 fold"),
    (lambda rows: [(row[0], "x", *row[2:]) for row in rows], "fewer than two classes"),
    (lambda rows: rows[:2] + [("a/3.mp4", "y", "g2", 1), ("a/4.mp4", "x", "g1", 0)], "without fold 0 .* no clip of x"),
])
def test_a_manifest_that_cannot_be_compared_with_is_refused(tmp_path, change, message):
    for row in GOOD:
        (tmp_path / row[0]).parent.mkdir(exist_ok=True)
        (tmp_path / row[0]).touch()
    write_manifest(tmp_path, GOOD)
    assert len(read_manifest(tmp_path).tested) == 4
    write_manifest(tmp_path, change(GOOD))
    with pytest.raises(ValueError, match=message):
        read_manifest(tmp_path)


def test_columns_that_are_missing_are_named(tmp_path):
    (tmp_path / "manifest.csv").write_text("path,label\n")
    with pytest.raises(ValueError, match="no column group, fold"):
        read_manifest(tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no manifest.csv"):
        read_manifest(tmp_path / "elsewhere")


def test_sets_have_labels_of_their_own(tmp_path):
    """Two sets of two classes each; folders of one class each, or that share labels, are one set."""
    def read(rows, name=None):
        for row in rows:
            (tmp_path / row[0]).parent.mkdir(exist_ok=True)
            (tmp_path / row[0]).touch()
        write_manifest(tmp_path, rows)
        return read_manifest(tmp_path, name)

    other = [("b/5.mp4", "u", "g5", 0), ("b/6.mp4", "v", "g6", 1), ("b/7.mp4", "v", "g7", 0), ("b/8.mp4", "u", "g8", 1)]
    assert read(GOOD + other).evaluated == (0, 1, 2, 3)
    chosen = read(GOOD + other, "b")
    assert chosen.evaluated == (4, 5, 6, 7) and chosen.classes == ["u", "v"] and len(chosen.rows) == 8
    with pytest.raises(ValueError, match="--set c is no set .* it has a, b"):
        read(GOOD + other, "c")
    shared = [(path, {"u": "x", "v": "y"}[label], *rest) for path, label, *rest in other]
    assert len(read(GOOD + shared).evaluated) == 8
    assert len(read([(f"{label}/{path[2:]}", label, *rest) for path, label, *rest in GOOD]).evaluated) == 4


def test_bootstrap_over_groups_by_hand():
    """Groups of 2 clips that are right and 1 that is wrong: the draws are aa (1/4), ab (1/2) and bb (1/4)."""
    values = pd.Series([100., 100., 0.], pd.MultiIndex.from_tuples([("1", "a"), ("2", "a"), ("3", "b")],
                                                                   names=["path", "group"]))
    found = over_groups(values)
    assert found.mean == pytest.approx(200 / 3) and (found.low, found.high) == (0, 100)
    # means 100, 66.7, 0: variance 1/4 100^2 + 1/2 66.7^2 - (58.3)^2 = 1319
    assert found.error == pytest.approx(1319.4 ** .5, rel=.02)
    alone = values.rename(index={"a": "b"}, level="group")
    assert over_groups(alone) == pytest.approx((200 / 3, np.nan, np.nan, np.nan), nan_ok=True)   # nothing to draw from


def test_differences_are_paired_by_clip_and_seed():
    index = pd.MultiIndex.from_tuples([("1", "a"), ("2", "a"), ("3", "b"), ("4", "c")], names=["path", "group"])
    base = pd.Series([0., 0., 0., 100.], index)
    ours = pd.Series([100., 0., 0., 100.], index)
    interval, seeds = paired({0: ours.iloc[::-1], 1: base, 2: ours}, {1: base, 0: base})
    assert interval.mean == 12.5 and seeds.tolist() == [25., 0.] and interval.low == 0
    with pytest.raises(ValueError, match="other clips"):
        paired({0: ours}, {0: base.iloc[:3]})
    assert paired({0: ours}, {1: base}) is None


def test_answers_are_read_as_they_were_written(tmp_path):
    clips = pd.DataFrame({"path": ["1", "2", "3"], "group": ["NA", "7", "7"], "fold": [0, 1, 1], "label": [0, 1, 1]})
    assert write_answers(tmp_path / "a.csv", clips, np.array([0, 0, -1])) == 50   # the last was not asked
    assert read_answers(tmp_path / "a.csv").to_dict() == {("1", "NA"): 100., ("2", "7"): 0.}


@pytest.mark.parametrize("classify", [linear, nearest])
def test_a_clip_is_classified_by_other_folds_alone(classify):
    generator = np.random.default_rng(0)
    labels, folds = np.arange(60) % 2, np.arange(60) // 2 % 4 - 1
    features = np.where(labels[:, None] == 0, -1., 1.) * [2, 0, 0] + generator.normal(size=(60, 3))
    found = answers_by_fold(features, labels, folds, (0, 2), classify)
    assert ((found >= 0) == np.isin(folds, (0, 2))).all()
    assert (found == labels)[found >= 0].mean() > .9
    turned = np.where(folds == 0, 1 - labels, labels)   # its own labels do not matter to a fold
    assert (answers_by_fold(features, turned, folds, (0,), classify) == found)[folds == 0].all()


def test_statistics_of_frame_differences_by_hand():
    """One pixel of four turns from black to white at the second of three frames: steps of 1/4 and 0."""
    frames = np.zeros((3, 2, 2, 3), np.uint8)
    frames[1:, 0, 0] = 255
    for parts in ([frames], [frames[:1], frames[1:]], [frames[:2], frames[2:]]):   # a long clip comes in parts
        assert difference_statistics(parts) == pytest.approx(
            [1 / 8, 1 / 8, 1 / 4, 3 ** .5 / 8, np.percentile([0, 0, 0, .5], 90), .5, 1 / 8, 1 / 8, 1 / 4])


def test_enrichment_of_the_most_moving_tenth_by_hand():
    flow = torch.arange(20.).flip(0)[None]
    moving = most_moving(flow)
    assert moving.nonzero()[:, 1].tolist() == [0, 1]   # 2 of 20
    visible = torch.zeros(2, 1, 20, dtype=torch.bool)
    visible[0, 0, [0, 5, 6, 7]] = visible[1, 0, [0, 1, 8, 9]] = True
    assert enrichment(visible, moving).tolist() == pytest.approx([(1 / 4 + 2 / 4) / 2 / .1])


def test_a_still_clip_has_no_enrichment():
    flow = torch.zeros(2, 20)
    flow[0, 3] = 1   # one token moves, and the tenth is two
    moving = most_moving(flow)
    assert moving.nonzero().tolist() == [[0, 3]]
    visible = torch.zeros(1, 2, 20, dtype=torch.bool)
    visible[:, :, :4] = True
    found = enrichment(visible, moving)
    assert float(found[0]) == pytest.approx(5) and found[1].isnan()


@pytest.mark.parametrize("size", ["", "_gpu"])
def test_the_sizes_are_what_the_programs_take(size):
    """512 tokens or more, at the rate of the prepared clips; the classifier sees what the autoencoder saw."""
    settings = Path(__file__).parents[1] / "run_scripts" / "settings"
    geometry = geometry_of(untrained([f"@{settings}/real_clips{size}.args"])[0])
    assert geometry.frames == 16 and geometry.grid.num_tokens >= 512
    parser = parser_of("x", "x", finetuning.FINETUNING, finetuning.DEAD_FLAGS)
    own = finetuning.Settings.from_args(parser.parse_args([f"@{settings}/real_clips_finetune{size}.args"]))
    assert own.data.sampling_rate == 1 and own.model.input_size in (None, geometry.size)


@pytest.mark.parametrize(("arguments", "message"), [
    ([], "name the folder of the clips first"), (["clips", "--size", "huge"], "--size huge is unknown (small, gpu)"),
    (["--methods", "tats"], "name the folder of the clips first"), (["clips", "--size"], "--size needs a value")])
def test_the_script_says_what_is_wrong(arguments, message):
    script = Path(__file__).parents[1] / "run_scripts" / "compare_real_clips.sh"
    done = subprocess.run(["bash", str(script), *arguments], capture_output=True, text=True)
    assert done.returncode == 2 and message in done.stderr


def parts(tmp_path):
    """Two parts of --strict, which test clips 1, 2 and clips 3, 4; films a, a, b, c."""
    return [ClipsPlan(tmp_path / "data" / name, tmp_path / name, [], [], 1, (fold,))
            for fold, name in enumerate(("without-fold0", "without-fold1"))]


def write_cell(plan, cell, right, clips, **numbers):
    """A finished cell's numbers and its linear answers: whether each clip was named rightly."""
    keep(plan, cell, cell._asdict() | numbers)
    table = pd.DataFrame(clips, columns=["path", "group"]).assign(fold=0, label=0)
    write_answers(answers_file(plan, cell, "linear"), table, 1 - np.array(right))


def test_parts_are_pooled_and_methods_paired_by_seed(tmp_path):
    """Random masks name 2 of 4 clips; TATS 3 and 4 of them: +25 and +50 points, their mean 37.5, the error 12.5."""
    plans, clips = parts(tmp_path), ([("1", "a"), ("2", "a")], [("3", "b"), ("4", "c")])
    for cell, right in ((Cell("random", .9, 0), ([1, 0], [1, 0])), (Cell("random", .9, 1), ([0, 1], [1, 0])),
                        (Cell("tats", .9, 0), ([1, 0], [1, 1])), (Cell("tats", .9, 1), ([1, 1], [1, 1])),
                        (Cell("scratch", 0., 0), ([0, 0], [0, 1]))):
        for plan, own, names in zip(plans, right, clips, strict=True):
            write_cell(plan, cell, own, names, cpu_seconds=10, entropy_share=.9 if cell.method == "tats" else None)
    keep(plans[0], Cell("adamae", .9, 0), Cell("adamae", .9, 0)._asdict())   # another one, not measured yet
    results = Results(plans, 4)
    rows = {(row["method"], row["seed"]): row for row in results.rows()}
    assert [rows[name, seed]["linear"] for name, seed in (("random", 0), ("tats", 0), ("tats", 1))] == [50, 75, 100]
    assert rows["scratch", 0]["linear"] == 25 and rows["adamae", 0]["linear"] is None
    assert rows["tats", 0]["entropy_share"] == .9 and rows["random", 0]["entropy_share"] is None
    assert rows["tats", 0]["cpu_seconds"] == 20   # of both parts
    text = "\n".join(summary(results, results.points(Cell("random", .9, 0), "linear"), pd.DataFrame({"map": []})))
    tats, random = (next(line for line in text.splitlines() if line.startswith(f"| {method} ") and "linear" in line)
                    for method in ("tats", "random"))
    assert "| random  | linear    | +37.5 [" in tats and "| 12.5 " in tats and "| 2 " in tats
    assert "| scratch | linear    | +25.0 [" in random and "| 1 " in random   # one seed is common
    for plan, names in zip(plans, clips, strict=True):   # a second reading, of one of the two seeds
        table = pd.DataFrame(names, columns=["path", "group"]).assign(fold=0, label=0)
        write_answers(answers_file(plan, Cell("tats", .9, 0), "knn"), table, np.zeros(2, int))
    text = "\n".join(summary(Results(plans, 4), results.points(Cell("random", .9, 0), "linear"),
                             pd.DataFrame({"map": []})))
    tats = next(line for line in text.splitlines() if line.startswith("| tats ") and "100.0" in line)
    assert re.search(r"\| 2 +\| 87\.5 \[[^]]*\] +\| 100\.0 \[[^]]*\] \(1\) ", tats), tats


def test_a_policy_is_paired_with_the_errors_of_its_own_model(tmp_path):
    """Clip by clip .3, .1 and .2 above the error map, the fourth, in which nothing moves, left out: 20.0 in .01."""
    plan, cell, clips = parts(tmp_path)[0], Cell("tats", .9, 0), [("1", "a"), ("2", "a"), ("3", "b"), ("4", "c")]
    write_cell(plan, cell, [1, 0, 0, 1], clips)
    table = pd.concat([pd.DataFrame(clips, columns=["path", "group"]).assign(map=name, flow=flow) for name, flow in (
        ("policy", [.5, .3, .2, np.nan]), ("error", [.2, .2, 0., np.nan]), ("error_around", [.6, .4, .3, np.nan]))])
    table.assign(row=0).to_csv(maps_file(plan, cell), index=False)
    results = Results([plan], 4)
    text = "\n".join(summary(results, results.points(cell, "linear"), pd.DataFrame({"map": []})))
    errors, averaged = (line for line in text.splitlines() if " error map" in line)
    assert errors.startswith("| tats ") and "| +20.0 [" in errors
    assert " averaged over neighbours " in averaged and "| -10.0 [-10.0, -10.0] " in averaged


def test_a_cell_that_fails_is_named(tmp_path, monkeypatch):
    def run_one(plan, cell):
        raise ValueError("disk on fire")

    monkeypatch.setattr("tats.engines.compare_clips.cell._run", run_one)
    (failed,) = run(parts(tmp_path)[:1], [Cell("scratch", 0., 3)], jobs=0)
    assert failed == "without-fold0, scratch-r0-seed3: disk on fire"


def test_flow_is_read_from_tokens_by_other_folds_alone():
    """Feature 0 is the rank by flow, feature 1 is noise; in fold 2 the flow is turned round, which nobody else sees."""
    generator, folds = np.random.default_rng(0), np.array([0, 0, 1, 1, 2, -1])
    flow = torch.from_numpy(generator.random((6, 50)))
    tokens = np.stack([ranks(flow).numpy(), generator.normal(size=(6, 50))], axis=2)
    found = read_flow(tokens, flow, folds, (0, 2))
    torch.testing.assert_close(rank_correlation(found, flow)[folds == 0], torch.ones(2, dtype=torch.float64),
                               atol=.01, rtol=0)
    assert found[torch.from_numpy((folds == 1) | (folds == -1))].isnan().all()
    turned = torch.where(torch.from_numpy(folds == 2)[:, None], -flow, flow)
    assert read_flow(tokens, turned, folds, (2,))[4].equal(found[4])
    assert rank_correlation(found, turned)[4] < -.99
