"""The lines that a fork of VideoMAE changes, as (file, old, new), and a stand-in for such a fork with its own names."""

from pathlib import Path

EDITS = [
    ("run_mae_pretraining.py", "from engine_for_pretraining import train_one_epoch\n",
     "from tats.engines.fork import TokenSampling, add_sampling_flags, train_one_epoch\n"),
    ("run_mae_pretraining.py", "    return parser.parse_args()\n",
     "    add_sampling_flags(parser)\n    return parser.parse_args()\n"),
    ("run_mae_pretraining.py", "loss_scaler = NativeScaler()",
     "loss_scaler = TokenSampling(args, model_without_ddp, NativeScaler())"),
    ("datasets.py", "from masking_generator import TubeMaskingGenerator\n",
     "from masking_generator import TubeMaskingGenerator\nfrom tats.engines.fork import loader_mask\n"),
    ("datasets.py", "                args.window_size, args.mask_ratio\n            )\n",
     "                args.window_size, args.mask_ratio\n            )\n        else:\n"
     "            self.masked_position_generator = loader_mask(args)\n"),
]


PAGE = Path(__file__).parents[1] / "docs/fork.md"
SECTIONS = {"videomae": "VideoMAE", "adamae": "AdaMAE", "videomaev2": "VideoMAEv2", "mae_dfer": "MAE-DFER",
            "mae_st": "MAE-ST"}


def apply_page(name: str, fork: Path) -> None:
    """Apply the diff of a section of docs/fork.md, each hunk in its one place; all other lines stay to the byte."""
    section = PAGE.read_text().split(f"\n## {SECTIONS[name]}\n")[1].split("\n## ")[0]
    diff = section.split("```diff\n")[1].split("\n```")[0]
    for part in diff.removeprefix("--- ").split("\n--- "):
        file, *hunks = part.split("\n@@\n")
        lines = (fork / file).read_bytes().decode().splitlines(keepends=True)
        end = "\r\n" if lines[0].endswith("\r\n") else "\n"
        for hunk in hunks:
            edit = hunk.split("\n")
            old = [line[1:] for line in edit if line[:1] in " -"]
            places = [at for at in range(len(lines)) if [line.rstrip() for line in lines[at:at + len(old)]] == old]
            assert len(places) == 1, f"{file} has {len(places)} places for {hunk!r}"
            at = places[0]
            for line in edit:
                if line[:1] == "+":
                    lines.insert(at, line[1:] + end)
                elif line[:1] == "-":
                    del lines[at]
                    continue
                at += 1
        (fork / file).write_bytes("".join(lines).encode())


def apply_edits(fork: Path) -> int:
    """Make the edits, each in its one place; the number of changed lines as `git diff` counts them."""
    changed = 0
    for name, old, new in EDITS:
        path = fork / name
        text = path.read_text()
        assert text.count(old) == 1, f"{name} has {text.count(old)} places for {old!r}"
        path.write_text(text.replace(old, new))
        before, after = old.splitlines(), new.splitlines()
        changed += sum(line not in after for line in before) + sum(line not in before for line in after)
    return changed


MINI_FORK = {
    "models/__init__.py": 'OWNER = "the fork"\n',
    "masking_generator.py": '''
import numpy as np


class TubeMaskingGenerator:
    def __init__(self, size, ratio):
        self.frames, self.places = size[0], size[1] * size[2]
        self.hidden = int(ratio * self.places)

    def __call__(self):
        return np.tile(np.random.permutation(self.places) < self.hidden, (self.frames, 1)).flatten()
''',
    "datasets.py": '''
import torch
from masking_generator import TubeMaskingGenerator


class Clips(torch.utils.data.Dataset):
    def __init__(self, args):
        if args.mask_type == 'tube':
            self.masked_position_generator = TubeMaskingGenerator(
                args.window_size, args.mask_ratio
            )

    def __len__(self):
        return 8

    def __getitem__(self, index):
        video = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(index))
        return video, self.masked_position_generator()
''',
    "utils.py": '''
import math
import torch


class NativeScaler:
    def __call__(self, loss, optimizer, clip_grad=None, parameters=None, create_graph=False):
        loss.backward(create_graph=create_graph)
        optimizer.step()
        return None

    def state_dict(self):
        return {"scale": 1.0}

    def load_state_dict(self, state):
        assert state == {"scale": 1.0}, state
''',
    "engine_for_pretraining.py": '''
def train_one_epoch(*args, **kwargs):
    return {"loss": 0.0}
''',
    "run_mae_pretraining.py": '''
import argparse
import json
import os

import datasets
import models
import torch
from engine_for_pretraining import train_one_epoch
from networks import build
from utils import NativeScaler


def get_args():
    parser = argparse.ArgumentParser('mini fork', add_help=False)
    parser.add_argument('--mask_type', default='tube', choices=['random', 'tube'],
                        type=str)
    parser.add_argument('--mask_ratio', default=0.75, type=float)
    parser.add_argument('--epochs', default=2, type=int)
    parser.add_argument('--lr', default=1e-3, type=float)
    parser.add_argument('--clip_grad', default=None, type=float)
    parser.add_argument('--opt', default='adamw')
    parser.add_argument('--opt_eps', default=1e-8, type=float)
    parser.add_argument('--opt_betas', default=None, type=float, nargs='+')
    parser.add_argument('--momentum', default=0.9, type=float)
    parser.add_argument('--weight_decay', default=0.05, type=float)
    parser.add_argument('--normlize_target', default=True, type=bool)
    parser.add_argument('--output_dir', default='')
    return parser.parse_args()


def main(args):
    assert models.OWNER == "the fork"
    torch.manual_seed(0)
    args.window_size = (2, 4, 4)
    model = model_without_ddp = build()
    loader = torch.utils.data.DataLoader(datasets.Clips(args), batch_size=4, drop_last=True)
    optimizer = torch.optim.AdamW([{"params": list(model.parameters()), "lr_scale": 1.0}], lr=args.lr)
    loss_scaler = NativeScaler()
    start, steps = 0, len(loader)
    found = sorted(os.listdir(args.output_dir))
    found = [name for name in found if name.startswith("checkpoint-")]
    if found:
        state = torch.load(os.path.join(args.output_dir, found[-1]), weights_only=False)
        model_without_ddp.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        loss_scaler.load_state_dict(state["scaler"])
        start = state["epoch"] + 1
    for epoch in range(start, args.epochs):
        stats = train_one_epoch(
            model, loader, optimizer, torch.device("cpu"), epoch, loss_scaler, args.clip_grad, log_writer=None,
            start_steps=epoch * steps, lr_schedule_values=[args.lr * (1 - step / 100) for step in range(100)],
            wd_schedule_values=[0.05] * 100, patch_size=4, normlize_target=args.normlize_target)
        torch.save({"model": model_without_ddp.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch,
                    "scaler": loss_scaler.state_dict(), "args": args},
                   os.path.join(args.output_dir, "checkpoint-%d.pth" % epoch))
        with open(os.path.join(args.output_dir, "log.txt"), "a") as log:
            log.write(json.dumps({"epoch": epoch, **stats}) + "\\n")


if __name__ == '__main__':
    main(get_args())
''',
    # Not one of the package's classes: a model that merely has VideoMAE's interface, positions as a plain attribute.
    "networks.py": '''
import torch
from torch import nn


class Embed(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Conv3d(3, 16, (2, 4, 4), (2, 4, 4))

    def forward(self, videos):
        return self.proj(videos).flatten(2).transpose(1, 2)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch_embed, self.layer = Embed(), nn.Linear(16, 16)
        self.pos_embed = torch.randn(1, 32, 16, generator=torch.Generator().manual_seed(1))


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.head = Encoder(), nn.Linear(16, 96)

    def forward(self, x, mask):
        tokens = self.encoder.patch_embed(x) + self.encoder.pos_embed
        seen = self.encoder.layer(tokens[~mask].reshape(len(x), -1, 16)).mean(1, keepdim=True)
        places = self.encoder.pos_embed.expand(len(x), -1, -1)[mask].reshape(len(x), -1, 16)
        return self.head(seen + places)


def build():
    return Autoencoder()
''',
}


def write_mini_fork(folder: Path) -> Path:
    """The stand-in, unedited."""
    for name, text in MINI_FORK.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.lstrip())
    return folder
