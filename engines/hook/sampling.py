"""Algorithm 1 around a training loop of one's own: who masks, and what comes of it, in two calls.
    mask = sampling.choose(model, videos, mask, epoch)     # before the forward
    sampling.learn(errors)                                 # after it
The loop keeps its model, loss, optimiser and data. Phases one and two are those of the engines.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ...masking import ALIASES, Masking, find_masking, masked_indices
from ..config.pretraining import MaskConfig
from ..core.runtime import Runtime, choose_precision
from ..engine_for_pretraining import PretrainSetup, draw_masks, reinforce
from ..engine_for_pretraining_ppo import Choice, EpisodeBuffer, PPOTraining, choose_masks, phase_two, recorded
from ..pretrain.interface import PatchSize
from ..pretrain.outcome import Outcome
from ..pretrain.ppo import entropy_coefficient
from ..pretrain.reconstruction import Reconstruction
from ..pretrain.users_code import measured
from ..training.bad_steps import BadSteps
from ..training.batches import ClipBatch, Normalizer
from . import building
from .errors import masked_errors
from .first_batch import check_first_batch
from .incoming import Incoming, Pending
from .misuse import Remarks, check_call, check_epoch, check_errors
from .numbers import EpochNumbers
from .options import options_of
from .saving import restore, state_of
from .tokens import PixelTokens, time_first

LOOK_EVERY = 50   # steps between two looks at the policy's bad steps, each of which waits for the device


class SamplingHook:
    """The policy, its optimiser, schedule, buffer, m_o and k, precision, DDP, diagnostics and state.

    B: clips, N: tokens.

    Args:
        model: the autoencoder on its device, in DDP or not; None where `choose` is given tokens.
        mask_type: a row of the registry by name, or a row.
        grid: (T', H', W') of its tokens; images have T' = 1.
        mask_ratio: rho.
        tokens: "model": patch embedding plus positions of the model's class, see `ModelTokens`. "pixels": see
            `PixelTokens`. A function (videos) -> (B, N, D), positions included, with `width`. "given": `choose` gets
            them in the model's place, with `width`.
        width: D, where the tokens do not say it; of "pixels" 192 by default.
        settings: of `HookOptions`, and any flag of `SamplerConfig`: mae_only_epochs (m_o, 10 by default), ...

    Raises:
        ValueError: an unknown name, a value that cannot be run with, or a model whose tokens are not found.
    """

    def __init__(self, model: nn.Module | None, mask_type: str | Masking, grid: tuple[int, int, int],
                 mask_ratio: float = 0.9, *, tokens: str | Callable[[Tensor], Tensor] = "model",
                 width: int | None = None, **settings: Any):
        self.options, self.config = options, config = options_of(settings)
        self.row = mask_type if isinstance(mask_type, Masking) else find_masking(mask_type)
        self.mask_type = ALIASES.get(mask_type, mask_type) if isinstance(mask_type, str) else ""
        self.grid = building.checked_grid(grid)
        self.device = building.device_of(model, options)
        ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else ()
        self.runtime = Runtime(self.device, *ranks)
        self.precision = choose_precision(options.amp, self.device)
        self.tokens = self.sampler = net = None
        if self.row.sampler is not None:
            self.tokens = building.token_source(model, self.grid, tokens, width)
            masks = MaskConfig(self.mask_type, mask_ratio, options.num_visible)
            net = building.build_policy(self.row, self.grid, self.tokens.width, masks, config)
            self.sampler = building.policy_learner(self.row, net.to(self.device), options, config, self.runtime,
                                                   self.precision)
        if self.runtime.is_main:
            building.say_unread(self.row, self.options, config)
        self.numbers = EpochNumbers(self.grid, self.runtime, config)
        normalizer, patch = Normalizer(self.device, options.mean, options.std), PatchSize(1, 1)
        setup = PretrainSetup(self.device, normalizer, Reconstruction(), patch, options.update_freq,   # own targets
                              reward=building.reward_of_a_loop(config, self.grid), diagnostics=self.numbers.diagnostics)
        self.incoming = Incoming(self.grid, self.row.per_clip(self.grid, mask_ratio, options.num_visible), normalizer,
                                 options.layout or ("btchw" if time_first(model) else "bcthw"))
        self.training = PPOTraining(setup, config, entropy_coefficient(net, config, self.device), options.epochs)
        self.buffer = EpisodeBuffer()
        self.bad_steps = BadSteps({"sampler": self.sampler}, None, options.max_bad_steps, {})
        self.epoch, self.next_epoch = None, 0
        self.acted = self.micro = 0         # epochs of the policy; micro-batches of this epoch
        self.open = self._looked = False    # whether this epoch has steps; whether a first batch has been looked at
        self._pending, self.remarks = None, Remarks()

    @property
    def waiting(self) -> bool:
        """Whether nothing has been learned from the last mask yet."""
        return self._pending is not None

    @contextlib.contextmanager
    def _apart(self):
        """Not under the loop's autocast, nor its no_grad: the policy has its own precision and its own graph."""
        with torch.autocast(self.device.type, enabled=False), torch.enable_grad():
            yield

    def choose(self, model: nn.Module | Tensor | None, videos: Tensor, mask: Any = None,
               epoch: int | None = None, *, keys: Tensor | None = None) -> Tensor:
        """The mask to train this batch with, bool (B, N), True = masked (invisible to the encoder), on the device.

        Before epoch m_o, and for strategies without a sampler, it is the loader's.

        Args:
            model: the autoencoder, or its tokens X (B, N, D).
            videos: as the model takes them, normalised: (B, C, T, H, W), images (B, C, H, W); transformers' VideoMAE
                has (B, T, C, H, W).
            mask: the loader's, any shape and type of N numbers a clip; None: one is drawn here.
            epoch: from 0; the policy acts from m_o (mae_only_epochs) on. None: `end_epoch` counts them.
            keys: int64 (B,), names each clip's random draws; None: torch's generator.

        Raises:
            ValueError: shapes that do not fit the grid.
        """
        epoch = self.next_epoch if epoch is None else epoch
        check_call(self, model, epoch)
        self._enter(epoch)
        with self._apart():
            batch = self.incoming.batch(videos, mask, keys)
            if not self._looked:
                check_first_batch(self, model, videos, batch, epoch)
                self._looked = True
            more = (self.micro + 1) % self.options.update_freq != 0
            chosen, choice = batch.mask, None
            if self.acts(epoch):
                chosen, choice = self._drawn(self.read_tokens(model, videos), batch, more, epoch)
            self.numbers.diagnostics.mask(chosen)
        hidden = self.incoming.hidden if choice is None else self.grid.num_tokens - self.sampler.module.num_visible
        self._pending = Pending(batch, chosen, masked_indices(chosen, hidden), more, choice)
        return chosen

    @property
    def log_pi(self) -> Tensor | None:
        """log pi (B, N) of the policy that drew the last mask, without gradient; None where it is the loader's."""
        choice = self._pending.choice
        choice = choice.log_pi if isinstance(choice, Choice) else choice
        return None if choice is None else choice.detach()

    def acts(self, epoch: int) -> bool:   # whether the masks of this epoch are the policy's
        return self.sampler is not None and (self.row.learner != "ppo" or epoch >= self.training.mae_only_epochs)

    def _enter(self, epoch: int) -> None:
        if epoch == self.epoch:
            self.open = True
            return
        if self.open:
            self.numbers.log(self.epoch, self.end_epoch())
        elif len(self.buffer):
            self._flush()      # a checkpoint of the middle of an epoch
        self.epoch, self.next_epoch, self.open, self.micro = epoch, epoch, True, 0
        self.acted += self.acts(epoch)

    def read_tokens(self, model: nn.Module | Tensor | None, videos: Tensor) -> Tensor:
        """X (B, N, D), what the policy sees of the videos; arguments as for `choose`."""
        if isinstance(model, Tensor):
            if len(model) != len(videos):
                raise ValueError(f"tokens of {len(model)} clips beside {len(videos)} videos")
            return model.detach().to(self.device)
        videos = self.incoming.videos(videos) if isinstance(self.tokens, PixelTokens) else videos.to(self.device)
        with self.precision.autocast():
            return self.tokens(model, videos, not self.sampler.module.own_positions)

    def _drawn(self, tokens: Tensor, batch: ClipBatch, more: bool, epoch: int) -> tuple[Tensor, Choice | Tensor]:
        if self.row.learner == "ppo":
            choice = choose_masks(tokens, self.sampler, batch, self.training, self.training.random_share(epoch))
            log_pi, mask = choice.log_pi, choice.mask
        else:
            choice, mask = draw_masks(tokens, self.sampler, batch, more, self.training.setup)
            log_pi = choice
        # A policy that is not finite does not learn from this step (`phase_two` checks); the loop's model does, and
        # gets random masks instead of the first tokens.
        fine = log_pi.detach().isfinite().all(dim=1, keepdim=True)
        uniform = torch.zeros_like(log_pi.detach())
        mask = torch.where(fine, mask, self.sampler.module.draw(uniform, batch.keys, -2).mask)
        return mask, choice._replace(mask=mask) if isinstance(choice, Choice) else choice

    def learn(self, errors: Tensor, known: Tensor | None = None) -> None:
        """What came of the chosen mask; the policy is updated after every k steps.

        Args:
            errors: the error of each token, any loss, larger for what is harder: (B, N) of all or (B, M) of the masked
                ones in ascending order (t h w); with `known`, bool, also of others, see `masked_errors`.

        Raises:
            ValueError: nothing was chosen, or the shapes do not fit; many steps in a row were not finite.
        """
        if self._pending is None:
            raise ValueError("learn(errors) without a mask: call choose(...) before the forward of every batch")
        pending = self._pending
        errors = masked_errors(errors, pending.masked, self.grid.num_tokens, known)
        check_errors(self, pending.masked, known)
        outcome = Outcome(errors, pending.masked, pending.batch, self.log_pi)
        self.numbers.meters(**measured(outcome))
        self.learn_from(outcome)

    def learn_from(self, outcome: Outcome) -> None:
        """`learn`, where the engines' own `train_mae` made the outcome and logged it."""
        pending, self._pending = self._pending, None
        setup = self.training.setup
        with self._apart():
            if isinstance(pending.choice, Choice):
                self.buffer.update(recorded(pending.choice, outcome, self.training))
                if not pending.more and len(self.buffer) >= self.config.update_every * setup.update_freq:
                    phase_two(self.sampler, self.buffer, self.training, self.numbers.meters)
            elif pending.choice is not None and self.sampler.optimizer is not None:
                self.sampler.start(self.sampler.steps)   # reads the rate that it follows
                reinforce(self.sampler, pending.choice, outcome, pending.more, setup, self.numbers.meters)
        self.micro += 1
        if self.micro % LOOK_EVERY == 0:
            self._check()

    def _check(self) -> None:
        self.bad_steps.check(lambda _: {"epoch": self.epoch, "last_step": self.sampler.steps})

    def _flush(self) -> None:
        """No episode is carried into an epoch whose autoencoder has moved on; an unfinished step is left out."""
        self.buffer.trim(self.options.update_freq)
        if len(self.buffer) and self.config.flush_buffer:
            with self._apart():
                phase_two(self.sampler, self.buffer, self.training, self.numbers.meters)

    def end_epoch(self, **others: float) -> dict[str, float]:
        """Close the epoch: the numbers of docs/monitoring.md that the hook has, over all processes, each of which must
        call. `choose` calls it where a new epoch begins, and then logs them.

        Args:
            others: numbers of the loop itself that the alerts may read: explained_variance, data_share.
        """
        self._flush()
        self._check()
        check_epoch(self)
        self.remarks.forget()
        self.next_epoch, self.open, self._pending = self.next_epoch + self.open, False, None
        return self.numbers.close(self.epoch, self.acted, others)

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimiser, c3, what the middle of an epoch holds; no random state. Empty without a sampler."""
        return state_of(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` returned. Raises ValueError: it holds none, or another policy."""
        restore(self, state)
        self._pending = None
