"""The benchmark with originals beside ours, and the page of all measurements: folders stand in for the clones."""

import csv
import shlex
import subprocess
import sys
import time

import pytest
import stand_in_clones
from tats.datasets.moving_shapes import ShapesConfig, write_moving_shapes
from tats.datasets.video import decode
from tats.engines.benchmark import __main__ as benchmark
from tats.engines.benchmark import finetune as benchmark_finetune
from tats.engines.benchmark import measurements, originals, page
from tats.engines.benchmark.timing import time_with_children
from tats.engines.config.flags import from_args, given_flags
from tats.models import PretrainVisionTransformer, VisionTransformer, registry

ONCE = ["--pairs", "1", "--warmup", "0", "--batch_size", "1"]
SMALL = [*ONCE, "--model", "small_patch16", "--mask_ratio", "0.9", "--decoder_depth", "1"]
TOKENS = ["--num_frames", "4", "--input_size", "32"]


@pytest.fixture(autouse=True)
def small_models(monkeypatch):
    """The originals know 16 frames of 224 x 224 only: ours must be small by its width."""
    sizes = {"img_size": 224, "patch_size": 16}
    monkeypatch.setitem(registry._TABLE, "small_patch16", (PretrainVisionTransformer, sizes | {
        "encoder_embed_dim": 64, "encoder_depth": 1, "encoder_num_heads": 1, "decoder_embed_dim": 32,
        "decoder_depth": 1, "decoder_num_heads": 1}))
    monkeypatch.setitem(registry._TABLE, "small_classifier", (VisionTransformer, sizes | {
        "embed_dim": 32, "depth": 1, "num_heads": 1}))
    monkeypatch.setattr(benchmark_finetune, "MODEL", "small_classifier")


@pytest.fixture
def clones(tmp_path):
    return {"videomae": stand_in_clones.videomae(tmp_path), "adamae": stand_in_clones.adamae(tmp_path),
            "motionformer": stand_in_clones.motionformer(tmp_path)}


@pytest.fixture
def video(tmp_path):
    write_moving_shapes(ShapesConfig(tmp_path / "shapes", (1, 0, 0), frames=64), workers=1, progress=False)
    return str(next((tmp_path / "shapes").rglob("*.mp4")))


def flags_of(clones):
    return [word for name, path in clones.items() for word in (f"--{name}", path)]


@pytest.mark.parametrize("amp", ["fp32", "bf16"])
def test_a_step_beside_both_originals(clones, amp):
    rows = benchmark.main(["step", *SMALL, "--methods", "tube", "--amp", amp, *flags_of(clones)])
    assert [row["name"] for row in rows] == ["tube", "videomae-original", "adamae-original"]
    assert rows[0]["over_videomae-original"] == pytest.approx(1 / rows[1]["over_tube"])
    assert all(row["seconds"] > 0 and row["amp"] == {"fp32": "float32", "bf16": "bfloat16"}[amp] for row in rows)


def test_a_step_of_an_original_moves_its_weights(clones):
    asked = benchmark.get_parser().parse_args(["step", *SMALL, *flags_of(clones)])
    for build in measurements.originals(from_args(measurements.BenchmarkConfig, asked)).values():
        step = build()
        before = step.model.head.weight.detach().clone()
        step()
        assert not before.equal(step.model.head.weight)


def test_memory_beside_an_original(clones):
    rows = benchmark.main(["memory", *SMALL, "--methods", "tube", "--adamae", clones["adamae"]])
    assert rows[0]["over_adamae-original"] == pytest.approx(rows[0]["saved_mib"] / rows[1]["saved_mib"])


@pytest.mark.parametrize("landmarks", [[], ["--landmarks", "4"]])
def test_attention_beside_motionformer_s(clones, landmarks):
    rows = benchmark.main(["attention", *ONCE, *TOKENS, *landmarks, "--motionformer", clones["motionformer"]])
    assert [row["name"] for row in rows] == ["ours", "motionformer"]
    assert all(row["saved_mib"] > 0 for row in rows) and rows[0]["over_motionformer"] > 0


@pytest.mark.parametrize("views", [[], ["--views"]])
def test_loaders_beside_videomae_s(clones, video, views, capsys):
    rows = benchmark.main(["loader", *ONCE, *views, "--videos", video, "--videomae", clones["videomae"]])
    assert [row["name"] for row in rows] == ["ours", "videomae"] and rows[0]["over_videomae"] > 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("more", "clips"), [([], 1), (["--num_sample", "3", "--decode_timeout", "60"], 3)])
def test_cores_for_clips_are_counted_in_clips_and_with_the_decoder_s_process(video, monkeypatch, more, clips):
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr(measurements, "time_with_children", lambda: next(clock))
    ours, = benchmark.main(["loader", *ONCE, "--videos", video, *more])
    assert ours["processor_seconds"] == 6 / clips and ours["cores_for_1000_clips_a_second"] == 6000 / clips


def test_the_loader_is_measured_on_kept_frames(video, monkeypatch):
    opened, real = [], decode.open_reader
    monkeypatch.setattr(decode, "open_reader", lambda *asked: opened.append(asked) or real(*asked))
    for gigabytes, times in (("0", 4), ("1", 1)):   # 64 frames: read ahead whole
        opened.clear()
        benchmark.main(["loader", "--pairs", "3", "--warmup", "1", "--videos", video, "--cache_decoded", gigabytes])
        assert len(opened) == times and not decode._KEPT


def test_processor_time_includes_that_of_children():
    before = time_with_children(), time.process_time()
    child = subprocess.Popen([sys.executable, "-c", "import time\nwhile time.process_time() < .2: pass\nprint(1)\n"
                              "time.sleep(60)"], stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline()
        spent, own = time_with_children() - before[0], time.process_time() - before[1]
    finally:
        child.kill()
        child.communicate()
    assert spent - own >= .15


def test_fine_tuning_beside_videomae_s(clones):
    rows = benchmark.main(["finetune", *ONCE, "--videomae", clones["videomae"]])
    assert [row["name"] for row in rows] == ["ours", "videomae-original"]
    assert rows[0]["over_videomae-original"] > 0


@pytest.mark.parametrize(("fault", "needed"), [
    ({"package": "no_such_package", "call": "resize"}, "needs no_such_package"),        # at the top of its files
    ({"imports": "import no_such_package.of_frames"}, "needs no_such_package"),         # when it is built
    ({"package": "cv2", "call": "resize"}, "needs cv2, which is not installed: pip install opencv-python-headless"),
    ({"imports": "from timm.models import gone_since"}, "does not go with the timm that is installed"),
    ({"imports": "torch.float_of_old()"}, "fails here: AttributeError: module 'torch' has no attribute"),
    ({"imports": "raise SystemExit(1)"}, "fails here: SystemExit: 1"),
])
def test_an_original_that_does_not_run_here_is_left_out(tmp_path, video, caplog, monkeypatch, fault, needed):
    monkeypatch.setattr(originals, "_exists", lambda name: name in sys.modules and name != "cv2")
    monkeypatch.delitem(sys.modules, "cv2", raising=False)
    clone = stand_in_clones.videomae(tmp_path, **fault)
    ours, theirs = benchmark.main(["loader", "--views", *ONCE, "--videos", video, "--videomae", clone])
    assert ours["seconds"] > 0 and "over_videomae" not in ours
    assert needed in theirs["left_out"] and "\n" not in theirs["left_out"] and "seconds" not in theirs
    assert needed in caplog.text


@pytest.mark.parametrize("what", ["step", "memory", "attention", "finetune"])
def test_every_measurement_goes_on_without_an_original(clones, tmp_path, what):
    for name in ("VideoMAE/modeling_pretrain.py", "VideoMAE/modeling_finetune.py", "adamae/models/pretrain/vit.py",
                 "Motionformer/slowfast/models/vit_helper.py"):
        (tmp_path / name).write_text("import no_such_package\n")
    words = [*ONCE, *TOKENS] if what == "attention" else [*SMALL, "--methods", "tube"]
    asked = {name: path for name, path in clones.items() if (name == "motionformer") == (what == "attention")}
    rows = benchmark.main([what, *words, *flags_of(asked)])
    assert "left_out" not in rows[0] and all("no_such_package" in row["left_out"] for row in rows[1:])
    assert len(rows) == (3 if what in ("step", "memory") else 2)


@pytest.fixture
def quick(monkeypatch):
    """Rows as the measurements make them, whose own tests stand above; the ratio is the number of turns."""
    def ratios(*ours):
        def measure(config):
            clones = [name for name in page.CLONES if getattr(config, name) is not None]
            names = {"motionformer": "motionformer"} | {name: f"{name}-original" for name in ("videomae", "adamae")}
            if config.videos:
                names["videomae"] = "videomae"
            over = {f"{kind}over_{names[name]}": config.pairs + .5 for name in clones for kind in ("", "processor_")}
            return [{"name": name} | over for name in ours or config.methods] + [{"name": names[one]} for one in clones]
        return measure

    curve = {"axis": "frames", "name": "tats", "exponent_processor_seconds": 1.5, "exponent_saved_mib": 1.1}
    for what, measure in {
            "step": ratios(), "memory": ratios(), "attention": ratios("ours"), "loader": ratios("ours"),
            "finetune": ratios("ours"), "growth": lambda _: [{"axis": "frames", "name": "tats"}, curve],
            "threads": lambda config: [{"name": "chosen", "busy_over_alone": config.pairs + .5}]}.items():
        monkeypatch.setitem(measurements.MEASUREMENTS, what, measure)


def test_one_command_measures_the_whole_page(clones, video, tmp_path, quick, monkeypatch):
    out = tmp_path / "page"
    command = ["all", *SMALL, "--out", str(out), "--videos", video]
    rows = benchmark.main([*command, *flags_of(clones)])
    assert {path.name for path in out.iterdir()} == {"summary.md", *(
        f"performance_{name}.csv" for name in page.RUNS)}
    text = (out / "summary.md").read_text()
    lines = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]]
             for line in text.splitlines() if line.startswith("|")}
    for line in page.LINES:
        limit, measured, _, asked, machine, commit = lines[line.title]
        row, = (row for row in csv.DictReader(open(out / f"performance_{line.run}.csv")) if row["name"] == line.name)
        assert measured == f"**{float(row[line.column]):.2f}**"
        assert limit == ("none" if line.limit is None else f"{line.limit:.2f}")
        assert commit == row["commit"] and row["device"] in machine and str(tmp_path) not in asked
    assert lines["the same, lean mode (`--reuse_forward false`)"][1] == "**1.50**"
    assert "| frames | tats       | 1.50             | 1.10" in text
    assert "--amp bf16" in lines["TATS step / AdaMAE's, bf16"][3]

    with pytest.raises(ValueError, match="measured with"):
        benchmark.main([*command, *flags_of(clones), "--pairs", "2"])

    # Started again nothing is measured twice; what is missing is; each CSV says the command that makes it alone.
    monkeypatch.setattr(page, "measured", lambda what, *_: pytest.fail(f"{what} measured twice"))
    assert benchmark.main([*command, *flags_of(clones)]) == [
        {name: str(value) for name, value in row.items()} for row in rows]
    (out / "performance_views.csv").unlink()
    asked = []
    monkeypatch.setattr(page, "measured", lambda what, config, words: asked.append(words))
    benchmark.main([*command, *flags_of(clones)])
    assert len(asked) == 1 and asked[0].startswith("loader --pairs 1 --views")
    assert "not yet" in next(line for line in (out / "summary.md").read_text().splitlines() if "test views" in line)


@pytest.mark.parametrize("name", page.RUNS)
def test_the_command_of_a_line_measures_the_same_alone(name, clones, tmp_path):
    def read(words):
        return from_args(measurements.BenchmarkConfig, benchmark.get_parser().parse_args(words))

    words = ["all", "--out", str(tmp_path / "a page"), "--videos", "a b.mp4", "c.mp4", "--clips", "8",
             *flags_of(clones)]
    config, given = read(words), given_flags(words)
    what, *asked = shlex.split(page.command(name, config, given))
    alone, wanted = read([what, *asked]), page.own_config(name, config, given)
    assert what == page.RUNS[name].what
    assert {key: list(value) if isinstance(value, tuple | list) else value for key, value in vars(alone).items()} == {
        key: list(value) if isinstance(value, tuple | list) else value for key, value in vars(wanted).items()}
    shown = page._shown(page.command(name, config, given))
    assert str(tmp_path) not in shown and shown.endswith({"loader": " FILES", "views": " FILE"}.get(name, shown))


def test_what_the_page_lacks_is_said(clones, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "RUNS", {name: page.RUNS[name] for name in ("loader", "finetune")})
    monkeypatch.setattr(page, "LINES", [line for line in page.LINES if line.run in page.RUNS])
    (tmp_path / "VideoMAE" / "modeling_finetune.py").write_text("import no_such_package\n")
    asked = ["all", *SMALL, "--out", str(tmp_path / "page"), "--videomae", clones["videomae"]]
    for _ in range(2):   # who was left out is tried again
        benchmark.main(asked)
        loader, finetune = (tmp_path / "page" / "summary.md").read_text().splitlines()[-2:]
        assert "no --videos" in loader and "left out: VideoMAE needs no_such_package" in finetune


@pytest.mark.parametrize(("argv", "message"), [
    ([], "--out is missing"),
    (["--out", "page", "--landmarks", "8"], "chooses --landmarks itself"),
    (["--out", "page", "--adamae", "nowhere"], "no clone of the original"),
    (["--out", "page", "--videos", "nowhere.mp4"], "nowhere.mp4 is not there"),
])
def test_bad_input_of_the_page_is_one_line(argv, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        benchmark.main(["all", *argv])
    assert not (tmp_path / "page").exists()
