"""The benchmark's own arithmetic, and its command at toy size."""

import csv

import pytest
import torch
from tats.engines.benchmark import __main__ as benchmark
from tats.engines.benchmark import finetune as benchmark_finetune
from tats.engines.benchmark import growth as benchmark_growth
from tats.engines.benchmark import measurements
from tats.engines.benchmark.growth import _exponents
from tats.engines.benchmark.measurements import BenchmarkConfig
from tats.engines.benchmark.originals import Clone
from tats.engines.benchmark.timing import LeftOut, SavedBytes, summary, take_turns
from tats.engines.config.flags import from_args

TINY = ["--model", "pretrain_tats_tiny", "--num_frames", "4", "--input_size", "16", "--mask_ratio", "0.75",
        "--decoder_depth", "1", "--pairs", "1", "--warmup", "0"]


def test_contestants_take_turns():
    calls = []
    times = take_turns({name: lambda name=name: calls.append(name) for name in "ab"}, pairs=2, warmup=1)
    assert calls == list("ababab")
    assert [len(times[name]) for name in "ab"] == [2, 2]


def test_ratios_are_medians_of_the_turns():
    rows = summary({"a": [(1, 4), (2, 4), (9, 4)], "b": [(2, 2), (2, 2), (2, 2)]})
    assert rows[0] == {"name": "a", "runs": 3, "seconds": 2, "processor_seconds": 4, "over_b": 1,
                       "processor_over_b": 2}


def test_who_cannot_take_part_is_left_out_and_the_others_go_on():
    def cannot():
        raise LeftOut("needs a package")

    times = take_turns({"a": lambda: None, "b": cannot}, pairs=2)
    ours, theirs = summary(times)
    assert ours["runs"] == 2 and not any("_b" in name for name in ours)
    assert theirs == {"name": "b", "left_out": "needs a package"}


def test_saved_bytes_count_a_storage_once_and_only_while_it_is_held():
    weight = torch.ones(4, 4, requires_grad=True)
    with SavedBytes([weight]) as saved:
        for _ in range(2):                               # the first graph is gone before the second is made
            hidden = torch.ones(8, 4) @ weight           # saves its input, 128 bytes; the weight does not count
            loss = (hidden * hidden).sum()               # saves hidden, twice the same, 128 bytes
            loss.backward()
            del hidden, loss
    assert saved.peak == 256


def test_memory_of_the_lean_mode_is_lower(tmp_path):
    rows = benchmark.main(["memory", *TINY, "--methods", "tats", "tats-lean", "--out", str(tmp_path / "m.csv")])
    assert rows[1]["saved_mib"] < rows[0]["saved_mib"]
    with open(tmp_path / "m.csv", newline="") as file:
        written = list(csv.DictReader(file))
    assert [row["name"] for row in written] == ["tats", "tats-lean"]
    assert {"commit", "torch", "device", "threads", "flags"} <= set(written[0])


def test_plain_attention_keeps_its_weights():
    """B x heads x N^2 numbers a block: of the encoder's visible tokens, of all in the decoder. The values stay."""
    def step_of(*extra):
        config = from_args(BenchmarkConfig, benchmark.get_parser().parse_args(
            ["memory", *TINY, "--methods", "random", *extra]))
        return measurements.step_builders(config)["random"](), measurements.measure_memory(config)[0]["saved_mib"]

    (fused, saved), (plain, more) = step_of(), step_of("--extra", "plain_attention=true")
    tokens, batch = fused.model.encoder.patch_embed.num_patches, len(fused.batch[0])
    visible = (~fused.batch[1][0]).sum()
    weights = sum(batch * block.attn.num_heads * int(count) ** 2 for part, count in
                  ((fused.model.encoder, visible), (fused.model.decoder, tokens)) for block in part.blocks)
    assert (more - saved) * 2**20 == pytest.approx(4 * weights, rel=.1)
    plain.model.load_state_dict(fused.model.state_dict())
    videos = torch.rand(batch, 3, *fused.batch[0].shape[2:])
    torch.testing.assert_close(plain.model(videos, fused.batch[1]), fused.model(videos, fused.batch[1]))


@pytest.mark.parametrize("method", ["tats", "tats-lean", "adamae", "tube"])
def test_no_network_s_weights_count_as_activations(method):
    """Of the sampler neither: every storage that is kept is checked against those of both networks."""
    config = from_args(BenchmarkConfig, benchmark.get_parser().parse_args(["memory", *TINY, "--methods", method]))
    step = measurements.step_builders(config)[method]()
    weights = {one.untyped_storage().data_ptr() for learner in step.learners if learner is not None
               for one in learner.module.parameters()}
    assert {one.untyped_storage().data_ptr() for one in step.parameters()} == weights
    row, = measurements.measure_memory(config)
    counted = {}
    for name, beside in (("all", step.parameters()), ("model", step.model.parameters())):
        with SavedBytes([*beside, *step.batch]) as saved:
            step()
        counted[name] = saved.peak / 2**20
    assert row["saved_mib"] == pytest.approx(counted["all"], rel=.02)
    assert (counted["model"] > counted["all"]) == (step.learners[1] is not None)


def test_whole_steps_move_every_network():
    config = from_args(BenchmarkConfig, benchmark.get_parser().parse_args(["step", *TINY]))
    for name, build in measurements.step_builders(config).items():
        step = build()
        step.learners[0].start(999)   # past the warm-up, whose first rate is 0
        networks = [learner.module for learner in step.learners if learner is not None]
        assert networks[0] is step.model and len(networks) == (1 if name in ("random", "tube") else 2), name
        for learner in step.learners[1:]:
            if learner is not None:
                learner.start(999)
        before = [[one.detach().clone() for one in net.parameters()] for net in networks]
        step()
        for net, weights in zip(networks, before, strict=True):
            assert any(not torch.equal(old, new) for old, new in zip(weights, net.parameters(), strict=True)), name


def test_fine_tuning_steps_are_timed(monkeypatch):
    monkeypatch.setattr(benchmark_finetune, "MODEL", "vit_tats_tiny")
    row, = benchmark.main(["finetune", *TINY, "--batch_size", "2"])
    assert row["name"] == "ours" and row["runs"] == 1 and row["seconds"] > 0


@pytest.mark.parametrize(("argv", "message"), [
    (["loader"], "--videos is missing"),
    (["loader", "--videos", "a.mp4", "--views", "--num_sample", "2"], "leave it out, or --views"),
    (["step", *TINY, "--pairs", "0"], "--pairs must lie in"),
    (["step", "--videomae", "nowhere", *TINY], "16 frames of 224"),
    (["attention", "--motionformer", "nowhere"], "no clone of the original"),
])
def test_bad_input_is_one_line(argv, message):
    with pytest.raises(ValueError, match=message):
        benchmark.main(argv)


def test_a_clone_s_modules_do_not_stay_importable(tmp_path):
    (tmp_path / "utils.py").write_text("from torch._six import inf\nWHO = 'theirs'\n")
    (tmp_path / "engine.py").write_text("import utils\nWHO = utils.WHO\n")
    assert Clone(str(tmp_path), "engine.py").load("engine").WHO == "theirs"
    import sys
    assert "utils" not in sys.modules and "engine" not in sys.modules and "torch._six" not in sys.modules


def test_exponents_by_hand():
    rows = [{"axis": "size", "value": side, "tokens": tokens, "name": "tats", "processor_seconds": tokens ** 1.5,
             "saved_mib": 3. * tokens} for side, tokens in ((16, 100), (32, 400), (64, 1600))]
    found, = _exponents("size", rows)
    assert found["exponent_processor_seconds"] == pytest.approx(1.5)
    assert found["exponent_saved_mib"] == pytest.approx(1)


@pytest.mark.slow
def test_growth_is_measured_and_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark_growth, "AXES", {"frames": (4, 8), "num_landmarks": (4, 8)})
    rows = benchmark.main(["growth", *TINY, "--methods", "tats", "tube", "--pairs", "1", "--out",
                           str(tmp_path / "g.csv")])
    points = [(row["axis"], row["name"], row["value"]) for row in rows if "value" in row]
    assert points == [("frames", "tats", 4), ("frames", "tube", 4), ("frames", "tats", 8), ("frames", "tube", 8),
                      ("num_landmarks", "tats", 4), ("num_landmarks", "tats", 8)]
    assert sum("exponent_saved_mib" in row for row in rows) == 3
    assert (tmp_path / "g.png").stat().st_size > 10_000
