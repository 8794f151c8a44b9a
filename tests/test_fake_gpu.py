"""Whole programs on a GPU that is not there: no device is mixed, and the host waits nowhere but where it is listed."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fake_gpu import DEVICE, Batches, backward, fake_gpu
from tats.datasets.lists.epoch_order import EpochSampler
from tats.datasets.lists.list_file import ClipList
from tats.engines.config.pretraining import Settings
from tats.engines.core import checkpointing
from tats.engines.core.meters import Meters
from tats.engines.core.runtime import Runtime
from tats.engines.run_mae_pretraining import get_parser
from tats.engines.runs import pretraining_run
from tats.models import TrajectoryAttention, create_model
from torch.utils._pytree import tree_leaves

STEPS, BATCH = 11, 4
TINY = ["--data_path", "none", "--model", "pretrain_tats_tiny", "--batch_size", str(BATCH), "--epochs", "1",
        "--mask_ratio", "0.75", "--amp", "bf16", "--warmup_epochs", "0", "--print_freq", "4"]


class Clips(Batches):
    """Of a list of 100 rows."""

    dataset = SimpleNamespace(clip_list=ClipList(["x"] * 100, np.zeros(100, np.int64), np.arange(100) + 1, "a list"))


def pretraining(monkeypatch, tmp_path, argv, saved):
    """A run of two processes on the fake GPU, built inside `fake_gpu`."""
    settings = Settings.from_args(get_parser().parse_args([*TINY, "--output_dir", str(tmp_path), *argv]))

    def batch(mae, count):
        videos = torch.zeros(count, 3, 16, *mae.encoder.img_size, dtype=torch.uint8)
        mask = torch.zeros(count, mae.encoder.patch_embed.num_patches, dtype=torch.bool)
        return videos, mask, torch.zeros(count, dtype=torch.int64)

    def clip_loader(settings, here, mae, per_clip):
        order = EpochSampler(STEPS * BATCH * 2, 0, 0, 2)
        monkeypatch.setattr(order, "rows", lambda start, end: [])
        return Clips(*batch(mae, BATCH), count=STEPS), order

    monkeypatch.setattr(pretraining_run, "clip_loader", clip_loader)
    monkeypatch.setattr(pretraining_run, "read_fixed_clips", lambda settings, mae, stride: (batch(mae, 8), []))
    monkeypatch.setattr(checkpointing, "save_atomically", lambda state, path: saved.append((path, state)))
    return pretraining_run.Pretraining(settings, Runtime(DEVICE, 0, 2, 0))


# Where the host may wait for the GPU, and why. "means" and the like stand for the lines of progress and of log.txt.
BETWEEN_STEPS = {
    "meters.py:means": "a line of progress or of log.txt",
    "mae.py:token_order": "the fixed clips at the end of an epoch; no step may, see test_a_step_reads_nothing",
    "diagnostics.py:_totals": "the end of an epoch", "fixed_clips.py:measure": "the end of an epoch",
    "bad_steps.py:check": "every 10 steps, see CHECK_EVERY", "interrupts.py:agreed": "every 10 steps, in all processes",
    "bad_steps.py:<dictcomp>": "the start of a run, a resume", "bad_steps.py:forget": "the start of a run, a resume",
    "runtime.py:any": "after a checkpoint, in all processes",
}
SAVING = {
    "health.py:state": "a checkpoint's counts", "learner.py:state_dict": "the scale of float16's scaler",
    "pretraining_run.py:state": "a checkpoint's c3",
    "meters.py:<dictcomp>": "sums of an unfinished epoch", "meters.py:state": "sums of an unfinished epoch",
    "diagnostics.py:<dictcomp>": "sums of an unfinished epoch", "diagnostics.py:state": "sums of an unfinished epoch",
    "engine_for_pretraining_ppo.py:<listcomp>": "episodes of a checkpoint between two updates",
    "engine_for_pretraining_ppo.py:state": "episodes of a checkpoint between two updates",
}
KL = {"engine_for_pretraining_ppo.py:phase_two": "--target_kl decides on the host after every pass"}
NOT_FUSED = {"learner.py:_step_unless": "an optimiser that cannot leave out a step by itself, and float16's scaler",
             "learner.py:step": "float16's scaler"}
TATS = ["--mask_type", "tats", "--mae_only_epochs", "0"]
RUNS = {
    "random": (["--mask_type", "random"], {}), "tube": (["--mask_type", "tube"], {}),
    "frame": (["--mask_type", "frame"], {}), "adamae": (["--mask_type", "adamae"], {}),
    "tats": (["--mask_type", "tats", "--mae_only_epochs", "1", "--epochs", "2"], {}),
    "paper": ([*TATS, "--tats_recipe", "paper"], {}),
    "lean": ([*TATS, "--reuse_forward", "false"], {}),
    "accumulated": ([*TATS, "--update_freq", "4", "--update_every", "2"], {}),
    "target_kl": ([*TATS, "--update_every", "3", "--ppo_epochs", "2", "--target_kl", ".01"], KL),
    "target_entropy": ([*TATS, "--target_entropy", ".94"], {}),
    "shares": ([*TATS, "--random_share", ".5", "--context_share", ".2", "--ppo_ratio", "resampled"], {}),
    "merge": ([*TATS, "--tats_merge", "2", "1", "1"], {}), "learnable": ([*TATS, "--reward", "learnable"], {}),
    "telling": ([*TATS, "--reward", "telling"], {}), "progress": ([*TATS, "--reward", "progress"], {}),
    "lasting": ([*TATS, "--reward", "lasting", "--reward_reach", "1"], {}), "easy": ([*TATS, "--reward", "easy"], {}),
    "blocks": ([*TATS, "--tats_block", "1", "2", "2"], {}),
    "clip": ([*TATS, "--reward", "clip", "--adv_norm", "batch"], {}),
    "orthoformer": ([*TATS, "--tats_approx", "orthoformer", "--num_landmarks", "16"], {}),
    "triton": ([*TATS, "--trajectory_kernel", "triton"], {}),
    "joint": ([*TATS, "--tats_attention", "mha", "--tats_depth", "2"], {}),
    "fp32": ([*TATS, "--amp", "fp32", "--clip_grad", "1"], {}),
    "fp16": ([*TATS, "--amp", "fp16"], NOT_FUSED),
    "sgd": ([*TATS, "--opt", "sgd"], NOT_FUSED),
}


def unexpected(reads, allowed):
    """What the host waited for beyond what is listed."""
    return sorted({(kind, place) for kind, place in reads.log if place not in allowed})


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_run_mixes_no_devices_and_waits_between_steps_alone(name, monkeypatch, tmp_path):
    argv, allowed = RUNS[name]
    saved = []
    with fake_gpu(monkeypatch) as reads:
        run = pretraining(monkeypatch, tmp_path, argv, saved)
        assert not reads.log["read", "?"]
        reads.log.clear()
        run.run()
        moved = {one.device.type for learner in run.learners.values() for one in learner.module.parameters()}
    assert moved == {"cuda"} and saved
    assert not unexpected(reads, BETWEEN_STEPS | SAVING | allowed)


@pytest.mark.parametrize("name", ["tats", "tube", "adamae", "merge", "blocks", "learnable", "telling", "progress",
                                  "lasting", "easy", "clip"])
def test_a_step_reads_nothing(name, monkeypatch, tmp_path):
    """A step of maskings and rewards, the first look at the meters apart."""
    with fake_gpu(monkeypatch) as reads:
        run = pretraining(monkeypatch, tmp_path, [*RUNS[name][0], "--mae_only_epochs", "0"], [])
        monkeypatch.setattr(run, "after_step", lambda: None)
        monkeypatch.setattr(run, "check_steps", lambda: reads.log.update({("read", "the last step's end"): 1}))
        run.fixed, run.flags = None, replace(run.flags, print_freq=10_000)
        reads.log.clear()
        with pytest.raises(StopIteration):
            monkeypatch.setattr(run.meters, "means", stop)
            run.train_epoch()
    assert set(reads.log) == {("read", "the last step's end")}


def stop(*_):
    raise StopIteration


@pytest.mark.slow
def test_a_run_goes_on_within_the_policys_phase(monkeypatch, tmp_path):
    saved = []
    # The answer of all processes is read from the GPU, where there are no numbers.
    monkeypatch.setattr(Runtime, "any", lambda self, flag: bool(flag))
    monkeypatch.setattr(checkpointing, "load", lambda path: dict(saved)[path])
    with fake_gpu(monkeypatch) as reads:
        argv = [*TATS, "--save_every_steps", "4", "--update_every", "3"]   # one episode waits at step 4
        pretraining(monkeypatch, tmp_path, argv, saved).run()
        path, state = next(pair for pair in saved if "step" in pair[0].name)
        cpu = [one.device for one in tree_leaves(state["progress"]) if isinstance(one, torch.Tensor)]
        assert set(cpu) == {torch.device("cpu")} and len(saved) > 2
        again = pretraining(monkeypatch, tmp_path, argv, saved)
        reads.log.clear()
        again._go_on(state, path, [])
        kept, = again.buffer
        assert {one.device.type for one in kept if isinstance(one, torch.Tensor)} == {"cuda"}
        again.run()
    assert not unexpected(reads, BETWEEN_STEPS | SAVING | RESUMING)


RESUMING = {"health.py:load": "a resume's counts", "health.py:<genexpr>": "a resume's counts",
            "ppo.py:value": "a resume's c3", "meters.py:load": "a resume's sums",
            "meters.py:<dictcomp>": "a resume's sums", "diagnostics.py:load": "a resume's sums",
            "engine_for_pretraining_ppo.py:<genexpr>": "a resume's episodes",
            "engine_for_pretraining_ppo.py:load": "a resume's episodes",
            "learner.py:load_state_dict": "a resume's optimiser", "checkpoints.py:load_exactly": "a resume's weights"}


def test_a_tensor_of_the_cpu_in_a_collective_is_found(monkeypatch):
    with fake_gpu(monkeypatch), pytest.raises(RuntimeError, match="all_reduce of a tensor on cpu"):
        Runtime(DEVICE, 0, 2).mean(torch.zeros(3))


def test_a_read_is_found(monkeypatch):
    with fake_gpu(monkeypatch) as reads:
        number = torch.zeros(3, device=DEVICE)
        for read in (lambda: number.sum().item(), lambda: bool(number.any()), number.tolist, number.cpu,
                     lambda: torch.zeros(3).to(DEVICE)):
            reads.log.clear()
            read()
            assert reads.log, read
        reads.log.clear()
        torch.zeros(3).to(DEVICE, non_blocking=True)
        assert not reads.log


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
