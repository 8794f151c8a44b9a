"""One self-contained page, for one run and for ten."""

import json
import math
import re
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import pytest
from markupsafe import Markup
from tats.engines.config.pretraining import SamplerConfig, resolve_recipe
from tats.engines.core import metrics
from tats.engines.core.metrics import AUTOENCODER, CLASSIFIER, COST, MASKS, METRICS, POLICY, PPO, Metric
from tats.engines.figures.style import COLOURS, ON_DARK, line_style
from tats.engines.report import page as report_page
from tats.engines.report.__main__ import main
from tats.engines.report.charts import chart
from tats.engines.report.page import OTHERS, groups, page, shown
from tats.engines.report.runs import read_run, read_runs

DEMO = (Path(__file__).parent / "data" / "demo_log.txt").read_text()
HOSTILE = "<script>alert(1)<!--\"'&{{ 7 * 7 }}"


def put_log(folder, *records):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.txt").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def a_run(folder, offset=0.0, mask_type="tats"):
    put_log(folder, *({"train_loss": 1.0 - epoch / 4 + offset, "epoch": epoch, "step": epoch} for epoch in range(3)))
    (folder / "pictures").mkdir()
    settings = {"settings": {"mask": {"mask_type": mask_type}, "optim": {"epochs": 3}}}
    (folder / "settings.json").write_text(json.dumps(settings))
    for epoch in (0, 9999, 10000):
        (folder / "pictures" / f"epoch-{epoch:04d}-clip0.png").write_bytes(b"picture %d" % epoch)
    return folder


def a_fine_tuning(folder):
    return put_log(folder, *({"train_loss": 2.0, "train_class_acc": .5, "val_acc1": 10.0 + epoch, "epoch": epoch}
                             for epoch in range(2)))


@pytest.fixture
def undrawn(monkeypatch):
    """Pages whose words are looked at need no curves, which take a tenth of a second each."""
    monkeypatch.setattr(report_page, "chart", lambda key, name, lines: Markup("<svg></svg>"))
    monkeypatch.setattr(report_page, "swatch", lambda place, number: Markup("<svg></svg>"))


def headings(text):
    return re.findall(r'<h2 id="question\d+">(.*?)</h2>', text)


@pytest.mark.parametrize("count", [1, 10])
def test_page(tmp_path, count):
    runs = [a_run(tmp_path / f"run{i}", i / 10, "tats" if i % 2 else "tube") for i in range(count)]
    main([*map(str, runs), "--out", str(tmp_path / "new" / "report.html")])
    text = (tmp_path / "new" / "report.html").read_text()
    assert text.count("<img") == count and text.count("cGljdHVyZSAxMDAwMA") == count   # the newest: "picture 10000"
    assert ("Settings that differ" in text) == (count > 1) and ("<th>mask_type</th>" in text) == (count > 1)
    assert "<th>epochs</th>" in text and "<td>3 of 3</td>" in text
    for number in range(count):
        assert text.count(f"var(--run{number})") >= 3   # in the legend, in the table, in the chart
    assert "0.5</td>" in text and ("1.4</td>" in text) == (count > 1)   # last losses


def test_the_page_needs_no_network_and_fits_a_phone(tmp_path):
    text = page(read_runs([a_run(tmp_path / "run"), a_fine_tuning(tmp_path / "tuned")]))
    assert not re.search(r"https?:|<script|<link|@import|url\((?!#)|src=\"(?!data:)", text)
    assert '<meta name="viewport" content="width=device-width,initial-scale=1">' in text
    style = text[text.index("<style>"):text.index("</style>")]
    assert "prefers-color-scheme: dark" in style and all(colour in style for colour in (*COLOURS, *ON_DARK))
    assert not re.search(r"[{; ](min-|max-)?width: *\d+px", style)
    wide = [(rule.strip(), float(least)) for rule, least in
            re.findall(r"([^{}]*)\{[^{}]*[; {]min-width: *([\d.]+)rem", style)]
    assert {rule for rule, least in wide if least > 10} == {".wide img"}   # what is wide scrolls inside the page
    assert text.count('<div class="wide"><table') == text.count("<table") == 3
    assert text.count('<div class="wide"><img') == text.count("<img") == 1
    ids = re.findall(r' id="([^"]*)"', text)
    assert len(ids) == len(set(ids)) > 10
    drawn = text[text.index('<div class="charts">'):]
    assert "currentColor" in drawn and "#010203" not in drawn
    assert not set(COLOURS) & set(re.findall("#[0-9a-f]{6}", drawn))


def test_numbers_stand_under_their_questions(undrawn, tmp_path):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "log.txt").write_text(DEMO)
    text = page(read_runs([tmp_path / "demo", a_fine_tuning(tmp_path / "tuned")]))
    assert headings(text) == [AUTOENCODER, POLICY, PPO, MASKS, CLASSIFIER, COST]
    place = {name: text.index(f"<h3>{name}</h3>") for name in (
        "fixed_error", "entropy_share", "clip_fraction", "mask_overlap", "val_acc1", "data_share")}
    assert list(place) == sorted(place, key=place.get)
    assert text.count("<h3>loss</h3>") == 2   # the autoencoder's and the classifier's
    numbers = {name for record in map(json.loads, DEMO.splitlines()) for name in record} - {"epoch", "step"}
    assert text.count("<h3>") == len(numbers) + 3
    for metric in METRICS:
        if f"<h3>{metric.name}</h3>" in text:
            assert str(metrics.find_metric(metric.name).good).replace("'", "&#39;") in text


def test_old_and_new_names_are_one_number(tmp_path):
    old = put_log(tmp_path / "old", {"epoch": 0, "train_explained": .25, "train_value_explained": -1.0})
    new = put_log(tmp_path / "new", {"epoch": 0, "train_explained_variance": .5, "train_value_explained_variance": .1})
    found = groups(read_runs([old, new]))
    assert [(group.question, [(name, [float(own.iloc[-1]) for own in values]) for name, _, values in group.numbers])
            for group in found] == [(AUTOENCODER, [("explained_variance", [.25, .5])]),
                                    (PPO, [("value_explained_variance", [-1., .1])])]


def test_a_user_s_own_numbers(undrawn, tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "METRICS", list(METRICS))
    run = put_log(tmp_path / "run", {"epoch": 0, "train_loss": 1.0, "train_mine": 3.25, "other": 2, "yes": True,
                                     "note": "text", "lists": [1]})
    text = page(read_runs([run]))
    assert headings(text) == [AUTOENCODER, OTHERS] and "3.25</td>" in text
    assert "<h3>train_mine</h3>" in text and "<h3>other</h3>" in text
    assert not {"yes", "note", "lists"} & set(re.findall("<h3>(.*?)</h3>", text))
    metrics.register_metric(Metric("mine", "Is it mine?", "It is what I measure.", "It rises."))
    text = page(read_runs([run]))
    assert headings(text) == [AUTOENCODER, "Is it mine?", OTHERS] and "It is what I measure." in text


def test_a_plugin_explains_its_numbers(undrawn, tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "METRICS", list(METRICS))
    (tmp_path / "mine.py").write_text("from tats.engines.core.metrics import PPO, Metric, register_metric\n"
                                      "register_metric(Metric('mine', PPO, 'It is mine.', 'It rises.', ('my',)))\n")
    run = put_log(tmp_path / "run", {"epoch": 0, "train_my": 3.25})
    main([str(run), "--out", str(tmp_path / "report.html"), "--plugin", str(tmp_path / "mine.py")])
    text = (tmp_path / "report.html").read_text()
    assert headings(text) == [PPO] and "<h3>mine</h3>" in text and "It is mine." in text


def test_alerts_of_the_last_epoch_are_on_the_page(undrawn, tmp_path):
    run = read_run(a_run(tmp_path / "run"))
    flags = asdict(resolve_recipe(SamplerConfig(sampler_lr=3e-7)))
    stuck = replace(run, settings=flags, records=[*run.records, {
        "epoch": 3, "train_entropy_share": 0.9, "train_ratio": 1.0, "train_policy_moved": 0.0}])
    text = page([stuck])
    assert "stands still" in text and "(3e-07)" in text and '<a href="#alerts">1</a>' in text
    for silent in (run, replace(run, settings=flags)):
        assert "<p>None.</p>" in page([silent]) and "<td>none</td>" in page([silent])


def test_alerts_know_the_old_names(undrawn, tmp_path):
    run = put_log(tmp_path / "run", {"epoch": 0, "train_value_explained": -0.5})
    flags = asdict(replace(resolve_recipe(SamplerConfig()), adv_norm="none"))
    (run / "settings.json").write_text(json.dumps({"settings": {"sampler": flags}}))
    assert "worse than the mean" in page(read_runs([run]))


def test_hostile_names_are_text(tmp_path):
    run = a_run(tmp_path / HOSTILE.replace("/", ""))
    put_log(run, {"epoch": 0, HOSTILE: 1.0})
    (run / "settings.json").write_text(json.dumps({"settings": {"mask": {"mask_type": HOSTILE, HOSTILE: 1}}}))
    text = page(read_runs([run, a_run(tmp_path / "other")]))
    assert "<script" not in text and "<!--" not in text and "{{ 7 * 7 }}" in text and "&lt;script&gt;" in text
    assert not re.search(r'"[^"<>]*&lt;script&gt;alert\(1\)&lt;!--"', text)   # the quote would end an attribute


def test_a_chart_by_hand(tmp_path):
    """Losses 1, .75, .5 over epochs 0, 1, 2: a straight line, with a marker at each, ticks and labels."""
    values = read_run(a_run(tmp_path / "run")).numbers["train_loss"]
    svg = chart("a", "loss", {3: ("the run", values)})
    line, = (re.findall(r"-?\d+\.?\d*", path) for path in re.findall(r'<path d="([^"]*)" clip-path[^>]*--run3', svg))
    (x0, y0), (x1, y1), (x2, y2) = zip(map(float, line[::2]), map(float, line[1::2]), strict=True)
    assert (x0 + x2) / 2 == pytest.approx(x1, abs=.01) and (y0 + y2) / 2 == pytest.approx(y1, abs=.01) and y0 < y2
    assert re.findall(r"<text[^>]*>(.*?)</text>", svg)[:4] == ["0", "1", "2", "epoch"] and ">loss</text>" in svg
    assert 'aria-label="loss by epoch; last: the run 0.5"' in svg


def test_charts_of_what_is_no_number_or_far_away(tmp_path):
    run = read_run(put_log(tmp_path / "run", *(
        {"epoch": epoch, "gap": value, "far": far, "same": 1.0, "never": float("nan")}
        for epoch, (value, far) in enumerate([(1.0, -1000.0), (float("inf"), 1.0), (2.0, 1.0), (1.0, 1.0)]))))
    drawn = {name: chart(name, name, {0: (run.name, values)}) for name, values in run.numbers.items()}
    assert "log scale" in drawn["far"] and not [name for name in drawn if name != "far" and "log scale" in drawn[name]]
    paths = re.findall(r'<path d="([^"]*)" clip-path[^>]*--run0', drawn["gap"])
    assert [path.count("M") for path in paths] == [2]
    text = page([run])
    assert "<h3>never</h3>" not in text and re.search(r"never</th><td>–</td>", text)


@pytest.mark.parametrize("name", ["$x$", r"cost_in_$\frac$", "a" * 500, "ü", "a_$"])
def test_any_name_of_a_number_is_drawn(tmp_path, name):
    run = read_run(put_log(tmp_path / "run", {"epoch": 0, name: 1.0}))
    text = page([run])
    svg = text[text.rindex("<svg role"):text.rindex("</svg>")]
    assert f"<h3>{name}</h3>" in text and f">{name[:20]}" in svg


def test_runs_are_told_apart_without_colour():
    styles = [line_style(number) for number in range(28)]
    assert len({(str(style["linestyle"]), style["marker"]) for style in styles}) == 28
    assert len({style["color"] for style in styles[:10]}) == 10


def test_numbers_as_shown():
    assert [shown(value) for value in (1 / 3, 72.0, 5, None, "a", True)] == ["0.3333", "72", "5", "–", "a", "True"]
    epochs = {"whole": [1., 2., 3.], "stopped": [1., 2., math.nan], "never": [math.nan] * 3}
    assert [shown(pd.Series(values, [4, 5, 6])) for values in epochs.values()] == ["3", "2 (epoch 5)", "–"]


def test_settings_are_compared_within_a_kind(undrawn, tmp_path):
    runs = [a_run(tmp_path / "a"), a_run(tmp_path / "b", mask_type="tube"), a_fine_tuning(tmp_path / "c")]
    (runs[2] / "settings.json").write_text('{"settings": {"model": {"fc_drop_rate": 0.5}}}')
    text = page(read_runs(runs))
    assert "<th>mask_type</th>" in text and "fc_drop_rate" not in text


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path):
    folders = [a_run(tmp_path / place / "out") for place in ("one", "two", "x/three", "y/three")]
    folders.append(a_run(tmp_path / "four"))
    assert [run.name for run in read_runs(folders)] == [
        "one/out", "two/out", str(tmp_path / "x/three/out"), str(tmp_path / "y/three/out"), "four"]
    with pytest.raises(ValueError, match="given twice"):
        read_runs([folders[0], folders[0]])


@pytest.mark.parametrize(("name", "text", "message"), [
    ("log.txt", "", "empty"),
    ("log.txt", "\n\n", "empty"),
    ("log.txt", '{"epoch": 0}\n{"epo\n{"epoch": 2}\n', "log.txt, line 2: not a JSON record with an epoch"),
    ("log.txt", '{"loss": 0}\n', "line 1"),
    ("log.txt", '[1]\n', "line 1"),
    ("log.txt", '{"epoch": "0"}\n', "line 1"),
    ("settings.json", "{", "settings.json is not the settings.json of a run"),
    ("settings.json", "{}", "settings.json is not"),
    ("settings.json", '{"settings": [1]}', "settings.json is not"),
    ("settings.json", '{"settings": {"a": 1}}', "settings.json is not"),
])
def test_files_that_are_none_of_a_run(tmp_path, name, text, message):
    folder = a_run(tmp_path / "run")
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_run(folder)


def test_a_torn_last_line_is_left_out(tmp_path, caplog):
    folder = a_run(tmp_path / "run")
    with open(folder / "log.txt", "a") as file:
        file.write('{"epoch": 3, "train_l')
    assert len(read_run(folder).records) == 3 and "torn" in caplog.text


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="no log.txt"):
        read_run(tmp_path)


def test_null_and_the_nan_of_earlier_logs_are_not_there(tmp_path):
    """Both are read, by the report, its alerts and the tables; neither is a number."""
    from tats.engines.core.results import last_number, peak_memory
    from tats.engines.report.runs import read_run

    (tmp_path / "settings.json").write_text('{"settings": {"sampler": {"ppo_epochs": 3}}}')
    for word in ("null", "NaN", "Infinity"):
        (tmp_path / "log.txt").write_text(
            f'{{"epoch": 0, "train_loss": 2.0, "peak_memory_gb": {word}}}\n'
            f'{{"epoch": 1, "train_loss": {word}, "train_clip_fraction": {word}, "train_ratio": {word}}}\n')
        run = read_run(tmp_path)
        assert run.numbers["train_loss"].isna().tolist() == [False, True] and run.alerts == []
        assert last_number(tmp_path, "train_loss") is None and peak_memory(tmp_path) is None


def test_the_log_is_json(tmp_path):
    from tats.engines.config.common import RunConfig
    from tats.engines.core.logs import RunLog

    def refuse(word):
        raise AssertionError(word)

    with RunLog(RunConfig(output_dir=str(tmp_path))) as log:
        log.epoch({"epoch": 0, "a": float("nan"), "b": [1.0, -float("inf")], "c": {"d": float("inf")}, "e": 1.5})
    assert json.loads((tmp_path / "log.txt").read_text(), parse_constant=refuse) == {
        "epoch": 0, "a": None, "b": [1.0, None], "c": {"d": None}, "e": 1.5}
