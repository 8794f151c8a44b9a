"""A user's loop with the hook on two processes and on one: `python hook_ranks.py FOLDER`, numbers to FOLDER/*.json.

This process has imported everything and forks; it never trains itself, since a process with threads must not fork.
"""

import json
import multiprocessing
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from tats.engines.hook import SamplingHook
from torch import nn
from torch.nn.parallel import DistributedDataParallel

GRID, STEPS, K = (2, 3, 3), 5, 2


class Embed(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Conv3d(3, 16, (2, 4, 4), (2, 4, 4))

    def forward(self, videos):
        return self.proj(videos).flatten(2).transpose(1, 2)


class Autoencoder(nn.Module):
    """Anybody's: predicts the mean colour of each masked token from the visible ones."""

    def __init__(self):
        super().__init__()
        self.patch_embed, self.pos_embed = Embed(), nn.Parameter(torch.randn(1, 18, 16))
        self.body, self.head = nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, videos, mask):
        tokens = self.patch_embed(videos) + self.pos_embed
        seen = self.body(tokens[~mask].view(len(videos), -1, 16)).mean(1, keepdim=True)
        return self.head(seen + self.pos_embed.expand(len(videos), -1, -1)[mask].view(len(videos), -1, 16))


def global_batch(step):
    """Eight clips, their masks and keys, the same on every process."""
    dice = torch.Generator().manual_seed(step)
    videos = torch.randn(8, 3, 4, 12, 12, generator=dice)
    mask = torch.rand(8, 18, generator=dice).argsort(1).argsort(1) < 13
    return videos, mask, torch.arange(8) + 8 * step


def loop(rank, world, name, uneven):
    """Two epochs; with `uneven` the last batch of each has 3 clips on rank 0 and 1 on rank 1."""
    torch.manual_seed(rank)   # DDP must bring the different starts together
    model = Autoencoder()
    model = DistributedDataParallel(model) if world > 1 else model
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    hook = SamplingHook(model, name, GRID, mask_ratio=.75, mae_only_epochs=1, update_every=K, sampler_lr=1e-2,
                        opt="sgd", num_visible=5, **({"tats_heads": 2} if name == "tats" else {}))
    steps, own_masks, numbers = [], [], []
    for epoch in range(2):
        for step in range(STEPS):
            videos, given, keys = (part[rank::world] for part in global_batch(STEPS * epoch + step))
            if uneven and step == STEPS - 1:
                size = (3, 1)[rank]
                videos, given, keys = videos[:size], given[:size], keys[:size]
            mask = hook.choose(model, videos, given, epoch, keys=keys)
            colours = videos.unfold(2, 2, 2).unfold(3, 4, 4).unfold(4, 4, 4).mean((-1, -2, -3)).flatten(2)
            target = colours.transpose(1, 2)[mask].view(len(videos), -1, 3)
            errors = (model(videos, mask) - target).square().mean(-1)
            optimizer.zero_grad()
            errors.mean().backward()
            optimizer.step()
            hook.learn(errors)
            steps.append(hook.sampler.steps)
            own_masks.append(not torch.equal(mask, given))
        numbers.append(hook.end_epoch())
    theta = torch.cat([value.flatten() for value in hook.sampler.module.state_dict().values()])
    return {"theta": theta.tolist(), "steps": steps, "end": hook.sampler.steps, "acts": own_masks, "numbers": numbers}


def rank_main(rank, world, folder):
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=world)
    found = {f"{name} {kind}": loop(rank, world, name, kind == "uneven") for name in ("tats", "adamae")
             for kind in (("even", "uneven") if world > 1 else ("even",))}
    (folder / f"{world}-{rank}.json").write_text(json.dumps(found))
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=rank_main, args=(rank, world, Path(sys.argv[1])))
                for rank, world in ((0, 2), (1, 2), (0, 1))]
    for child in children:
        child.start()
    for child in children:
        child.join()
    sys.exit(max(abs(child.exitcode) for child in children))
