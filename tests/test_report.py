"""One self-contained page, for one run and for ten."""

import json
import re
from dataclasses import asdict

import pytest
from tats.engines.config.pretraining import SamplerConfig, resolve_recipe
from tats.engines.report import curve, main, page, read_run, told_apart


def a_run(folder, offset=0.0, mask_type="tats"):
    (folder / "pictures").mkdir(parents=True)
    lines = [{"train_loss": 1.0 - epoch / 4 + offset, "epoch": epoch, "step": epoch} for epoch in range(3)]
    (folder / "log.txt").write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = {"settings": {"mask": {"mask_type": mask_type}, "optim": {"epochs": 3}}}
    (folder / "settings.json").write_text(json.dumps(settings))
    for epoch in (0, 2):
        (folder / "pictures" / f"epoch-000{epoch}-clip0.png").write_bytes(b"picture %d" % epoch)
    return folder


@pytest.mark.parametrize("count", [1, 10])
def test_page(tmp_path, count):
    runs = [a_run(tmp_path / f"run{i}<", i / 10, "tats" if i % 2 else "tube") for i in range(count)]
    main([*map(str, runs), "--out", str(tmp_path / "report.html")])
    text = (tmp_path / "report.html").read_text()
    assert text.count("<polyline") == count and text.count("<img") == count   # the newest picture of each
    assert not re.search(r"https?://|<script|<link", text) and "run0&lt;" in text and "run0<" not in text
    assert ("Settings that differ" in text) == (count > 1)
    assert "mask_type" in text if count > 1 else True
    assert "<th>epochs</th>" not in text


def test_curve_by_hand(tmp_path):
    """Losses 1, .75, .5 over epochs 0, 1, 2: a straight line from the upper left to the lower right corner."""
    assert 'points="60.0,15.0 185.0,82.5 310.0,150.0"' in curve("train_loss", [read_run(a_run(tmp_path / "run"))])


def test_a_constant_number_is_labelled_once(tmp_path):
    run = read_run(a_run(tmp_path / "run"))
    drawn = curve("ratio", [run._replace(records=[record | {"ratio": 1.0} for record in run.records])])
    assert drawn.count('text-anchor="end">1<') == 1 and "60.0,82.5 185.0,82.5 310.0,82.5" in drawn


def test_runs_of_one_name_are_told_apart_by_the_folder_above(tmp_path):
    folders = [a_run(tmp_path / place / "out") for place in ("one", "two")] + [a_run(tmp_path / "three")]
    runs = told_apart([read_run(folder) for folder in folders], folders)
    assert [run.name for run in runs] == ["one/out", "two/out", "three"]


def test_alerts_of_the_last_epoch_are_on_the_page(tmp_path):
    run = read_run(a_run(tmp_path / "run"))
    flags = asdict(resolve_recipe(SamplerConfig(sampler_lr=3e-7)))
    stuck = run._replace(settings=flags, records=[*run.records, {"epoch": 3, "train_entropy_share": 0.9,
                                                                 "train_ratio": 1.0, "train_policy_moved": 0.0}])
    assert "stands still" in page([stuck]) and "(3e-07)" in page([stuck])
    assert "Alerts" not in page([run]) and "Alerts" not in page([run._replace(settings=flags)])


def test_folders_that_are_no_runs(tmp_path):
    with pytest.raises(FileNotFoundError, match="log.txt"):
        read_run(tmp_path)
    (tmp_path / "log.txt").write_text("")
    with pytest.raises(ValueError, match="log.txt"):
        read_run(tmp_path)
