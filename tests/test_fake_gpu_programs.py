"""Fine-tuning and a fork's engine on a GPU that is not there, see test_fake_gpu."""

import argparse
from types import SimpleNamespace

import pytest
import torch
from fake_gpu import DEVICE, Batches, fake_gpu
from tats.datasets.lists.epoch_order import EpochSampler
from tats.engines import engine_for_finetuning, fork
from tats.engines.config.finetuning import Settings
from tats.engines.core import checkpointing
from tats.engines.core.runtime import Runtime
from tats.engines.run_class_finetuning import get_parser
from tats.engines.runs import evaluator, finetuning_run
from tats.masking import MASKINGS, TokenGrid, find_masking
from tats.models import create_model

STEPS, CLASSES = 11, 4
ALLOWED = {
    "meters.py:means": "a line of progress or of log.txt", "bad_steps.py:check": "every 10 steps",
    "interrupts.py:agreed": "every 10 steps, in all processes", "bad_steps.py:forget": "the start of a run",
    "bad_steps.py:<dictcomp>": "the start of a run", "runtime.py:any": "after a checkpoint",
    "health.py:<genexpr>": "a network for evaluation is made", "health.py:state": "a checkpoint's counts",
    "learner.py:state_dict": "the scale of float16's scaler",
    "learner.py:weights": "a checkpoint's weights",
    "evaluation.py:_gather": "the end of a validation or test", "diagnostics.py:_totals": "the end of an epoch",
}
FORK = {"batches.py:__init__": "the normaliser, at the start of an epoch",
        "fork.py:backward": "VideoMAE ends a run whose loss is not finite at once, and so does its engine here",
        "incoming.py:batch": "once: how many tokens the loader's masks hide",
        "first_batch.py:_look_at_videos": "once: whether the first batch is normalised"}
CPU_AVERAGE = {"averaging.py:apply_update_": "--model_ema_force_cpu copies the weights in every step"}
FP16 = {"learner.py:_step_unless": "float16's scaler", "learner.py:step": "float16's scaler"}
RUNS = {
    "plain": ([], {}), "no mixing": (["--mixup", "0", "--cutmix", "0", "--reprob", "0"], {}),
    "erasing": (["--reprob", "1"], {"mixing.py:__call__": "timm draws an erased box's noise on the CPU"}),
    "average": (["--model_ema"], {}), "average on the CPU": (["--model_ema", "--model_ema_force_cpu"], CPU_AVERAGE),
    "fp16": (["--amp", "fp16"], FP16), "accumulated": (["--update_freq", "2", "--clip_grad", "1"], {}),
    "linear": (["--eval_mode", "linear"], {}),
}


def finetuning(monkeypatch, folder, argv, saved):
    size = 24
    for split in ("train", "val", "test"):
        (folder / f"{split}.csv").write_text("".join(f"{row}.mp4 {row % CLASSES}\n" for row in range(8)))
    settings = Settings.from_args(get_parser().parse_args([
        "--data_path", str(folder), "--nb_classes", str(CLASSES), "--output_dir", str(folder / "out"), "--model",
        "vit_tats_tiny", "--batch_size", "4", "--epochs", "1", "--warmup_epochs", "0", "--amp", "bf16",
        "--print_freq", "4", *argv]))

    def labelled_loader(clips, task, size, settings, here):
        order = EpochSampler(STEPS * 8, 0, 0, 2)
        monkeypatch.setattr(order, "rows", lambda start, end: [])
        return Batches(torch.zeros(8, 3, 16, size, size, dtype=torch.uint8),
                       torch.zeros(8, dtype=torch.int64), count=STEPS), order

    rows = torch.zeros(1, dtype=torch.int64)   # not torch.tensor: its constants are followed by real operations
    views = [(rows, rows, torch.zeros(1, 6, 3, 16, size, size, dtype=torch.uint8), ("",))]

    def evaluated(loader, per_clip, setup, length):
        real(loader, per_clip, setup, length)
        return SimpleNamespace(faults={}, must_hold_something=lambda source: None)

    def merge(rows, values, labels, faults, where, length):
        from tats.engines.finetune.evaluation import _gather
        for one in (rows, values, labels):
            assert _gather(one, where).device.type == "cpu"

    real = engine_for_finetuning.evaluate_rows
    monkeypatch.setattr(engine_for_finetuning, "merge", merge)
    monkeypatch.setattr(engine_for_finetuning, "evaluate_rows", evaluated)
    monkeypatch.setattr(engine_for_finetuning, "validate", lambda loader, net, setup, length, *_: evaluated(
        loader, engine_for_finetuning.probabilities(net), setup, length) and {"loss": 1., "acc1": 1., "acc5": 1.})
    monkeypatch.setattr(evaluator, "accuracies", lambda table: {"top1": 1., "top5": 1., "num_expected": 8,
                                                                "num_evaluated": 8})
    for name in ("confusion", "most_confused", "answers", "write_predictions", "write_confusion", "draw_confusion",
                 "write_result"):   # what is written of numbers that are not there
        monkeypatch.setattr(evaluator, name, lambda *_: ())
    monkeypatch.setattr(evaluator, "file_hash", lambda path: "")
    monkeypatch.setattr(evaluator, "evaluation_loader", lambda *_: views)
    monkeypatch.setattr(finetuning_run, "labelled_loader", labelled_loader)
    monkeypatch.setattr(evaluator, "unreadable", lambda *_: None)   # there are no videos
    monkeypatch.setattr(checkpointing, "save_atomically", lambda state, path: saved.append((path, state)))
    return finetuning_run.Finetuning(settings, Runtime(DEVICE, 0, 2, 0))


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_fine_tuning_mixes_no_devices_and_waits_between_steps_alone(name, monkeypatch, tmp_path):
    argv, allowed = RUNS[name]
    saved = []
    with fake_gpu(monkeypatch) as reads:
        run = finetuning(monkeypatch, tmp_path, argv, saved)
        reads.log.clear()
        run.run()
        run.test()
        assert (run.averaged() is not None) == ("--model_ema" in argv)
        if "--model_ema_force_cpu" in argv:   # where it was before it was looked at
            assert {one.device.type for one in run.setup.ema.module.parameters()} == {"cpu"}
    assert saved
    assert not sorted({(kind, place) for kind, place in reads.log if place not in ALLOWED | allowed})


class NativeScaler:
    """What a fork's scaler does, without its own scale."""

    def __call__(self, loss, optimizer, clip_grad=None, parameters=None):
        loss.backward()
        optimizer.step()

    def state_dict(self):
        return {}


@pytest.mark.slow
@pytest.mark.parametrize("name", MASKINGS)
def test_a_forks_engine_mixes_no_devices(name, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    parser = argparse.ArgumentParser()
    fork.add_sampling_flags(parser)
    args = parser.parse_args(["--mae_only_epochs", "0"])
    with fake_gpu(monkeypatch) as reads:
        model = create_model("pretrain_tats_tiny").to(DEVICE)
        vars(args).update(mask_type=name, mask_ratio=.75, window_size=model.encoder.grid, weight_decay=.05, opt="adamw",
                          opt_eps=1e-8, opt_betas=None, momentum=.9, clip_grad=None)
        tokens = model.encoder.patch_embed.num_patches
        per_clip = find_masking(args.mask_type).per_clip(TokenGrid(*args.window_size), args.mask_ratio)
        model.num_masked = tokens - per_clip.num_visible
        sampling = fork.TokenSampling(args, model, NativeScaler())
        batch = (torch.zeros(4, 3, 16, *model.encoder.img_size), torch.zeros(4, tokens, dtype=torch.bool))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
        reads.log.clear()
        means = fork.train_one_epoch(model, Batches(*batch, count=STEPS), optimizer, DEVICE, 0, sampling, start_steps=0)
        sampling.state_dict()
    assert {"loss", "visible_tokens"} <= set(means)
    fp16 = FP16 if sampling.hook.sampler is not None else {}
    state = {"saving.py:state_of": "a checkpoint's c3"}
    assert not sorted({(kind, place) for kind, place in reads.log if place not in ALLOWED | FORK | fp16 | state})
