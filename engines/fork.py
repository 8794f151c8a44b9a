"""TATS, and every other masking of the registry, inside a fork of VideoMAE, with its own model, data and checkpoints.

A fork changes a few lines, none of them in its model (docs/fork.md shows them in place):

    from tats.engines.fork import TokenSampling, add_sampling_flags, loader_mask, mask_types, train_one_epoch

What the fork does not have a place for, the sampler with its optimiser, travels in the loss scaler, which the fork
already builds, hands to the epoch, saves and resumes. A fork whose loss is its own keeps its `train_one_epoch` and
calls `loss_scaler.choose` and `loss_scaler.learn` there; one with VideoMAE's loss may take ours.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..masking import Masking, RandomMasking
from .core.logs import Progress, set_up_logging
from .core.meters import Meters
from .engine_for_pretraining import PretrainSetup, train_mae
from .hook.fork_args import add_sampling_flags, grid_of_args, loader_mask, mask_of_fork, mask_types, policy_flags
from .hook.misuse import check_step
from .hook.sampling import SamplingHook
from .hook.tokens import bare
from .pretrain.interface import patch_size_of
from .pretrain.reconstruction import Reconstruction
from .training.batches import Normalizer
from .training.learner import Learner

__all__ = ["TokenSampling", "add_sampling_flags", "loader_mask", "mask_types", "train_one_epoch"]

# Arguments that forks have added to `train_one_epoch` and that say nothing of the loss: those of any value, and those
# that do nothing at this one.
HARMLESS = {"save_dir", "log_dir", "output_dir"}
IDLE = {"num_samples": 1, "num_sample": 1}


class TokenSampling:
    """VideoMAE's loss scaler, with the sampler of `args.mask_type` and its optimiser beside it.

    Call it, save it and load it as the scaler that it wraps. `train_one_epoch` finds the sampler in it; a loop of the
    fork's own calls `choose` and `learn`, see `SamplingHook`.

    A mask_type that the fork's parser offered before `add_sampling_flags` and that is no name of the registry is the
    fork's own: its masks and its loss stay as they are. `choose` then returns what it was given, as bool (B, N) on the
    device where that is a mask of the grid: None, a map of pixels or a placeholder of a fork that draws its masks later
    comes back as it is.

    Args:
        args: VideoMAE's arguments with those of `add_sampling_flags`, and `window_size`. Needed are `mask_type`,
            `mask_ratio` and `window_size`; optimiser settings that are not there have VideoMAE's defaults.
        model: the network on its device.
        scaler: the fork's NativeScalerWithGradNormCount, or None.
        settings: of `SamplingHook`: tokens, width, mean, std, ...

    Raises:
        ValueError: an unknown mask_type, a setting that cannot be run with, or a model whose tokens are not found.
    """

    def __init__(self, args: argparse.Namespace, model: nn.Module, scaler: Any, **settings: Any):
        self.scaler = scaler
        self.own = args.mask_type in getattr(args, "own_mask_types", ())
        optimiser = {"opt": "adamw", "opt_eps": 1e-8, "momentum": 0.9, "weight_decay": 0.05, "clip_grad": None,
                     "num_visible": None}
        # fp16 as VideoMAE has it on GPUs; its CPU has no autocast.
        cuda = next(model.parameters()).device.type == "cuda"
        chosen = {name: getattr(args, name, default) for name, default in optimiser.items()} | {
            "opt_betas": tuple(getattr(args, "opt_betas", None) or (0.9, 0.95)), "amp": "fp16" if cuda else "fp32"}
        row = Masking(RandomMasking) if self.own else args.mask_type
        self.hook = SamplingHook(model, row, grid_of_args(args), args.mask_ratio,
                                 **chosen | policy_flags(args) | settings)
        set_up_logging(self.hook.runtime.is_main)
        self.end_epoch, self._left_alone = self.hook.end_epoch, False

    def choose(self, model: nn.Module | Tensor | None, videos: Tensor, mask: Any = None,
               epoch: int | None = None, *, keys: Tensor | None = None) -> Tensor | None:
        """`SamplingHook.choose`; under a mask_type of the fork's own what it is given."""
        found = mask_of_fork(mask, len(videos), self.hook.grid.num_tokens) if self.own else None
        if found is not None:
            mask = found.to(self.hook.device, non_blocking=True)
        self._left_alone = self.own and (found is None or bool((mask.sum(dim=1) != mask[0].sum()).any()))
        return mask if self._left_alone else self.hook.choose(model, videos, mask, epoch, keys=keys)

    def learn(self, errors: Tensor, known: Tensor | None = None) -> None:
        """`SamplingHook.learn`; nothing where `choose` has left the mask to the fork's model."""
        if not self._left_alone:
            self.hook.learn(errors, known)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The scaler's. Raises ValueError: the loop accumulates gradients, and the sampler was not told (update_freq).
        """
        check_step(self.hook, kwargs.get("update_grad", True))
        return self.scaler(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """Whatever else the fork's scaler has."""
        if name in ("scaler", "hook"):
            raise AttributeError(name)
        return getattr(self.scaler, name)

    def state_dict(self) -> dict[str, Any]:
        """The scaler's, and under "sampling" the hook's."""
        state = {} if self.scaler is None else self.scaler.state_dict()
        return {**state, "sampling": self.hook.state_dict()} if self.hook.sampler is not None else state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` returned.

        Raises:
            ValueError: this run has a sampler and the checkpoint none, or another one.
        """
        state = dict(state)
        sampling = state.pop("sampling", {})
        if self.scaler is not None:
            self.scaler.load_state_dict(state)
        self.hook.load_state_dict(sampling)


class ForkReconstruction(Reconstruction):
    """VideoMAE's loss to the digit: one mean over all values, and not a mean of each token's mean."""

    def loss_of(self, errors: Tensor, prediction: Tensor, target: Tensor) -> Tensor:
        """L_R (Eq. 6)."""
        del errors
        return nn.functional.mse_loss(prediction.float(), target)


class ForkLearner(Learner):
    """The fork's model as f_phi: its optimiser, its scaler, its tables of learning rate and weight decay."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, sampling: TokenSampling, *,
                 lr: Callable[[int], float], weight_decay: Callable[[int], float] | None, clip_grad: float | None):
        super().__init__(bare(model), optimizer, lr, weight_decay=weight_decay, clip_grad=clip_grad,
                         precision=sampling.hook.precision)
        self.net, self.native, self.norm = model, sampling.scaler, None

    def backward(self, loss: Tensor) -> None:
        """VideoMAE's scaler scales, clips and steps in one call, so this is also the step.

        Raises:
            ValueError: the loss is not finite; VideoMAE ends there too.
        """
        if not loss.isfinite():
            raise ValueError(f"step {self.steps}: the loss is not finite; lower --lr or set --clip_grad 1")
        self.norm = self.native(loss, self.optimizer, clip_grad=self.clip_grad, parameters=self.module.parameters())

    def step(self) -> Tensor | None:
        """The rest of the step that `backward` took."""
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        self._apply_schedules()
        return self.norm


def train_one_epoch(model: nn.Module, data_loader: Iterable, optimizer: torch.optim.Optimizer,  # noqa: PLR0913 - VideoMAE's
                    device: torch.device, epoch: int, loss_scaler: TokenSampling, max_norm: float | None = None,
                    patch_size: int = 16, normlize_target: bool = True, log_writer: Any = None,
                    lr_scheduler: Any = None, start_steps: int | None = None,
                    lr_schedule_values: Sequence[float] | None = None,
                    wd_schedule_values: Sequence[float] | None = None, *,
                    target: Callable[[Tensor, Tensor], Tensor] | None = None, **others: Any) -> dict[str, float]:
    """One epoch of Algorithm 1, of AdaMAE, or with the loader's masks, in the place of VideoMAE's function.

    Args:
        model: has `encoder.patch_embed`, `encoder.pos_embed` and `forward(videos, bool_masked_pos)`.
        data_loader: yields (videos normalised, mask of `loader_mask`).
        loss_scaler: a `TokenSampling`.
        max_norm, start_steps, log_writer, lr_schedule_values, wd_schedule_values: as VideoMAE's; patch_size and
            lr_scheduler are there for the signature.
        target: in the place of the masked tokens' pixels, see `Reconstruction.targets`.
        others: what a fork has added to its own function.

    Returns:
        Means of the epoch over all processes, for log.txt.

    Raises:
        ValueError: one of `others` may change the loss, which is not known here; batches with a second mask; a loss
            that is not finite, or many steps of the sampler in a row.
    """
    del patch_size, lr_scheduler
    _refuse(others)
    hook, first = loss_scaler.hook, start_steps or 0

    def table(values: Sequence[float] | None) -> Callable[[int], float] | None:
        return None if values is None else lambda step: float(values[min(step, len(values) - 1)])

    constant = optimizer.param_groups[0]["lr"]
    rate = table(lr_schedule_values) or (lambda step: constant)
    mae = ForkLearner(model, optimizer, loss_scaler, lr=rate, weight_decay=table(wd_schedule_values),
                      clip_grad=max_norm)
    mae.start(first)
    optimizer.zero_grad(set_to_none=True)
    model.train()
    if hook.sampler is not None:
        hook.sampler.module.train()
        if hook.row.learner == "reinforce":
            hook.sampler.lr = rate      # AdaMAE trains its sampler at the MAE's rate
    options, log = hook.options, Meters(hook.device)
    setup = PretrainSetup(device, Normalizer(device, options.mean, options.std),
                          ForkReconstruction(normalize=normlize_target, targets=target), patch_size_of(mae.module))
    loader = Progress(data_loader, f"epoch {epoch}", log.means, 10, hook.runtime.is_main)
    for given in loader:
        _refuse_second_mask(given)
        batch = setup.normalizer.prepare(given, device)
        mask = hook.choose(mae.module, batch.videos, batch.mask, epoch, keys=batch.keys)
        hook.learn_from(train_mae(mae, batch, mask, False, setup, log, hook.log_pi))
    means = log.means(hook.runtime)
    measured = {name: means[name] for name in ("explained_variance",) if name in means}
    means |= hook.end_epoch(**measured, data_share=loader.data_share)
    means |= {"lr": max(group["lr"] for group in optimizer.param_groups), "data_share": round(loader.data_share, 4)}
    if log_writer is not None:
        log_writer.update(head="loss", loss=means["loss"])
        log_writer.update(head="sampling", **{name: value for name, value in means.items() if name != "loss"})
    return means


HOOK = ("keep your own train_one_epoch, and put two lines into it: mask = loss_scaler.choose(model, videos, mask, "
        "epoch) before the forward, and loss_scaler.learn(errors) with the error of each token after it (docs/fork.md)")


def _refuse(others: dict[str, Any]) -> None:
    """Raises ValueError: an argument that may change the loss."""
    left_out = [name for name, value in others.items()
                if name not in HARMLESS and value not in (None, False) and IDLE.get(name, others) != value]
    if left_out:
        raise ValueError(f"train_one_epoch of tats.engines.fork does not know {', '.join(sorted(left_out))}: what they "
                         f"do to the loss would be left out. {HOOK[0].upper()}{HOOK[1:]}")


def _refuse_second_mask(batch: Sequence) -> None:
    """Raises ValueError: the third element has the size of the mask, as with VideoMAEv2's decoder masks."""
    if len(batch) > 2 and isinstance(batch[2], Tensor) and batch[2].numel() == torch.as_tensor(batch[1]).numel():
        raise ValueError("the loader yields a second mask, which train_one_epoch of tats.engines.fork does not use: "
                         f"{HOOK}")
