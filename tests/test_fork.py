"""The plugin in a codebase with its own models/, datasets.py, utils.py: lines changed, phases, checkpoint, resume."""

import argparse
import json
import logging
import pickle
import runpy
import sys

import numpy as np
import pytest
import torch
from fork_edits import EDITS, PAGE, apply_edits, write_mini_fork
from pretraining_setup import tiny_mae, tiny_sampler
from tats.datasets.clips import PretrainSample
from tats.engines.fork import TokenSampling, add_sampling_flags, loader_mask, mask_types, train_one_epoch
from tats.engines.hook import SamplingHook
from tats.engines.pretrain.interface import patch_size_of
from tats.engines.training.batches import Normalizer
from tats.masking import MASKINGS
from tats.models import load_pretraining


@pytest.fixture
def fork(tmp_path):
    folder = write_mini_fork(tmp_path / "fork")
    apply_edits(folder)
    return folder


OWN_NAMES = ("models", "datasets", "utils", "networks", "masking_generator", "engine_for_pretraining")


@pytest.fixture
def run(monkeypatch):
    """Run the fork's program in this process, as `python run_mae_pretraining.py` would; its modules leave with it."""
    def run_fork(fork, out, *options, program="run_mae_pretraining.py"):
        out.mkdir(exist_ok=True)
        with monkeypatch.context() as patch:
            patch.chdir(fork)
            patch.syspath_prepend(str(fork))
            patch.setattr(sys, "argv", [program, "--output_dir", str(out), *options])
            for name in OWN_NAMES:
                patch.delitem(sys.modules, name, raising=False)
            try:
                runpy.run_path(program, run_name="__main__")
            finally:
                logging.captureWarnings(False)
                for name in OWN_NAMES:
                    sys.modules.pop(name, None)
    return run_fork


def checkpoints(out):
    return [torch.load(path, weights_only=False) for path in sorted(out.glob("checkpoint-*.pth"))]


def same(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


def test_eight_lines_change_as_the_readme_says_and_none_in_a_model(tmp_path):
    folder = write_mini_fork(tmp_path)
    before = {path.name: path.read_text() for path in folder.rglob("*.py")}
    assert apply_edits(folder) == 8
    changed = {path.name for path in folder.rglob("*.py") if path.read_text() != before[path.name]}
    assert changed == {"run_mae_pretraining.py", "datasets.py"}
    diff = (PAGE.parents[1] / "README.md").read_text().split("```diff\n")[1].split("```")[0]
    lines = [line[1:].strip() for line in diff.splitlines() if line[:1] in "+-" and not line.startswith("---")]
    edits = "".join(old + new for _, old, new in EDITS)
    assert len(lines) == 8 and all(line in edits for line in lines)


@pytest.mark.parametrize("name", MASKINGS)
def test_every_masking_comes_along(fork, run, tmp_path, name):
    run(fork, tmp_path / "out", "--mask_type", name, "--mae_only_epochs", "1", *(
        ["--tats_heads", "2"] if name == "tats" else []))
    records = [json.loads(line) for line in (tmp_path / "out" / "log.txt").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [0, 1] and all(record["loss"] > 0 for record in records)
    learned = {"tats": {"entropy_share"}, "adamae": {"motion_correlation", "entropy_share"}}.get(name, set())
    assert learned | {"visible_tokens", "mask_overlap", "data_share"} <= set(records[-1])
    saved = checkpoints(tmp_path / "out")
    assert ("sampling" in saved[-1]["scaler"]) == (MASKINGS[name].sampler is not None)
    assert not same(saved[0]["model"], saved[1]["model"])


def test_both_networks_move_in_their_phases_only(fork, run, tmp_path):
    run(fork, tmp_path / "out", "--mask_type", "tats", "--tats_heads", "2", "--mae_only_epochs", "2", "--epochs", "4",
        "--sampler_lr", "1e-2", "--policy_head_init", "xavier")
    saved = checkpoints(tmp_path / "out")
    samplers = [state["scaler"]["sampling"]["sampler"] for state in saved]
    assert same(samplers[0], samplers[1])                              # epochs 0 and 1: random masks, theta untouched
    assert not same(samplers[1], samplers[2]) and not same(samplers[2], samplers[3])
    assert all(not same(saved[epoch]["model"], saved[epoch + 1]["model"]) for epoch in range(3))
    records = [json.loads(line) for line in (tmp_path / "out" / "log.txt").read_text().splitlines()]
    assert "sampling_loss" not in records[1] and "sampling_loss" in records[2]


def test_resume_goes_on_where_it_stopped(fork, run, tmp_path):
    options = ("--mask_type", "tats", "--tats_heads", "2", "--mae_only_epochs", "1", "--sampler_lr", "1e-2")
    run(fork, tmp_path / "out", *options, "--epochs", "2")
    first = checkpoints(tmp_path / "out")[1]
    run(fork, tmp_path / "out", *options, "--epochs", "3")
    second = checkpoints(tmp_path / "out")[2]
    sampling = [state["scaler"]["sampling"] for state in (first, second)]
    assert [state["optimizer"]["steps"] for state in sampling] == [2, 4]      # two steps an epoch, from epoch 1 on
    assert not same(sampling[0]["sampler"], sampling[1]["sampler"])
    # The tables are read at the run's own step: after step 6 of 100, as the run's formula has it.
    assert second["optimizer"]["param_groups"][0]["lr"] == pytest.approx(1e-3 * (1 - 6 / 100))


@pytest.mark.parametrize("flag", ["--random_share_final", "--sampler_lr_final", "--mae_only_explained"])
def test_what_needs_the_runs_length_is_refused(fork, run, tmp_path, flag):
    with pytest.raises(ValueError, match=f"{flag} "):
        run(fork, tmp_path / "out", "--mask_type", "tats", "--tats_heads", "2", flag, ".5")


def test_a_checkpoint_without_a_sampler_is_refused(fork, run, tmp_path):
    run(fork, tmp_path / "out", "--mask_type", "random", "--epochs", "1")
    with pytest.raises(ValueError, match="sampler"):
        run(fork, tmp_path / "out", "--mask_type", "tats", "--tats_heads", "2")


def test_the_numbers_of_the_plain_loop(fork, run, tmp_path):
    """The adapter against the same steps written out: normalised targets, mean squared error, the fork's AdamW."""
    (fork / "plain.py").write_text("""
import torch, datasets, networks, argparse, sys
torch.manual_seed(0)
args = argparse.Namespace(mask_type="tube", mask_ratio=.75, window_size=(2, 4, 4))
model = networks.build()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=.05)
mean = torch.tensor([.485, .456, .406]).view(1, 3, 1, 1, 1)
std = torch.tensor([.229, .224, .225]).view(1, 3, 1, 1, 1)
for step, (videos, mask) in enumerate(torch.utils.data.DataLoader(datasets.Clips(args), 4)):
    mask = mask.bool()
    pixels = (videos * std + mean).unfold(2, 2, 2).unfold(3, 4, 4).unfold(4, 4, 4)   # b c t h w p0 p1 p2
    patches = pixels.permute(0, 2, 3, 4, 5, 6, 7, 1).reshape(4, 32, 32, 3)
    patches = (patches - patches.mean(2, keepdim=True)) / (patches.var(2, keepdim=True).sqrt() + 1e-6)
    for group in optimizer.param_groups:
        group["lr"] = 1e-2 * (1 - step / 100)
    optimizer.zero_grad()
    ((model(videos, mask) - patches.flatten(2)[mask].view(4, -1, 96)) ** 2).mean().backward()
    optimizer.step()
torch.save(model.state_dict(), sys.argv[2] + "/plain.pth")
""")
    # The stand-in draws its tubes from an unseeded generator: here the same mask everywhere.
    generator = fork / "masking_generator.py"
    generator.write_text(generator.read_text().replace("np.random.permutation(self.places)", "np.arange(self.places)"))
    out = tmp_path / "out"
    run(fork, out, "--mask_type", "tube", "--epochs", "1", "--lr", "1e-2")
    saved = checkpoints(out)[0]
    run(fork, out, program="plain.py")
    for name, value in torch.load(out / "plain.pth").items():
        torch.testing.assert_close(saved["model"][name], value, msg=lambda text, name=name: f"{name}: {text}")


def test_the_sampler_of_a_forks_checkpoint_is_found(fork, run, tmp_path):
    run(fork, tmp_path / "out", "--mask_type", "adamae", "--epochs", "1")
    saved = checkpoints(tmp_path / "out")[0]
    net = torch.nn.Module()
    for name, value in saved["model"].items():
        part = net
        for piece in name.split(".")[:-1]:
            if not hasattr(part, piece):
                part.add_module(piece, torch.nn.Module())
            part = getattr(part, piece)
        part.register_parameter(name.split(".")[-1], torch.nn.Parameter(torch.zeros_like(value)))
    report, sampler = load_pretraining(net, saved)
    assert report.whole and same(sampler, saved["scaler"]["sampling"]["sampler"]) and "pos_embed_probs" in sampler


def own_parser(*flags):
    """A fork's parser with AdaMAE's names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mask_type", default="learnable", choices=["learnable", "part_window"])
    parser.add_argument("--mask_ratio", default=.75, type=float)
    parser.add_argument("--softmax_temp", default=1e-2, type=float)
    add_sampling_flags(parser)
    args = parser.parse_args(flags)
    args.window_size = (4, 3, 3)
    return args


def test_the_forks_own_flags_and_masks_keep_their_names_and_meaning(caplog):
    args = own_parser("--mask_type", "tats", "--tats_heads", "2")
    assert args.softmax_temp == 1e-2 and args.tats_softmax_temp == 1 and "--tats_softmax_temp" in caplog.text
    assert TokenSampling(args, tiny_mae(), None).hook.sampler.module.softmax_temp == 1
    assert TokenSampling(own_parser("--mask_type", "tats", "--tats_heads", "2", "--tats_softmax_temp", ".5"),
                         tiny_mae(), None).hook.sampler.module.softmax_temp == .5
    assert {"learnable", "adamae", "tats", "tube"} <= set(mask_types()) and "part_window" in mask_types(["part_window"])
    named = argparse.Namespace(mask_type="learnable", mask_ratio=.75, window_size=(4, 3, 3))   # without a fork's own
    assert TokenSampling(named, tiny_mae(), None).hook.row is MASKINGS["adamae"]
    drawn_in_its_model = TokenSampling(own_parser(), tiny_mae(), None)
    assert drawn_in_its_model.hook.sampler is None
    assert drawn_in_its_model.choose(None, torch.zeros(2, 3, 8, 12, 12), None, 0) is None
    drawn_in_its_model.learn(torch.zeros(2, 36))
    own = TokenSampling(own_parser("--mask_type", "part_window"), tiny_mae(), None)
    assert own.hook.sampler is None and own.state_dict() == {}
    mask = torch.zeros(2, 36).index_fill(1, torch.arange(9), 1)
    assert torch.equal(own.choose(None, torch.zeros(2, 3, 8, 12, 12), mask), mask.bool())
    ragged = mask.index_fill(1, torch.tensor([20]), 1) * torch.tensor([[0], [1]])
    assert torch.equal(own.choose(None, torch.zeros(2, 3, 8, 12, 12), ragged), ragged.bool())
    own.learn(torch.zeros(2, 5))   # its loss is its own affair
    stray = argparse.Namespace(mask_type="part_window", mask_ratio=.75, window_size=(4, 3, 3))
    with pytest.raises(ValueError, match="unknown mask_type"):
        TokenSampling(stray, tiny_mae(), None)


def test_the_loaders_mask_is_what_videomaes_generators_return():
    mask = loader_mask(own_parser("--mask_type", "random"))()
    assert mask.dtype == np.float64 and (1 - mask).sum() == 9 and mask.shape == (36,)
    pickle.loads(pickle.dumps(loader_mask(own_parser("--mask_type", "tube"))))


def test_what_is_asked_of_args_is_little_and_said():
    args = argparse.Namespace(mask_type="tats", mask_ratio=.75, window_size=(4, 3, 3), tats_heads=2)
    assert TokenSampling(args, tiny_mae(), None).hook.config.mae_only_epochs == 10
    del args.window_size
    for ask in (lambda: TokenSampling(args, tiny_mae(), None), lambda: loader_mask(args)):
        with pytest.raises(ValueError, match="window_size"):
            ask()


def epoch_of(loader, **others):
    args = argparse.Namespace(mask_type="tube", mask_ratio=.75, window_size=(4, 3, 3))
    mae = tiny_mae()
    scaler = TokenSampling(args, mae, lambda loss, *rest, **more: loss.backward())
    optimizer = torch.optim.SGD(mae.parameters(), 1e-3)
    return train_one_epoch(mae, loader, optimizer, torch.device("cpu"), 0, scaler, start_steps=0, **others)


def batches(*more):
    mask = torch.zeros(2, 36).index_fill(1, torch.arange(9), 1)
    return [(torch.randn(2, 3, 8, 12, 12), mask, *more)]


@pytest.mark.parametrize("others", [{"num_samples": 2}, {"use_frame_diff_as_target": True}, {"target_diff_weight": .5},
                                    {"frame_diff_group_size": 2, "save_dir": "out"}], ids=str)
def test_arguments_that_change_the_loss_are_refused_with_the_way_out(others):
    with pytest.raises(ValueError, match="loss_scaler.choose") as refused:
        epoch_of(batches(), **others)
    assert sorted(others)[0] in str(refused.value) and "save_dir" not in str(refused.value)
    assert epoch_of(batches(), save_dir="out", num_samples=1, use_frame_diff_as_target=False)["loss"] > 0


def test_a_third_element_is_never_taken_for_keys(monkeypatch):
    seen = []
    real = SamplingHook.choose
    monkeypatch.setattr(SamplingHook, "choose", lambda *args, keys=None: seen.append(keys) or real(*args, keys=keys))
    epoch_of(batches(torch.tensor([7, 7])))                          # labels
    assert seen == [None]
    with pytest.raises(ValueError, match="second mask"):             # VideoMAEv2's decoder masks
        epoch_of(batches(torch.zeros(2, 4, 9)))
    keyed = PretrainSample(*batches(torch.tensor([7, 8]))[0])
    epoch_of([keyed])
    assert torch.equal(seen[1], torch.tensor([7, 8]))


def test_a_target_and_a_mean_of_ones_own():
    def target(pixels, mask):
        return torch.zeros(2, int(mask[0].sum()), 96)

    assert epoch_of(batches(), target=target)["loss"] != epoch_of(batches())["loss"]
    normalizer = Normalizer(torch.device("cpu"), (.5,), (.25,))
    batch = normalizer.prepare((torch.ones(2, 1, 6, 6), torch.zeros(2, 4)), torch.device("cpu"))   # images
    assert batch.videos.shape == (2, 1, 1, 6, 6) and float(batch.pixels.mean()) == .75
    with pytest.raises(ValueError, match="channels"):
        normalizer.prepare((torch.ones(2, 3, 6, 6), torch.zeros(2, 4)), torch.device("cpu"))
    with pytest.raises(ValueError, match="mask is a list"):
        normalizer.prepare((torch.ones(2, 1, 6, 6), []), torch.device("cpu"))


def test_patches_of_a_convolution_over_images_and_of_none():
    model = torch.nn.Module()
    model.encoder = torch.nn.Module()
    model.encoder.patch_embed = torch.nn.Module()
    model.encoder.patch_embed.proj = torch.nn.Conv2d(3, 8, 16, 16)
    assert patch_size_of(model) == (16, 1)
    model.encoder.patch_embed.proj = torch.nn.Linear(3, 8)
    with pytest.raises(ValueError, match="PatchSize"):
        patch_size_of(model)


@pytest.mark.parametrize("ours", [True, False])
def test_adamaes_own_sampler_and_ours_in_one_checkpoint_are_told_apart(ours):
    """AdaMAE's model keeps its sampler, which nothing trains where ours stands in the scaler."""
    mae, trained = tiny_mae(), tiny_sampler("tats").state_dict()
    dead = {f"encoder.{name}": value for name, value in tiny_sampler("adamae").state_dict().items()}
    state = {"model": {**mae.state_dict(), **dead}} | ({"scaler": {"sampling": {"sampler": trained}}} if ours else {})
    report, sampler = load_pretraining(tiny_mae(seed=5), state)
    assert set(sampler) == set(trained if ours else tiny_sampler("adamae").state_dict()) and report.whole
    assert set(report.dropped) == (set(dead) if ours else set())
    if ours:
        assert same(trained, sampler)
