"""The same loop under DeepSpeed ZeRO: a `Learner` whose step, gradients and weights may be shared out.

The only file that imports DeepSpeed, and only when a `ZeroLearner` is built.
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..config.common import OptimConfig
from ..core.runtime import Precision, Runtime
from .health import Health
from .learner import Learner, Schedule, apply_schedules

logger = logging.getLogger(__name__)


def deepspeed_config(stage: int, optim: OptimConfig, precision: Precision, world_size: int) -> dict:
    """DeepSpeed's configuration. The optimiser is not in it: ours is handed over, with every flag and its groups."""
    return {
        "train_micro_batch_size_per_gpu": optim.batch_size,
        "gradient_accumulation_steps": optim.update_freq,
        "train_batch_size": optim.batch_size * optim.update_freq * world_size,
        "gradient_clipping": optim.clip_grad or 0.0,
        "bf16": {"enabled": precision.dtype == torch.bfloat16},
        "fp16": {"enabled": precision.dtype == torch.float16, "initial_scale_power": 16},
        # bf16 has 8 bits: what is added up over micro-batches, and over processes, is kept in float32 (stage 0 has no
        # such choice: there DeepSpeed knows bf16 alone)
        "data_types": {"grad_accum_dtype": "fp32" if stage else None},
        "communication_data_type": "fp16" if precision.dtype == torch.float16 else "fp32",
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31 - 1,
    }


class ZeroLearner(Learner):
    """A `Learner` that leaves backward, clipping and step to DeepSpeed.

    Args:
        net, optimizer, lr, weight_decay, runtime, precision: as `Learner`. config: from `deepspeed_config`.

    Raises:
        ValueError: DeepSpeed is not installed, or refuses the configuration.
    """

    def __init__(self, net: nn.Module, optimizer: torch.optim.Optimizer, lr: Schedule, config: dict, *,
                 weight_decay: Schedule | None, runtime: Runtime, precision: Precision):
        deepspeed = import_deepspeed(runtime)
        if runtime.world_size == 1 and not dist.is_initialized():
            backend = "nccl" if runtime.device.type == "cuda" else "gloo"
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
        self.lr, self.weight_decay, self.precision, self.steps = lr, weight_decay, precision, 0
        self.runtime, self.stage = runtime, config["zero_optimization"]["stage"]
        self.clip_grad = config["gradient_clipping"] or None
        self.health, self.scaler = Health(runtime.device, runtime), torch.amp.GradScaler(enabled=False)
        apply_schedules(optimizer, 0, lr, weight_decay)
        self.net, *_ = deepspeed.initialize(model=net, optimizer=optimizer, config=config, dist_init_required=False)
        # DeepSpeed shares this very optimiser's groups: what is set here is what it steps with.
        self.optimizer, self.module = optimizer, self.net.module
        for buffer in self.module.buffers():   # DeepSpeed casts the parameters alone
            if buffer.is_floating_point():
                buffer.data = buffer.data.to(precision.dtype)

    def __call__(self, *inputs: Tensor, **options) -> Tensor:
        """The network's forward; float inputs are cast to the weights' dtype."""
        return self.net(*(one.to(self.precision.dtype) if one.is_floating_point() else one for one in inputs),
                        **options)

    @contextlib.contextmanager
    def accumulating(self, more: bool) -> Iterator[None]:
        """As `Learner.accumulating`; DeepSpeed also wants to hear of the micro-batches that do not step."""
        self.net.set_gradient_accumulation_boundary(not more)
        yield
        if more:
            self.net.step()

    def backward(self, loss: Tensor) -> None:
        """As `Learner.backward`: the loss comes divided by the number of micro-batches."""
        self.check(loss=loss)
        self.net.backward(loss, scale_wrt_gas=False)

    def step(self) -> Tensor | None:
        """As `Learner.step`; the norm is None where DeepSpeed computed none.

        Raises:
            ValueError: the loss is not finite; what DeepSpeed shares out, it cannot be asked to leave out.
        """
        if self.health.close():
            raise ValueError(f"step {self.steps}: the loss is not finite; the last checkpoint is from before. Lower "
                             "--lr, set --clip_grad 1, or run without --enable_deepspeed, which skips such steps")
        self.net.step()
        self.steps += 1
        apply_schedules(self.optimizer, self.steps, self.lr, self.weight_decay)
        norm = self.net.get_global_grad_norm()
        return None if norm is None else torch.as_tensor(norm, device=self.runtime.device)   # stage 0 gives a number

    def weights(self) -> dict[str, Tensor]:
        """The whole weights in float32 on the CPU, under their plain names: from the optimiser's masters, not from the
        bf16 copies; every process must call."""
        from deepspeed.utils import safe_get_full_fp32_param

        wrapper = self.net.optimizer   # stage 0 in bf16 or fp16 keeps its masters in lists beside those of the copies
        pairs = zip(getattr(wrapper, "fp16_groups", ()), getattr(wrapper, "fp32_groups", ()), strict=True)
        masters = {id(copy): master for copies, groups in pairs for copy, master in zip(copies, groups, strict=True)} \
            if self.stage == 0 else {}
        whole = {}
        for name, parameter in self.module.named_parameters():
            master = masters.get(id(parameter), safe_get_full_fp32_param(parameter))
            whole[name] = (parameter if master is None else master).detach().float().cpu().clone()
        return whole

    def save(self, folder: Path) -> dict:
        """Write DeepSpeed's own files (states of the optimiser, every process its share) to `folder`."""
        self.net.save_checkpoint(str(folder.parent), tag=folder.name, save_latest=False)
        return {"deepspeed": folder.name, "zero_stage": self.stage, "world_size": self.runtime.world_size,
                "steps": self.steps}

    def load(self, weights: dict[str, Tensor], state: dict, folder: Path) -> None:
        """Continue from `save`; the weights come with DeepSpeed's files.

        Raises:
            ValueError: it was written without DeepSpeed, or by another stage or number of processes.
            FileNotFoundError: DeepSpeed's files are not beside the checkpoint.
        """
        del weights
        own = {"zero_stage": self.stage, "world_size": self.runtime.world_size}
        if {name: state.get(name) for name in own} != own:
            raise ValueError(f"{folder.name}.pth was written with zero_stage {state.get('zero_stage')} on "
                             f"{state.get('world_size')} process(es), this run has {self.stage} on "
                             f"{self.runtime.world_size}: resume with the same, or --finetune its weights")
        if not folder.is_dir():
            raise FileNotFoundError(f"DeepSpeed's half of the checkpoint is missing: {folder}")
        self.net.load_checkpoint(str(folder.parent), tag=folder.name)
        self.steps = state["steps"]
        apply_schedules(self.optimizer, self.steps, self.lr, self.weight_decay)


def import_deepspeed(runtime: Runtime):
    """DeepSpeed, told which device this process uses.

    Raises:
        ValueError: it is not installed.
    """
    if runtime.device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("LOCAL_RANK", str(runtime.local_rank))
    try:
        import deepspeed
    except ImportError as error:
        raise ValueError(f"--enable_deepspeed: DeepSpeed cannot be imported ({error}); pip install deepspeed, or leave "
                         "the flag out for plain DDP") from error
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    return deepspeed
