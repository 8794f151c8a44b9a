"""Steps 9 and 10: several processes, NCCL, and DeepSpeed's ZeRO."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from ...models import create_model
from ..config.finetuning import ClassifierOptimConfig
from ..core.runtime import Precision, Runtime
from ..training.learner import Learner
from ..training.optim import make_optimizer, parameter_groups
from .steps import SKIPPED, Outcome, Place, verdict

LEARNING_RATE, STEPS = 1e-3, 3


def train_in_several_processes(place: Place) -> Outcome:
    """NCCL with one process; then two or more: over NCCL where each has a GPU, else two over gloo on one device."""
    gpus = torch.cuda.device_count() if place.device.type == "cuda" else 0
    faults, numbers = [], {}
    ways = [("nccl", 1)] * (gpus > 0) + [("nccl", min(gpus, 8))] * (gpus > 1) + [("gloo", 2)] * (gpus <= 1)
    for backend, count in ways:
        answers = launched(place, backend, count)
        numbers[f"{backend} x {count}"] = answers
        if len({answer["weights"] for answer in answers}) != 1:
            faults.append(f"{backend}, {count} processes: their weights differ after {STEPS} steps")
        if any(answer["sum"] != sum(range(count)) for answer in answers):
            faults.append(f"{backend}, {count} processes: an all-reduce gave a wrong sum")
    return verdict(faults, ", ".join(f"{backend} with {count}" for backend, count in ways), numbers)


def launched(place: Place, backend: str, count: int) -> list[dict]:
    """What `work` wrote in each of `count` processes.

    Raises:
        ValueError: a process failed.
    """
    folder = place.folder / f"{backend}-{count}"
    folder.mkdir(parents=True, exist_ok=True)
    code = "import sys; from tats.engines.check_gpu.processes import work; work(*sys.argv[1:])"
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(29000 + os.getpid() % 1000 + count),
                   "WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}
    processes = [subprocess.Popen([sys.executable, "-c", code, backend, place.device.type, str(folder)],
                                  env=environment | {"RANK": str(rank)}, stderr=subprocess.PIPE, text=True)
                 for rank in range(count)]
    said = [process.communicate(timeout=place.limit)[1] for process in processes]
    for process, text in zip(processes, said, strict=True):
        if process.returncode:
            raise ValueError(f"{backend} with {count}: {(text.strip().splitlines() or ['no message'])[-1]}")
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(count)]


def work(backend: str, device_type: str, folder: str) -> None:
    """One process: join, sum the ranks, train a small classifier on clips of its own, write what came out."""
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    index = rank % max(1, torch.cuda.device_count()) if device_type == "cuda" else None
    device = torch.device(device_type, index)
    if index is not None:
        torch.cuda.set_device(device)
    dist.init_process_group(backend, rank=rank, world_size=count)
    total = torch.tensor(float(rank), device=device)
    dist.all_reduce(total)
    learner = small_learner(Runtime(device, rank, count, rank), Precision(device_type))
    losses = train(learner, device, rank)
    weights = sum(float(one.detach().double().sum()) for one in learner.module.parameters())
    Path(folder, f"{rank}.json").write_text(json.dumps({"sum": float(total), "weights": weights, "losses": losses}))
    learner.release()
    dist.destroy_process_group()


def small_learner(where: Runtime, precision: Precision, width: int = 64, stage: int | None = None) -> Learner:
    """A classifier of small clips under DDP, or under ZeRO with `stage`."""
    torch.manual_seed(0)
    net = create_model("vit_tats_tiny", num_classes=4, embed_dim=width, init_scale=1.0).to(where.device)
    optimizer = make_optimizer(parameter_groups(net, .05), fused=None if stage is None else False)

    def rate(step: int) -> float:
        return LEARNING_RATE

    if stage is None:
        return Learner(net, optimizer, rate, runtime=where, precision=precision)
    from ..training.deepspeed_zero import ZeroLearner, deepspeed_config

    config = deepspeed_config(stage, ClassifierOptimConfig(batch_size=4, update_freq=1), precision, where.world_size)
    return ZeroLearner(net, optimizer, rate, config, weight_decay=None, runtime=where, precision=precision)


def train(learner: Learner, device: torch.device, rank: int = 0) -> list[float]:
    """The losses of a few steps."""
    generator = torch.Generator().manual_seed(rank)
    size, losses = learner.module.img_size, []
    for _ in range(STEPS):
        clips = torch.randn(4, 3, 16, *size, generator=generator).to(device)
        with learner.accumulating(False):
            loss = torch.nn.functional.cross_entropy(learner(clips).float(), torch.arange(4, device=device))
            learner.backward(loss)
        learner.step()
        losses.append(float(loss.detach()))
    return losses


def train_with_zero(place: Place) -> Outcome:
    """The four stages of ZeRO with one process: their losses against those without DeepSpeed."""
    if importlib.util.find_spec("deepspeed") is None:
        return Outcome(SKIPPED, "DeepSpeed is not installed: pip install deepspeed")
    half = place.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    precision = Precision(place.device.type, torch.bfloat16 if half else torch.float32)
    where, width = Runtime(place.device), 192    # below 1e5 numbers a tensor stage 3 shares out nothing
    wanted = train(small_learner(where, precision, width), place.device)
    faults, numbers = [], {"plain": wanted}
    for stage in range(4):
        found = train(small_learner(where, precision, width, stage), place.device)
        numbers[f"stage {stage}"] = found
        worst = max(abs(one - other) for one, other in zip(found, wanted, strict=True))
        if not worst <= (5e-2 if half else 1e-3):
            faults.append(f"stage {stage}: a loss is off by {worst:.1e}")
    return verdict(faults, f"last losses {', '.join(f'{losses[-1]:.4f}' for losses in numbers.values())}", numbers)
