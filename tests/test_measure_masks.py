"""The table of policies before and after training."""

import json

import pytest
import torch
from tats.datasets.program import run_program
from tats.engines.measure_masks import main as measure
from tats.engines.run_mae_pretraining import main as pretrain


def test_from_checkpoint_to_table(shapes, tmp_path, capsys):
    training = ["--model", "pretrain_tats_tiny", "--data_path", str(shapes / "train.csv"), "--output_dir",
                str(tmp_path), "--batch_size", "8", "--num_workers", "0", "--mask_type", "tats", "--mae_only_epochs",
                "0", "--sampling_rate", "1", "--device", "cpu"]
    pretrain([*training, "--epochs", "1"])
    (tmp_path / "result.json").write_text('{"top1": 37.5}')
    arguments = ["--checkpoint", str(tmp_path / "checkpoint-0.pth"), "--data", str(shapes), "--fine_tuned",
                 str(tmp_path / "result.json"), "--out", str(tmp_path / "masks.json")]
    measure(arguments)
    header, before, after = capsys.readouterr().out.splitlines()
    assert header.split()[-2:] == ["fine-tuned", "top-1"] and after.split()[-1] == "37.5"
    assert before.startswith("tats, before") and before.split()[2] == "0.500"  # a zero head is the uniform policy
    records = json.loads((tmp_path / "masks.json").read_text())
    assert records[0]["moving_auroc"] == 0.5 and records[1]["top1"] == 37.5
    with pytest.raises(SystemExit) as stopped:
        run_program(lambda: measure([*arguments, "--fine_tuned", "a.json", "b.json"]))
    assert stopped.value.code == 2 and "2 results for 1" in capsys.readouterr().err.splitlines()[-1]
    for part, name in (("sampler", "norm.weight"), ("model", "encoder.extra")):   # as another version would write it
        state = torch.load(tmp_path / "checkpoint-0.pth", weights_only=False)
        state[part][name] = torch.ones(3)
        torch.save(state, tmp_path / "other.pth")
        with pytest.raises(ValueError, match=f"checkpoint's {part} does not fit .*unexpected: {name}"):
            measure(["--checkpoint", str(tmp_path / "other.pth"), "--data", str(shapes)])
        with pytest.raises(ValueError, match=f"does not fit .*unexpected: {name}"):
            pretrain([*training, "--epochs", "2", "--resume", str(tmp_path / "other.pth")])
