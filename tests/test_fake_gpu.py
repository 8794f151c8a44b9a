"""Whole programs on a GPU that is not there: no device is mixed, and the host waits nowhere but where it is listed."""

from types import SimpleNamespace

import pytest
import torch
from fake_gpu import DEVICE, backward, fake_gpu
from tats.datasets.lists.epoch_order import EpochSampler
from tats.engines.config.pretraining import Settings
from tats.engines.core import checkpointing
from tats.engines.core.meters import Meters
from tats.engines.core.runtime import Runtime
from tats.engines.run_mae_pretraining import get_parser
from tats.engines.runs import pretraining_run
from tats.models import TrajectoryAttention, create_model

STEPS, BATCH = 23, 4
TINY = ["--data_path", "none", "--model", "pretrain_tats_tiny", "--batch_size", str(BATCH), "--epochs", "2",
        "--mask_ratio", "0.75", "--amp", "bf16", "--warmup_epochs", "0"]


class Loader:
    """The same batch again and again, on the CPU, as a DataLoader gives it."""

    dataset = SimpleNamespace(clip_list=SimpleNamespace(paths=["x"] * 10_000))

    def __init__(self, *batch):
        self.batch = batch

    def __len__(self):
        return STEPS

    def __iter__(self):
        return iter([self.batch] * STEPS)


def pretraining(monkeypatch, tmp_path, argv, saved):
    """A run of two processes on the fake GPU, built inside `fake_gpu`."""
    settings = Settings.from_args(get_parser().parse_args([*TINY, "--output_dir", str(tmp_path), *argv]))

    def batch(mae, count):
        videos = torch.zeros(count, 3, 16, *mae.encoder.img_size, dtype=torch.uint8)
        mask = torch.zeros(count, mae.encoder.patch_embed.num_patches, dtype=torch.bool)
        return videos, mask, torch.zeros(count, dtype=torch.int64)

    def build_loader(settings, where, mae, per_clip):
        order = EpochSampler(STEPS * BATCH * 2, 0, 0, 2)
        monkeypatch.setattr(order, "rows", lambda start, end: [])
        return Loader(*batch(mae, BATCH)), order

    monkeypatch.setattr(pretraining_run, "build_loader", build_loader)
    monkeypatch.setattr(pretraining_run, "read_fixed_clips", lambda settings, mae, stride: batch(mae, 8))
    monkeypatch.setattr(checkpointing, "save_atomically", lambda state, path: saved.append((path, state)))
    return pretraining_run.Pretraining(settings, Runtime(DEVICE, 0, 2, 0))


@pytest.mark.slow
def test_a_run_of_tats_passes_its_first_lines_of_progress(monkeypatch, tmp_path):
    with fake_gpu(monkeypatch):
        saved = []
        pretraining(monkeypatch, tmp_path, ["--mask_type", "tats", "--mae_only_epochs", "1"], saved).run()
        assert [path.name for path, _ in saved] == ["checkpoint-1.pth"]


def test_numbers_of_every_kind_stand_beside_each_other(monkeypatch):
    """A plain number, a tensor of the CPU and one of the GPU, in one line of progress and in one mean."""
    with fake_gpu(monkeypatch) as reads:
        meters = Meters(DEVICE)
        for value in (1, 2.0, torch.tensor(3.0), torch.ones((), device=DEVICE)):
            meters(alone=value, together=torch.ones((), device=DEVICE))
        meters(also=torch.ones(()), number=4)
        assert not reads.log                                   # nothing is asked before somebody reads
        assert set(meters.means(Runtime(DEVICE, 0, 2))) == {"alone", "together", "also", "number"}
        meters.load(meters.state())
        meters(alone=torch.ones((), device=DEVICE))
        meters.means()


def test_values_are_those_of_the_numbers():
    meters = Meters()
    for value in (1, 2.5, torch.tensor(4.5), torch.tensor(float("nan")), None):
        meters(one=value)
    assert meters.means() == {"one": 8 / 3}


@pytest.mark.parametrize("build", [lambda: create_model("pretrain_tats_tiny"),
                                   lambda: TrajectoryAttention(16, 2, qkv_bias=True)], ids=["mae", "attention"])
def test_the_backward_by_hand_is_that_of_the_engine(build):
    net = build()
    if isinstance(net, TrajectoryAttention):
        inputs = torch.randn(2, 12, 16), 3
    else:
        mask = torch.zeros(2, net.encoder.patch_embed.num_patches, dtype=torch.bool)
        mask[:, ::2] = True
        inputs = torch.randn(2, 3, 16, *net.encoder.img_size), mask
    net(*inputs).square().mean().backward()
    wanted = {name: one.grad for name, one in net.named_parameters()}
    net.zero_grad(set_to_none=True)
    backward(net(*inputs).square().mean())
    for name, one in net.named_parameters():
        torch.testing.assert_close(one.grad, wanted[name], msg=lambda text, name=name: f"{name}: {text}")
