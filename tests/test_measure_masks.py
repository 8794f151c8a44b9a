"""The table of policies before and after training."""

import json

import pytest
import torch
from tats.datasets.program import run_program
from tats.engines import measure_masks
from tats.engines.core.checkpointing import run_names
from tats.engines.figures import inference
from tats.engines.figures.inference import Seen
from tats.engines.measure_masks import Measured, held_out_clips, table
from tats.engines.measure_masks import main as measure
from tats.engines.motion.metrics import MotionMetrics
from tats.engines.pretrain.interface import grid_of, patch_size_of
from tats.engines.pretrain.reconstruction import Reconstruction
from tats.engines.run_mae_pretraining import main as pretrain
from tats.engines.training.batches import ClipBatch
from tats.masking import RandomMasking
from tats.models import create_model


def test_from_checkpoint_to_table(shapes, tmp_path, capsys):
    training = ["--model", "pretrain_tats_tiny", "--data_path", str(shapes / "train.csv"), "--output_dir",
                str(tmp_path), "--batch_size", "8", "--num_workers", "0", "--mask_type", "tats", "--mae_only_epochs",
                "0", "--sampling_rate", "1", "--device", "cpu"]
    pretrain([*training, "--epochs", "1"])
    (tmp_path / "result.json").write_text('{"top1": 37.5}')
    arguments = ["--checkpoint", str(tmp_path / "checkpoint-0.pth"), "--data", str(shapes), "--fine_tuned",
                 str(tmp_path / "result.json"), "--out", str(tmp_path / "masks.json")]
    measure(arguments)
    *head, before, after = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in head] == ["fine-", "tuned", "top-1"] and after.split()[-1] == "37.5"
    assert before.startswith("tats, before") and before.split()[2] == "0.500"  # a zero head is the uniform policy
    records = json.loads((tmp_path / "masks.json").read_text())
    assert records[0]["moving_auroc"] == 0.5 and records[1]["top1"] == 37.5
    with pytest.raises(SystemExit) as stopped:
        run_program(lambda: measure([*arguments, "--fine_tuned", "a.json", "b.json"]))
    assert stopped.value.code == 2 and "2 results for 1" in capsys.readouterr().err.splitlines()[-1]
    (tmp_path / "result.json").write_text('{"top1": 1, "source": {"sha256": "0", "path": "another.pth"}}')
    with pytest.raises(ValueError, match="began with another.pth"):
        measure(arguments)
    (tmp_path / "result.json").write_text('{"top5": 1}')
    with pytest.raises(ValueError, match="result.json"):
        measure(arguments)
    for part, name in (("sampler", "norm.weight"), ("model", "encoder.extra")):   # as another version would write it
        state = torch.load(tmp_path / "checkpoint-0.pth", weights_only=False)
        state[part][name] = torch.ones(3)
        torch.save(state, tmp_path / "other.pth")
        with pytest.raises(ValueError, match=f"{part} .*{name}"):
            measure(["--checkpoint", str(tmp_path / "other.pth"), "--data", str(shapes)])
        with pytest.raises(ValueError, match=name):
            pretrain([*training, "--epochs", "2", "--resume", str(tmp_path / "other.pth")])


def test_the_rows_of_a_shuffled_list_keep_their_truth(shapes):
    mae = create_model("pretrain_tats_tiny")
    before = held_out_clips(shapes, "val", grid_of(mae), .9, mae)
    lines = (shapes / "val.csv").read_text().splitlines(keepends=True)
    other = shapes.parent / "shuffled"
    other.mkdir()
    (other / "val.csv").write_text("".join(reversed(lines[1:])))
    (other / "val.npz").write_bytes((shapes / "val.npz").read_bytes())
    after = held_out_clips(other, "val", grid_of(mae), .9, mae)
    assert len(set(map(bytes, before.moving.numpy()))) > 1   # the clips differ, so that their order shows
    assert torch.equal(after.moving, before.moving[1:].flip(0))
    assert torch.equal(after.textured, before.textured[1:].flip(0))
    (other / "val.csv").write_text("somebody/elses.mp4 0\n")
    with pytest.raises(ValueError, match="elses.mp4"):
        held_out_clips(other, "val", grid_of(mae), .9, mae)


def test_the_error_map_shows_what_is_hardest(shapes, monkeypatch):
    """An error map that is the truth itself finds every moving token before any other."""
    mae = create_model("pretrain_tats_tiny").eval()
    clips, masking = held_out_clips(shapes, "val", grid_of(mae), .9, mae), RandomMasking(grid_of(mae), .9)
    assert int(clips.moving.sum(dim=1).min()) >= masking.num_visible   # so that only moving tokens are shown
    maps = iter(clips.moving.float().split([len(batch.mask) for batch in clips.batches]))
    monkeypatch.setattr(measure_masks, "error_map", lambda *_: next(maps))
    found = measure_masks.measure_error_map(mae, clips, Reconstruction(), masking, 1)
    assert (found.auroc, found.moving_auroc) == (1., 1.)
    assert found.enrichment == pytest.approx(1 / float(clips.moving.float().mean())) and found.texture_enrichment == 0


def test_every_token_of_an_error_map_has_been_hidden(shapes, monkeypatch):
    """Masks that hide a tenth leave most tokens out of one draw; none of them counts as easy for it."""
    mae = create_model("pretrain_tats_tiny").eval()
    batch = held_out_clips(shapes, "val", grid_of(mae), .9, mae).batches[0]
    monkeypatch.setattr(inference, "look", lambda mae, sampler, batch, reconstruction: Seen(
        None, batch.mask, None, torch.ones(len(batch.mask), int(batch.mask[0].sum()))))
    assert (inference.error_map(mae, batch, RandomMasking(grid_of(mae), .1), Reconstruction(), 1) == 1).all()


def test_what_the_fixed_masks_hide_by_hand(shapes, monkeypatch):
    """With an error of 3 at moving tokens and of 1 elsewhere that of the moving ones is 3, and that of all between; a
    model that says a quarter of the truth and half of the background there has a foresight of just that."""
    mae, reconstruction = create_model("pretrain_tats_tiny").eval(), Reconstruction()
    clips = held_out_clips(shapes, "val", grid_of(mae), .9, mae)
    whole, moving = clips.batches[0], {5: clips.moving[:5], 3: clips.moving[5:]}
    behind = {5: clips.backgrounds[0].pixels[:5], 3: clips.backgrounds[0].pixels[5:]}
    parts, backgrounds = ([ClipBatch(*(value if value is None else value[rows] for value in batch))
                           for rows in (slice(5), slice(5, None))] for batch in (whole, clips.backgrounds[0]))

    def look(mae, sampler, batch, reconstruction):
        truth, background = (reconstruction.target(batch._replace(pixels=pixels), batch.mask, patch_size_of(mae))
                             for pixels in (batch.pixels, behind[len(batch.mask)]))
        hidden = moving[len(batch.mask)][batch.mask].view(len(batch.mask), -1)
        prediction = torch.where(hidden[..., None], truth / 4 + background / 2, torch.randn(truth.shape))
        return Seen(torch.rand(batch.mask.shape), batch.mask, prediction, 1. + 2 * hidden)

    monkeypatch.setattr(measure_masks, "look", look)
    found = measure_masks.measure(mae, None, clips._replace(batches=parts, backgrounds=backgrounds), reconstruction)
    assert found.moving_error == 3.
    assert found.fixed_error == pytest.approx(1 + 2 * float(clips.moving[whole.mask].float().mean()))
    assert (found.foreseen, found.filled_in) == pytest.approx((.25, .5), abs=1e-4)


def test_the_table_fits_into_120_columns():
    """Names as long as those of the demo's longest run, and numbers of the largest size."""
    full = Measured(MotionMetrics(.5, .25, .123456, 12.3456, 1.), .5, 1.25, -.001, .125, 100.)
    *head, first, second = table([("adamae-seed0: adamae, after 2304 steps", full),
                                  ("its error map", Measured(full.motion))]).splitlines()
    assert max(map(len, [*head, first, second])) <= 120 and len(head) == 3
    assert first.split()[-10:] == ["0.500", "0.250", "0.123", "12.346", "1.000", "0.500", "1.250", "-0.001", "0.125",
                                   "100.0"]
    assert second.split() == ["its", "error", "map", *first.split()[-10:-5]]   # what was not measured stays empty
    assert [first.rindex(value) + len(value) for value in ("0.500", "1.250")] == [
        head[2].index("mask") + 4, head[2].index("tokens") + 6]   # each under its head
    assert "top-1" not in table([("before", full._replace(top1=None))])


def test_names_in_the_table():
    assert run_names(["out/a/checkpoint-1.pth"]) == ["a"]
    assert run_names(["out/a/x.pth", "out/b/x.pth"]) == ["a", "b"]
    assert run_names(["out/a/run/x.pth", "out/b/run/x.pth"]) == ["a/run", "b/run"]
    assert run_names(["a/x.pth", "a/y.pth"]) == ["a/x.pth", "a/y.pth"]
