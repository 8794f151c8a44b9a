"""Train a toy classifier for 20 steps on one stream of batches in every way there is; started by torchrun.

    torchrun --nproc_per_node=2 tests/zero_curves.py FOLDER WAY:DTYPE...      (WAY: ddp or a ZeRO stage)

FOLDER/curves.json gets, for each: `losses`, `norms`, `resumed` (the last ten losses again, after a save and a new
start), and `logits` (largest difference of the network and of one that loads the consolidated weights by itself).
"""

import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from tats.engines.config.finetuning import ClassifierOptimConfig
from tats.engines.core import runtime
from tats.engines.core.runtime import Precision
from tats.engines.training.deepspeed_zero import ZeroLearner, deepspeed_config
from tats.engines.training.layer_decay import layer_decay_scale
from tats.engines.training.learner import Learner
from tats.engines.training.optim import make_optimizer, parameter_groups
from tats.models import VisionTransformer

STEPS, HALF, MICRO, UPDATE_FREQ, CLASSES = 20, 10, 2, 2, 5
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def classifier(seed=0):
    torch.manual_seed(seed)
    return VisionTransformer(img_size=8, patch_size=4, num_classes=CLASSES, embed_dim=24, depth=2, num_heads=2,
                             qkv_bias=True, init_scale=1.0, all_frames=4)


def schedule(step):
    return 2e-3 * min(1, (step + 1) / 5)


def build(way, dtype, where):
    net, precision = classifier(), Precision("cpu", DTYPES[dtype])
    groups = parameter_groups(net, .05, (), layer_decay_scale(2, .75))
    optimizer = make_optimizer(groups, "adamw", betas=(.9, .999))
    if way == "ddp":
        return Learner(net, optimizer, schedule, weight_decay=lambda step: .05, clip_grad=1.0, runtime=where,
                       precision=precision)
    config = ClassifierOptimConfig(batch_size=MICRO, update_freq=UPDATE_FREQ, clip_grad=1.0)
    return ZeroLearner(net, optimizer, schedule, deepspeed_config(int(way), config, precision, where.world_size),
                       weight_decay=lambda step: .05, runtime=where, precision=precision)


def batch(step, micro, where):
    generator = torch.Generator().manual_seed(100 * step + micro)
    clips = torch.randn(MICRO * where.world_size, 3, 4, 8, 8, generator=generator)
    labels = torch.randint(CLASSES, (len(clips),), generator=generator)
    return clips[where.rank::where.world_size], labels[where.rank::where.world_size]


def train(learner, steps, where):
    losses, norms = [], []
    for step in steps:
        total = 0.0
        for micro in range(UPDATE_FREQ):
            clips, labels = batch(step, micro, where)
            with learner.accumulating(micro + 1 < UPDATE_FREQ):
                loss = F.cross_entropy(learner(clips).float(), labels)
                learner.backward(loss / UPDATE_FREQ)
            total = total + loss.detach() / UPDATE_FREQ
        norm = learner.step()
        norms.append(None if norm is None else float(norm))
        losses.append(float(where.mean(total)))
    return losses, norms


def curve(way, dtype, folder, where):
    learner = build(way, dtype, where)
    losses, norms = train(learner, range(HALF), where)
    weights, state = learner.weights(), learner.save(folder)
    torch.save({"weights": weights, "state": state}, f"{folder}-{where.rank}.pth")
    where.barrier()
    more, more_norms = train(learner, range(HALF, STEPS), where)
    fresh = build(way, dtype, where)
    saved = torch.load(f"{folder}-{where.rank}.pth", weights_only=True)
    fresh.load(saved["weights"], saved["state"], folder)
    resumed, _ = train(fresh, range(HALF, STEPS), where)
    return {"losses": losses + more, "norms": norms + more_norms, "resumed": resumed,
            "logits": logits_difference(learner, where), "keys": sorted(learner.weights()) == sorted(
                classifier().state_dict())}


@torch.no_grad()
def logits_difference(learner, where):
    clips, _ = batch(99, 0, where)
    learner.net.eval()
    alone = classifier(seed=1).eval()
    alone.load_state_dict(learner.weights())
    return float((learner(clips).float() - alone(clips)).abs().max())


def main():
    folder, where = Path(sys.argv[1]), runtime.start("cpu")
    results = {}
    for name in sys.argv[2:]:
        way, dtype = name.split(":")
        results[name] = curve(way, dtype, folder / f"checkpoint-{way}-{dtype}", where)
    if where.is_main:
        (folder / "curves.json").write_text(json.dumps(results))
    runtime.stop(where)


if __name__ == "__main__":
    main()
