"""The classifier as an ONNX file: the same logits for any batch, the names of its classes; and what is refused."""

import json

import pytest
import torch
from tats.models import create_model, export_onnx

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

MODEL = {"num_classes": 3, "img_size": 16, "all_frames": 4, "init_scale": 1.0}


@pytest.mark.slow
def test_a_checkpoint_becomes_a_file_of_the_same_logits(tmp_path):
    net = create_model("vit_tats_tiny", **MODEL).eval()
    torch.save({"model": net.state_dict(), "config": {"name": "vit_tats_tiny", "kwargs": MODEL},
                "class_names": ["a", 'b, "c"', "猫"]}, tmp_path / "c.pth")
    with pytest.raises(SystemExit) as end:
        export_onnx.main([str(tmp_path / "c.pth"), str(tmp_path / "o" / "c.onnx")])
    assert end.value.code == 0 and [path.name for path in (tmp_path / "o").iterdir()] == ["c.onnx"]
    clips = torch.randn(5, 3, 4, 16, 16)
    session = onnxruntime.InferenceSession(str(tmp_path / "o" / "c.onnx"), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(session.run(["logits"], {"videos": clips.numpy()})[0]), net(clips),
                                   atol=1e-5, rtol=1e-4)
    metadata = {entry.key: entry.value for entry in onnx.load(tmp_path / "o" / "c.onnx").metadata_props}
    assert json.loads(metadata["class_names"]) == ["a", 'b, "c"', "猫"]


def test_what_is_refused(tmp_path, capsys, monkeypatch):
    torch.save({"model": create_model("pretrain_tats_tiny").state_dict(),
                "config": {"name": "pretrain_tats_tiny", "kwargs": {}}}, tmp_path / "mae.pth")
    with pytest.raises(SystemExit) as end:
        export_onnx.main([str(tmp_path / "mae.pth"), str(tmp_path / "m.onnx")])
    assert end.value.code == 2 and "no classifier" in capsys.readouterr().err
    monkeypatch.setattr(export_onnx, "_NEEDED", ("nosuchpackage",))
    with pytest.raises(ValueError, match="pip install nosuchpackage"):
        export_onnx.export_classifier(create_model("vit_tats_tiny", **MODEL), tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.slow
def test_another_network_is_noticed(tmp_path, monkeypatch):
    """With the exported network's weights changed behind its back nothing is written."""
    net = create_model("vit_tats_tiny", **MODEL).eval()
    difference = export_onnx._difference

    def changed(net, path, clips):
        with torch.no_grad():
            net.head.bias.add_(1)
        return difference(net, path, clips)

    monkeypatch.setattr(export_onnx, "_difference", changed)
    with pytest.raises(ValueError, match="other logits"):
        export_onnx.export_classifier(net, tmp_path / "o" / "c.onnx")
    assert list((tmp_path / "o").iterdir()) == []
