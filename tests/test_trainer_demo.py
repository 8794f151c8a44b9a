"""The program behind run_scripts/demo_transformers.sh, in miniature."""

import json

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from tats.engines.hook import trainer_demo  # noqa: E402


def test_it_trains_goes_on_and_measures_what_from_pretrained_gives_back(shapes, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("transformers.trainer.is_datasets_available", lambda: False)   # `datasets` is ours here
    flags = ["--data", str(shapes), "--out", str(tmp_path), "--seed", "1"]
    trainer_demo.main([*flags, "--epochs", "1"])
    first = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert first["steps"] == 1 and json.loads((tmp_path / "result.json").read_text()) == first
    assert abs(first["moving_auroc"] - .5) < .2
    read = []
    monkeypatch.setattr(trainer_demo, "get_last_checkpoint", lambda folder: read.append(folder) or str(
        tmp_path / "checkpoint-1"))
    trainer_demo.main([*flags, "--epochs", "2"])
    assert read == [tmp_path] and json.loads(capsys.readouterr().out.splitlines()[-1])["steps"] == 2


def test_its_model_is_theirs_with_the_first_weights_of_ours():
    torch.manual_seed(0)
    model = trainer_demo.tiny_videomae()
    assert isinstance(model, trainer_demo.VideoMAEForPreTraining) and model.config.num_frames == 16
    assert not model.decoder.head.weight.any()
