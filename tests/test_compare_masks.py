"""The comparison of masking strategies: cells run and are not run twice; tables by hand."""

import contextlib
import csv

import numpy as np
import pandas as pd
import pytest
from tats.datasets.files import write_whole
from tats.datasets.moving_shapes import ShapesConfig, write_moving_shapes
from tats.datasets.video import decode
from tats.engines import measure_masks, run_class_finetuning, run_mae_pretraining
from tats.engines.compare_masks import cell as comparison
from tats.engines.compare_masks import features as comparison_features
from tats.engines.compare_masks.__main__ import main
from tats.engines.compare_masks.asked import run_all
from tats.engines.compare_masks.cell import run_cell
from tats.engines.compare_masks.features import linear_probe
from tats.engines.compare_masks.plan import (
    METHODS,
    SWITCHES,
    TOKENS,
    Cell,
    Plan,
    is_finished,
    keep_settings,
    result_file,
    stored,
)
from tats.engines.compare_masks.table import (
    FEATURES,
    agreement,
    as_frame,
    differences,
    pairs,
    read_csv,
    spread,
    summary,
)
from tats.engines.compare_masks.tokens import Tokens, linear_reading, read_tokens
from tats.engines.comparison_pairs import main as main_of_pairs
from tats.engines.comparison_pairs import shown
from tats.engines.core.records import write_csv

PRETRAIN = """--model pretrain_tats_tiny --data_set moving-shapes --pretrain_aug resize --batch_size 16 --epochs 2
--mae_only_epochs 1 --warmup_epochs 0 --sampler_lr 1e-3 --vis_clips 0 --device cpu"""
FINETUNE = """--model vit_tats_tiny --batch_size 16 --num_sample 1 --epochs 1 --aa none --crop_scale 1 1 --mixup 0
--cutmix 0 --reprob 0 --disable_eval_during_finetuning --device cpu"""

ONCE = set(FEATURES) - {"finetune_few", "finetune_motion_mean"}   # what a cell has without being asked for more


def write_arguments(path, text):
    words = text.split()
    path.write_text("\n".join(words) + "\n")
    return str(path)


@pytest.mark.slow
def test_cells_run_through_all_programs_and_only_once(tmp_path, capsys, monkeypatch):
    write_moving_shapes(ShapesConfig(tmp_path / "data", (32, 32, 32)), workers=1, progress=False)
    arguments = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--ratios", ".9", "--jobs", "0",
                 "--warm_epochs", "1", "--pretrain", write_arguments(tmp_path / "pretrain.args", PRETRAIN),
                 "--finetune", write_arguments(tmp_path / "finetune.args", FINETUNE)]
    main([*arguments, "--methods", "random", "tats", "--seeds", "0"])
    rows = list(csv.DictReader((tmp_path / "out" / "moving_shapes.csv").read_text().splitlines()))
    assert [(row["method"], row["mask_ratio"], row["seed"]) for row in rows] == [
        ("random", "0.9", "0"), ("tats", "0.9", "0")]
    for row in rows:
        assert float(row["visible_tokens"]) == 28   # int(.1 * 288)
        assert all(0 <= float(row[name]) <= 100 for name in ONCE)
    assert rows[0]["entropy_share"] == "" and float(rows[1]["entropy_share"]) > .9
    main([*arguments, "--masks_only", "--tokens", "--methods", "tats-c3-1", "--seeds", "0"])
    table = (tmp_path / "out" / "moving_shapes.csv").read_text()
    *others, row = csv.DictReader(table.splitlines())
    assert [{name: other[name] for name in rows[0]} for other in others] == rows   # cells of earlier calls stay
    assert (row["method"], row["mask_ratio"]) == ("tats-c3-1", "0.9") and row["finetune_motion"] == ""
    assert all(0 < float(row[name]) < 100 for name in TOKENS) and not list((tmp_path / "out").glob("*/tokens.npz"))
    for program in (run_mae_pretraining, run_class_finetuning, measure_masks):
        monkeypatch.setattr(program, "main", lambda *_: pytest.fail("a finished cell was run again"))
    main([*arguments, "--methods", "random", "tats", "--seeds", "0"])
    assert (tmp_path / "out" / "moving_shapes.csv").read_text() == table
    assert "| tats " in capsys.readouterr().out
    assert not decode._KEPT   # nothing of it stays behind in this process


def test_a_cell_that_fails_is_named_and_the_others_stay(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.csv").touch()

    def run(plan, cell):
        if cell.seed == 1:
            raise ValueError("disk on fire")
        (plan.out / cell.name).mkdir(parents=True)
        return cell._asdict() | dict.fromkeys(FEATURES, 50.)

    monkeypatch.setattr("tats.engines.compare_masks.cell._run", run)
    monkeypatch.setattr("tats.engines.compare_masks.__main__.warm_up", lambda _: None)
    (tmp_path / "args").touch()
    with pytest.raises(ValueError, match="1 .*random-r0.9-seed1: disk on fire"):
        main(["--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--ratios", ".9", "--jobs", "0",
              "--methods", "random", "--seeds", "0", "1", "--pretrain", str(tmp_path / "args"),
              "--finetune", str(tmp_path / "args")])
    assert len((tmp_path / "out" / "moving_shapes.csv").read_text().splitlines()) == 2


def test_what_is_measured_is_not_measured_again(tmp_path, monkeypatch):
    plan, cell = Plan(tmp_path, tmp_path, [], [], 1, masks_only=True), Cell("tats", .9, 0)
    result_file(plan, cell).parent.mkdir()
    asked = []
    monkeypatch.setattr(comparison, "_masks", lambda *_: asked.append("masks") or {"fixed_error": .5})
    monkeypatch.setattr(comparison, "measure_features",
                        lambda plan, cell, names: asked.append(names) or dict.fromkeys(names, 50.))
    assert not is_finished(plan, cell)
    numbers = run_cell((plan, cell))
    assert is_finished(plan, cell) and asked == ["masks"] and "finetune_motion" not in numbers
    for more, names in (({"masks_only": False}, ONCE), ({"few_labels": True}, {"finetune_few"}),
                        ({"tokens": True}, set(TOKENS)),
                        ({"finetunings": 3}, {"finetune_motion_2", "finetune_motion_3"})):
        plan = plan._replace(**more)
        assert not is_finished(plan, cell)
        numbers = run_cell((plan, cell))
        assert set(asked.pop()) == names <= set(numbers)
        assert is_finished(plan, cell)
    assert asked == ["masks"]


def test_several_finetunings_have_a_mean(tmp_path):
    plan, cell = Plan(tmp_path, tmp_path, [], [], 1, finetunings=3), Cell("tats", .9, 7)
    assert plan.more_finetunings == {"finetune_motion_2": 1000, "finetune_motion_3": 2000}
    result_file(plan, cell).parent.mkdir()
    result_file(plan, cell).write_text('{"finetune_motion": 40, "finetune_motion_2": 50, "finetune_motion_3": 66}')
    assert stored(plan, cell)["finetune_motion_mean"] == 52
    result_file(plan, cell).write_text('{"finetune_motion": 40, "finetune_few": 30}')
    assert "finetune_motion_mean" not in stored(plan, cell)


def test_few_labels_are_the_first_of_the_list(tmp_path):
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.csv").write_text("".join(f"{split}{number}.mp4 {number % 8}\n" for number in range(300)))
    folder = comparison_features._lists(Plan(tmp_path, tmp_path, [], [], 1), "few", "{}.csv")
    lines = (folder / "train.csv").read_text().splitlines()
    assert (len(lines), lines[0], lines[-1]) == (256, "train0.mp4 0", "train255.mp4 7")
    assert len((folder / "test.csv").read_text().splitlines()) == 300


def test_without_data_one_line_says_how_to_make_them(tmp_path):
    with pytest.raises(ValueError, match="holds no moving shapes: python -m tats.datasets.moving_shapes --out"):
        main(["--data", str(tmp_path), "--out", str(tmp_path), "--pretrain", "x", "--finetune", "x"])


def test_a_file_is_there_whole_or_as_before(tmp_path, monkeypatch):
    path = tmp_path / "cell.json"
    write_whole(path, "before")

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, "after")
    assert path.read_text() == "before"


def test_spread_by_hand():
    assert spread(pd.Series([1., 2., 3., None]), 2) == "2.00 ± 1.00"
    assert spread(pd.Series([1.5]), 1) == "1.5"
    assert spread(pd.Series([None, float("nan")], dtype=float), 1) == "–"


def test_differences_are_paired_by_seed():
    cells = [{"method": method, "mask_ratio": .9, "seed": seed} | dict.fromkeys(FEATURES, value)
             for method, seed, value in (("random", 0, 10.), ("random", 1, 20.), ("tats", 0, 12.), ("tats", 1, 26.),
                                         ("tats", 2, 99.))]
    rows = [line for line in "\n".join(differences(FEATURES, as_frame(cells))).splitlines()
            if line.startswith("| tats")]
    assert rows[0].count("+4.0 ± 2.0") == len(FEATURES)   # (2 + 6) / 2; deviation 2.83 / sqrt(2); seed 2 has no partner
    lines = list(summary(cells))
    assert "## Mask ratio 0.9 (up to 3 seeds)\n" in lines
    text = "\n".join(lines)
    assert "15.0 ± 7.1 (2)" in text and "45.7 ± 46.7  " in text   # random masks have two seeds, tats three
    assert "(2)" not in "\n".join(summary(cells[:4])) and "(2 seeds)" in "\n".join(summary(cells[:4]))


def test_pairs_of_several_tables_and_their_interval(tmp_path, capsys):
    """Differences 2 and 6: mean 4, standard error 2; t of one degree of freedom is tan(.475 pi) = 12.706 at 97.5 %."""
    for name, values in (("a", (10, 12)), ("b", (20, 26))):
        write_csv(tmp_path / f"{name}.csv", [
            {"method": method, "mask_ratio": .9, "seed": 0, "entropy_share": None, "linear_motion": value}
            for method, value in zip(("random", "tats"), values, strict=True)])
    tables = [read_csv(tmp_path / "a.csv"), read_csv(tmp_path / "b.csv")]
    assert tables[0].iloc[1].to_dict() == {"method": "tats", "mask_ratio": .9, "seed": 0, "linear_motion": 12.}
    found = pairs(tables, ["linear_motion", "knn_motion"])
    assert found[["method", "mask_ratio", "linear_motion"]].to_numpy().tolist() == [["tats", .9, 2.], ["tats", .9, 6.]]
    assert found["knn_motion"].isna().all()
    assert shown(pd.Series([2., None, 6.])) == "+4.0 [-21.4, +29.4], 2 of 2"   # 4 ± 25.412
    assert shown(pd.Series([2.])) == "+2.0, 1 of 1" and shown(pd.Series([None], dtype=float)) == "–"
    assert shown(pd.Series([-2., -2.])) == "-2.0 [-2.0, -2.0], 0 of 2"
    main_of_pairs([str(tmp_path / "a.csv"), str(tmp_path / "b.csv")])
    assert capsys.readouterr().out.endswith("""**linear on motion**

| method   | ρ = 0.9                     |
|:---------|:----------------------------|
| tats     | +4.0 [-21.4, +29.4], 2 of 2 |
""")
    for arguments, message in ((["a.csv", "--methods", "tube"], "nothing to pair: no method that was asked for"),
                               (["a.csv", "--baseline", "tube"], "the mask ratio and seed of a cell of tube"),
                               (["list.csv"], "is no moving_shapes.csv of compare_masks"),
                               (["half.csv"], "half.csv is no moving_shapes.csv of compare_masks"),
                               (["words.csv"], "words.csv is no moving_shapes.csv of compare_masks"),
                               (["long.csv"], "long.csv is no moving_shapes.csv of compare_masks"),
                               (["head.csv"], "nothing to pair")):
        for name, rows in (("list", "a.mp4 1\nb.mp4 2\n"), ("half", "random,.9,0.5,1\n"), ("head", ""),
                           ("words", "random,.9,0,much\n"), ("long", "random,.9,0,1,2\n")):
            (tmp_path / f"{name}.csv").write_text("method,mask_ratio,seed,linear_motion\n" * (name != "list") + rows)
        with pytest.raises(ValueError, match=message):
            main_of_pairs([str(tmp_path / arguments[0]), *arguments[1:]])


def test_agreement_is_within_one_deviation_of_the_earlier_file(tmp_path):
    earlier = tmp_path / "moving_shapes.csv"
    earlier.write_text("method,mask_ratio,seed,enrichment,linear_motion,knn_motion,auroc,visible_tokens\n"
                       "tats,0.9,0,1,20,7,.5,28\ntats,0.9,1,2,20,8,.5,28\ntats,0.9,2,3,20,9,.5,28\n"   # 2 ± 1, 20 ± 0
                       "tube,0.9,0,1,1,1,.5,32\n")
    here = {"method": "tats", "mask_ratio": .9, "enrichment": 2.9, "auroc": .5, "visible_tokens": 28.}
    text = list(agreement([here | {"seed": 0, "linear_motion": 20., "knn_motion": 7.},
                           here | {"seed": 1, "linear_motion": 21., "knn_motion": 8.},
                           here | {"seed": 2, "linear_motion": 20.5, "knn_motion": 9.},
                           {"method": "tube", "mask_ratio": .9, "seed": 0, "enrichment": 9.}], earlier))
    assert text[0].startswith(f"2 of 3 means within one standard deviation of {earlier}, 1 of them")
    assert text[1].splitlines()[2:] == ["| tats     | 0.9          | linear_motion | 20.000 ± 0.000 | 20.500 |"]
    with pytest.raises(ValueError, match="no numbers of these cells"):
        list(agreement([here | {"mask_ratio": .95}], earlier))


def test_tables_know_the_old_names_of_numbers():
    """Cells of an earlier version and of this one stand in one column."""
    cells = [{"method": "tats", "mask_ratio": .9, "seed": 0, "value_explained": .25},
             {"method": "tats", "mask_ratio": .9, "seed": 1, "value_explained_variance": .75}]
    assert "0.50 ± 0.35" in "\n".join(summary(cells))


def test_cells_of_other_settings_are_refused(tmp_path):
    arguments = tmp_path / "pretrain.args"
    arguments.write_text("--lr 0.1   # a comment\n")
    plan = Plan(tmp_path, tmp_path, [f"@{arguments}", "--epochs", "2"], [], 1)
    keep_settings(plan)
    keep_settings(plan._replace(pretrain=["--lr", "0.1", "--epochs", "2"], few_labels=True))   # the same words
    with pytest.raises(ValueError, match="--lr 0.1.*--lr 0.2.*--out"):
        keep_settings(plan._replace(pretrain=["--lr", "0.2", "--epochs", "2"]))


def test_ratios_and_seeds_where_none_are_given(tmp_path, monkeypatch):
    """54 cells: five methods at three ratios but frame, which shows the same at all, and five forms of TATS at one."""
    (tmp_path / "data").mkdir()
    for name in ("data/train.csv", "args"):
        (tmp_path / name).touch()
    ran = []
    monkeypatch.setattr("tats.engines.compare_masks.asked.for_each",
                        lambda function, items, *_: ran.append(items) or ())
    arguments = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--pretrain", str(tmp_path / "args"),
                 "--finetune", str(tmp_path / "args")]
    main(arguments)
    cells = [cell for _, cell in ran[1]]
    assert len(cells) == len(set(cells)) == 54 and len(ran[0]) == 3   # and three warm-ups
    assert {cell.mask_ratio for cell in cells if cell.method in ("frame", "tats-mha")} == {.9}
    assert {cell.mask_ratio for cell in cells if cell.method == "tats"} == {.85, .9, .95}
    main([*arguments, "--methods", "frame", "frame", "--ratios", ".8", ".8", "--seeds", "1"])
    assert [cell for _, cell in ran[3]] == [Cell("frame", .8, 1)]
    with pytest.raises(ValueError, match="--epochs 9.*finetune: .*--epochs 7"):
        main([*arguments, "--epochs", "9", "--finetune_epochs", "7"])
    for more, message in ((["--ratios", "90"], "--ratios must lie between 0 and 1, got 90"),
                          (["--jobs", "-1"], "--jobs must be at least 0"),
                          (["--finetune_epochs", "0"], "--finetune_epochs must be at least 1"),
                          (["--against", "nowhere.csv"], "--against nowhere.csv: no such file")):
        with pytest.raises(ValueError, match=message):
            main([*arguments, *more])


def test_the_linear_probe_finds_what_is_linear():
    generator = np.random.default_rng(0)
    labels = {split: generator.integers(0, 3, 90) for split in ("train", "val", "test")}
    centers = 4 * np.eye(3)
    features = {split: centers[labels[split]] + generator.normal(size=(90, 3)) for split in labels}
    assert linear_probe(features, labels) > 95
    noise = {split: generator.normal(size=(90, 3)) for split in labels}
    assert linear_probe(noise, labels) < 60


def test_single_tokens_are_read_by_what_they_show():
    """Of 400 tokens every fifth moves and every fifth shows a still thing; two textures. Feature 0 tells what shows a
    thing, feature 1 half of the textures, none tells what moves."""
    generator, places = np.random.default_rng(0), np.arange(400)
    moving, still, texture = places % 5 == 0, places % 5 == 1, places // 5 % 2
    features = np.stack([2. * (moving | still), texture * (places % 4 < 2), *generator.normal(size=(2, 400))], axis=1)
    tokens = Tokens(features, moving, still, texture)
    found = read_tokens(tokens, tokens)
    assert found["token_things"] == 100 and 40 < found["token_motion"] < 65 and 70 <= found["token_texture"] <= 80
    none = read_tokens(tokens, tokens._replace(features=np.zeros_like(features)))
    assert none == {"token_things": 50, "token_motion": 50, "token_texture": 50}


def test_names_of_cells_differ():
    names = {Cell(method, ratio, seed).name
             for method in METHODS | SWITCHES for ratio in (.85, .9, .95, .975) for seed in (0, 1)}
    assert len(names) == len(METHODS | SWITCHES) * 8


@pytest.mark.parametrize("end", [None, KeyboardInterrupt, SystemExit])
def test_cells_in_this_process_leave_no_decoded_videos_behind(end):
    def keeping(_):
        decode.keep_videos(1)
        assert decode._KEPT
        if end:
            raise end

    with pytest.raises(end) if end else contextlib.nullcontext():
        run_all(keeping, [("", "a", None)], 0, "cells")
    assert not decode._KEPT


@pytest.mark.filterwarnings("error")
def test_features_that_are_nearly_multiples_of_each_other_are_read():
    """As an untrained network's: against the normal equations in double precision."""
    draw = np.random.default_rng(0)
    first = draw.standard_normal((400, 1))
    features = (first + 1e-4 * draw.standard_normal((400, 24))).astype(np.float32)
    target, exact = draw.standard_normal(300), np.float64(features)
    exact = (exact - exact[:300].mean(axis=0)) / exact[:300].std(axis=0)
    weights = np.linalg.solve(exact[:300].T @ exact[:300] + np.eye(24), exact[:300].T @ (target - target.mean()))
    np.testing.assert_allclose(linear_reading(features[:300], target, features[300:]),
                               exact[300:] @ weights + target.mean(), rtol=1e-7)
