"""transformers' VideoMAEForPreTraining and ViTMAEForPreTraining with a hook, in a loop or in its Trainer."""

import logging
import sys
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from ...datasets.files import written_whole
from ...masking import TokenGrid
from ...models import reconstruction_targets
from ..training.batches import Normalizer
from .masked import noise_of
from .sampling import SamplingHook
from .tokens import bare

logger = logging.getLogger(__name__)

STATE = "sampling.pt"   # beside model.safetensors


def grid_of(model: nn.Module) -> TokenGrid:
    """The token grid of the model's config; images have one frame."""
    config = model.config
    height, width = (size // config.patch_size for size in _sides(config.image_size))
    frames = config.num_frames // config.tubelet_size if hasattr(model, "videomae") else 1
    return TokenGrid(frames, height, width)


def _sides(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def hook_for(model: nn.Module, mask_type: str = "tats", mask_ratio: float | None = None,
             **settings: Any) -> SamplingHook:
    """A `SamplingHook` with the model's grid.

    Args:
        model: VideoMAEForPreTraining or ViTMAEForPreTraining, on its device.
        mask_ratio: rho; None: .9 for videos, and that of the config for ViTMAE, which shows so many tokens whatever
            mask it gets.

    Raises:
        ValueError: another class, or a mask_ratio that is not that of a ViTMAE's config.
    """
    if hasattr(model, "videomae"):
        return SamplingHook(model, mask_type, grid_of(model), mask_ratio or 0.9, **settings)
    if not hasattr(model, "vit") or not hasattr(model.config, "mask_ratio"):
        raise ValueError(f"{type(model).__name__} is neither VideoMAEForPreTraining nor ViTMAEForPreTraining: build a "
                         "tats.engines.hook.SamplingHook for it")
    if mask_ratio not in (None, model.config.mask_ratio):
        raise ValueError(f"mask_ratio {mask_ratio:g} beside model.config.mask_ratio {model.config.mask_ratio:g}, which "
                         "the model goes by: set that one")
    grid = grid_of(model)
    shown = int(grid.num_tokens * (1 - model.config.mask_ratio))   # as the model counts them
    return SamplingHook(model, mask_type, grid, model.config.mask_ratio, **{"num_visible": shown} | settings)


def mask_argument(model: nn.Module, mask: Tensor) -> dict[str, Tensor]:
    """The keyword argument by which the model's forward takes the mask, bool (B, N)."""
    return {"bool_masked_pos": mask} if hasattr(model, "videomae") else {"noise": noise_of(mask)}


def token_errors(model: nn.Module, pixel_values: Tensor, mask: Tensor, logits: Tensor) -> Tensor:
    """The squared error of each token as the model's own loss has it: of the masked tokens (B, M) for VideoMAE, of all
    tokens (B, N) for ViTMAE. The mean over the masked tokens is `outputs.loss`."""
    config = model.config
    with torch.no_grad():
        if hasattr(model, "videomae"):
            pixels = pixel_values.transpose(1, 2)
            if config.num_channels == 3:
                pixels = Normalizer(pixels.device).denormalize(pixels)
            target = reconstruction_targets(pixels, mask, config.patch_size, config.tubelet_size, config.norm_pix_loss)
        else:
            target = model.patchify(pixel_values)
            if config.norm_pix_loss:
                target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
        return (logits.detach().float() - target).square().mean(dim=-1)


class SamplingCallback(TrainerCallback):
    """TATS in `transformers.Trainer(callbacks=[SamplingCallback(...)])`; the data set yields `pixel_values` alone.

    In training the model's forward gets the policy's masks. After each epoch `state.log_history` has the sampler's
    numbers. Every checkpoint folder of the Trainer holds the policy beside the model, and a resume reads it there.

    Args:
        mask_type, mask_ratio, settings: as for `hook_for`.
        resume_from: the checkpoint folder, where `trainer.train(resume_from_checkpoint=FOLDER)` names one outside of
            output_dir.

    Attributes:
        sampling: the hook, from the beginning of the training on.
    """

    def __init__(self, mask_type: str = "tats", mask_ratio: float | None = None, *,
                 resume_from: str | Path | None = None, **settings: Any):
        self.arguments, self.settings, self.resume_from = (mask_type, mask_ratio), settings, resume_from
        self.sampling: SamplingHook | None = None
        self.epoch = 0

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        """Build the hook, read its state where the Trainer goes on, and listen to the model.

        Raises:
            ValueError: one process with several GPUs, or a checkpoint without the policy, or with another run's.
        """
        if args.n_gpu > 1:
            raise ValueError("one process trains on several GPUs, each with a copy of the model: start one process a "
                             "GPU, with torchrun or accelerate")
        network = bare(model)
        epochs = state.num_train_epochs   # those of args where max_steps does not say otherwise
        if epochs >= sys.maxsize:   # of a data set that does not tell its length: nobody knows
            epochs = None
        self.sampling = hook_for(network, *self.arguments, **{
            "update_freq": args.gradient_accumulation_steps, "epochs": epochs,
            "steps_per_epoch": max(1, round(state.max_steps / (epochs or 1)))} | self.settings)
        if state.global_step:
            folder = self.resume_from or _checkpoint(args, state)   # the Trainer does not tell which it has read
            load_sampling(folder, self.sampling)
            _complete(network, Path(folder))
        self._listening = [network.register_forward_pre_hook(self._before, with_kwargs=True),
                           network.register_forward_hook(self._after, with_kwargs=True)]

    def on_epoch_begin(self, args, state, control, **kwargs):
        """Note the epoch, from 0."""
        self.epoch = int(state.epoch or 0)

    def on_epoch_end(self, args, state, control, **kwargs):
        """The epoch's numbers into the history."""
        state.log_history.append(self.sampling.end_epoch() | {"epoch": state.epoch, "step": state.global_step})

    def on_save(self, args, state, control, **kwargs):
        """The policy beside the model."""
        if state.is_world_process_zero:
            save_sampling(_checkpoint(args, state), self.sampling)

    def on_train_end(self, args, state, control, **kwargs):
        """Leave the model as it was."""
        for handle in self._listening:
            handle.remove()

    def _before(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        if not module.training:
            return None
        self._mask = self.sampling.choose(module, kwargs["pixel_values"], kwargs.get("bool_masked_pos"), self.epoch)
        return args, kwargs | mask_argument(module, self._mask)

    def _after(self, module: nn.Module, args: tuple, kwargs: dict, outputs: Any) -> None:
        if module.training:
            self.sampling.learn(token_errors(module, kwargs["pixel_values"], self._mask, outputs.logits))


def _checkpoint(args: Any, state: Any) -> Path:
    """Where the Trainer writes its checkpoint of this step."""
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"


def _complete(model: nn.Module, folder: Path) -> None:
    """Give the model what the Trainer has left out of its checkpoint.

    transformers 5 writes VideoMAE's biases of queries and values under their old names, which `from_pretrained` knows
    and the Trainer's resume does not: it goes on with fresh ones.

    Raises:
        ValueError: the Trainer has read another checkpoint.
    """
    written = {name for path in folder.glob("*.safetensors") for name in safetensors.safe_open(path, "pt").keys()}
    state, saved = model.state_dict(), type(model).from_pretrained(folder).state_dict()
    differ = [name for name, value in saved.items() if not torch.equal(value, state[name].cpu())]
    if written.intersection(differ):
        raise ValueError(f"{folder} is not the checkpoint that the Trainer has read: name its folder in "
                         "SamplingCallback(resume_from=...), too")
    if differ:
        logger.warning("the Trainer has not read %d weights of %s, such as %s: they are read now", len(differ), folder,
                       differ[0])
        with torch.no_grad():
            for name in differ:
                state[name].copy_(saved[name])


def save_sampling(folder: str | Path, sampling: SamplingHook) -> Path:
    """Write the policy into the folder of `save_pretrained`; returns the file."""
    path = Path(folder) / STATE
    with written_whole(path, "wb") as file:
        torch.save(sampling.state_dict(), file)
    return path


def load_sampling(folder: str | Path, sampling: SamplingHook) -> None:
    """Put back what `save_sampling` wrote.

    Raises:
        ValueError: there is nothing, or another policy.
    """
    path = Path(folder) / STATE
    if not path.exists():
        raise ValueError(f"{path} does not exist: the model there was trained without the sampler, start it anew")
    sampling.load_state_dict(torch.load(path, map_location=sampling.device, weights_only=True))
