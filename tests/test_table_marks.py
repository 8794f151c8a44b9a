"""A number in a table that is not what its row says has a mark behind it."""

import json
import os

import pytest
from table_runs import METHODS, printed, put_log, put_result
from tats.engines.core.paper_entry import started_from_others


def put_source(root, run, path, **changed):
    about = path.stat()
    source = {"path": str(path), "size": about.st_size, "modified": about.st_mtime_ns, "run": "abc",
              "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"} | changed   # of b"abc"
    result = json.loads((root / run / "result.json").read_text())
    (root / run / "result.json").write_text(json.dumps(result | {"source": source}))


def test_a_result_whose_pretraining_was_made_anew_is_stale(tmp_path, capsys):
    run, made = "tats/finetune_ssv2full_r095", tmp_path / "tats/pretrain_ssv2full_r095"
    put_result(tmp_path, run, 66.0, 88.0)
    made.mkdir()
    weights = made / "checkpoint-399.pth"

    def row():
        out = printed(capsys, tmp_path, "--tables", "9")[1]
        (line,) = [line for line in out.splitlines() if line.startswith("TATS")]
        assert ("stale" in line) == ("made anew since" in out)
        return line

    weights.write_bytes(b"abc")
    put_source(tmp_path, run, weights)
    assert "stale" not in row()
    os.utime(weights, (1, 1))   # copied: another time, the same weights
    assert "stale" not in row()
    weights.write_bytes(b"abd")
    assert "66.00 stale" in row()
    weights.write_bytes(b"abc")
    (made / "settings.json").write_text('{"run": "abc"}')
    assert "stale" not in row()
    weights.unlink()   # deleted for room: nothing is known to have changed
    assert "stale" not in row()
    (made / "settings.json").write_text('{"run": "def"}')
    assert "66.00 stale" in row()


def put_marks(root, run, **result):
    path = root / run / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | result))


@pytest.mark.parametrize(("result", "record", "mark", "note"), [
    ({"identity": "a", "trained_epochs": 100, "epochs": 100}, {"identity": "a"}, "", None),
    ({"identity": "a"}, {"identity": "b"}, "*", "the run has not ended"),   # made anew, and not yet tested
    ({"trained_epochs": 50, "epochs": 100}, {}, "*", "the run has not ended"),
    ({"trained_epochs": 50, "epochs": 100, "test_weights": "best"}, {}, "", None),
    ({"changed": ["lr"]}, {}, " changed", "--change has altered a flag"),
    ({"source": {"path": "/o/tats/pretrain_ssv2full_r095/checkpoint-399.pth", "changed": ["lr"]}}, {}, " changed",
     "--change has altered a flag"),
    ({"source": {"path": "/o/tats/pretrain_ssv2full_r095/c.pth"}}, {}, "", None),
    ({"source": {"path": "/o/videomae/pretrain_ssv2full_r095/c.pth"}}, {}, " other weights", "CHECKPOINT"),
    ({"source": {"path": "/models/c.pth"}}, {}, " other weights", "CHECKPOINT"),
    ({"source": None}, {}, " other weights", "CHECKPOINT")])
def test_what_a_row_is_not_stands_behind_its_number(result, record, mark, note, tmp_path, capsys):
    run = "tats/finetune_ssv2full_r095"
    put_result(tmp_path, run, 66.0, 88.0)
    result = {name: {"size": 0, "modified": 0, "sha256": ""} | value if name == "source" and value else value
              for name, value in result.items()}
    put_marks(tmp_path, run, **result)
    (tmp_path / run / "settings.json").write_text(json.dumps(record))
    out = printed(capsys, tmp_path, "--tables", "9")[1]
    assert f"| 66.00{mark} |" in out
    assert note is None or note in out.splitlines()[-1]


def test_sources_of_rows(tmp_path):
    for run, source in (("tats/transfer_k400_to_ucf101_r085", "tats/pretrain_k400_r085"),
                        ("tats/finetune_3e_2", "tats/pretrain_3e_2"),
                        ("adamae/finetune_ucf101_r095", "adamae/pretrain_ucf101_r095__seed=3")):
        assert not started_from_others(run, f"/out/{source}/checkpoint-1.pth"), run
        assert started_from_others(run, f"/out/{source}__lr=1/checkpoint-1.pth"), run


def test_a_pretraining_that_was_changed_is_named(tmp_path, capsys):
    folder = tmp_path / "tats/pretrain_5_0_1"
    folder.mkdir(parents=True)
    (folder / "log.txt").write_text('{"epoch": 3, "train_fixed_error": 0.61234, "train_loss": 0.5}\n')
    (folder / "finished").touch()
    (folder / "settings.json").write_text(json.dumps({"history": [{"changed": {}}, {"changed": {
        "lr": [1, 2], "batch_size": [4, 2]}}]}))
    assert "0.6123 changed |" in printed(capsys, tmp_path, "--tables", "5")[1]


@pytest.mark.parametrize(("record", "marked"), [
    ({"settings": {"data": {"data_set": "moving-shapes"}, "model": {"model": "vit_base_patch16_224"}}}, True),
    ({"settings": {"data": {"data_set": ""}, "model": {"model": "pretrain_tats_tiny"}}}, True),
    ({"settings": {"data": {"data_set": "UCF101"}, "model": {"model": "vit_base_patch16_224"}},
      "argv": ["run", "@/x/settings/finetune_smoke.args", "--model", "vit_base_patch16_224"]}, True),
    ({"settings": {"data": {"data_set": "UCF101"}}, "history": [{"argv": ["@/settings/pretrain_smoke.args"]}]}, True),
    ({"settings": {"data": {"data_set": "UCF101"}, "model": {"model": "vit_base_patch16_224"}},
      "argv": ["run", "@/smoke/settings/finetune.args"]}, False), ({}, False)])
def test_a_smoke_run_never_looks_like_a_result(record, marked, tmp_path, capsys):
    """Marked by what the run recorded, with no difference to the paper, and still missing for --require."""
    for method in METHODS:
        put_result(tmp_path, f"{method}/finetune_ssv2full_r095", 66.0, 88.25)
    (tmp_path / "tats/finetune_ssv2full_r095/settings.json").write_text(json.dumps(record))
    status, out = printed(capsys, tmp_path, "--tables", "9", "--require")
    (row,) = [line for line in out.splitlines() if line.startswith("TATS")]
    assert ("66.00 SMOKE" in row) == marked == ("the number means nothing" in out) == (status == 1)
    assert ("+0.18" in row) != marked
    put_log(tmp_path, "tats/pretrain_ucf101_r095", 1.5)
    (tmp_path / "tats/pretrain_ucf101_r095/settings.json").write_text(json.dumps(record))
    assert ("1.50 SMOKE" in printed(capsys, tmp_path, "--tables", "3c")[1]) == marked


@pytest.mark.parametrize("run", ["tats/finetune_ssv2full_r095", "tats/pretrain_ssv2full_r095"])
def test_a_row_with_other_lists_is_marked(run, tmp_path, capsys):
    """By the settings file that ANY_SIZE=1 adds to the command; of the pre-training behind a result, too."""
    import torch
    from tats.engines.core.lineage import source_of

    put_result(tmp_path, "tats/finetune_ssv2full_r095", 66.0, 88.0)
    weights = tmp_path / "tats/pretrain_ssv2full_r095/checkpoint-1.pth"
    weights.parent.mkdir(parents=True)
    torch.save({"settings": {"data": {"data_set": "SSV2"}}}, weights)
    assert "66.00 other lists" not in printed(capsys, tmp_path, "--tables", "9")[1]
    (tmp_path / run / "settings.json").write_text(json.dumps({"argv": ["run", "@/x/settings/any_size.args"]}))
    put_marks(tmp_path, "tats/finetune_ssv2full_r095", source=source_of(weights))
    out = printed(capsys, tmp_path, "--tables", "9")[1]
    assert "66.00 other lists" in out and "lists of another length" in out


def test_a_result_from_smoke_weights_is_marked(tmp_path, capsys):
    import torch
    from tats.engines.core.lineage import source_of

    run, weights = "tats/finetune_ssv2full_r095", tmp_path / "tats/pretrain_ssv2full_r095/checkpoint-1.pth"
    weights.parent.mkdir(parents=True)
    for data_set, marked in (("moving-shapes", True), ("SSV2", False)):
        torch.save({"settings": {"data": {"data_set": data_set}}}, weights)
        put_result(tmp_path, run, 66.0, 88.0)
        put_marks(tmp_path, run, source=source_of(weights))
        assert ("66.00 SMOKE" in printed(capsys, tmp_path, "--tables", "9")[1]) == marked
