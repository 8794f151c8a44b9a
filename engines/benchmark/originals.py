"""The published codebases beside ours: their own files, imported unmodified from a clone that the user names.

They were written for torch 1.8 and timm 0.4: names that are gone since are put back while they are imported, and
packages that are not installed stand in empty, since most of what is imported is not called. A contestant that calls
one is left out. Nothing that the measured code calls is replaced, but `torch.cuda.synchronize` without CUDA.
"""

import contextlib
import importlib
import importlib.util
import io
import math
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from ..core.runtime import Precision
from .timing import LeftOut

# Imported at the top of their files. What a name holds is all that the measured code takes from it, but for cv2: the
# test views of VideoMAE resize with it.
_GONE = {"torch._six": {"inf": math.inf}, "numpy.lib.function_base": {"disp": None}, "cv2": {}, "scipy": {},
         "scipy.io": {}, "simplejson": {}, "fvcore": {}, "fvcore.common": {}, "fvcore.common.registry": {}}


_TO_INSTALL = {"cv2": "opencv-python-headless"}   # where the package has another name than its module


class _NotInstalled(types.ModuleType):
    """Stands in for a package; whoever calls it is left out."""

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        raise ModuleNotFoundError(f"No module named {self.__name__!r}", name=self.__name__)


class Clone:
    """A clone of one of the originals.

    Args:
        path: its folder. marker: a file that it must hold.

    Raises:
        ValueError: it does not hold that file.
    """

    def __init__(self, path: str, marker: str):
        self.path = Path(path).resolve()
        if not (self.path / marker).is_file():
            raise ValueError(f"{path} is no clone of the original: {marker} is missing; give the folder of a git clone")

    def load(self, name: str) -> ModuleType:
        """Its module `name`, by the name that its own files use; nothing of it stays importable.

        Raises:
            LeftOut: see `code`.
        """
        before = dict(sys.modules)
        with self.code(), _without_names_gone(), warnings.catch_warnings(), \
                contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            searched = sys.path[:]
            # Not where this was started: a checkout of ours has a `models` too, and AdaMAE's has no __init__.py.
            sys.path[:] = [str(self.path), *(place for place in searched if Path(place).resolve() != Path.cwd())]
            try:
                return importlib.import_module(name)
            finally:
                sys.path[:] = searched
                for added in [key for key, module in sys.modules.items() if key not in before and self._owns(module)]:
                    del sys.modules[added]   # both clones have a `utils` and a `models`

    @contextlib.contextmanager
    def code(self) -> Iterator[None]:
        """For a block that runs its code.

        Raises:
            LeftOut: the code imports or calls what is not installed, fails with what is, or ends the program, as the
                engines do where a loss is not finite.
        """
        try:
            yield
        except (AttributeError, TypeError, ValueError, RuntimeError, SystemExit) as error:
            if isinstance(error, LeftOut):
                raise
            said = (str(error).strip().splitlines() or ["no message"])[0]
            raise LeftOut(f"{self.path.name} fails here: {type(error).__name__}: {said}") from error
        except ImportError as error:
            package = (error.name or "").split(".")[0]
            if package and _exists(package):
                raise LeftOut(f"{self.path.name} does not go with the {package} that is installed ({error})") from error
            raise LeftOut(f"{self.path.name} needs {error.name or error}, which is not installed: pip install "
                          f"{_TO_INSTALL.get(package, package)}") from error

    def _owns(self, module: ModuleType) -> bool:
        places = [getattr(module, "__file__", None) or "", *getattr(module, "__path__", [])]
        return any(str(place).startswith(str(self.path)) for place in places)


@contextlib.contextmanager
def _without_names_gone() -> Iterator[None]:
    added = []
    for name, contents in _GONE.items():
        if name not in sys.modules and not _exists(name):
            sys.modules[name] = _NotInstalled(name)
            vars(sys.modules[name]).update(contents, __path__=[])
            added.append(name)
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]


def _exists(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ModuleNotFoundError, ValueError):
        return False


class OriginalStep:
    """One whole step of an original: its model, its `train_one_epoch` on one batch, its gradient norm, AdamW.

    Args:
        clone: of VideoMAE or AdaMAE. learned: it is AdaMAE's. ratio: rho. decoder_depth: blocks.
        batch: (videos normalised float32 (B, 3, T, H, W), mask bool (B, N)), as its own loader yields them.
        precision: of the CPU; with CUDA its engine computes in fp16, whatever is asked for.
    """

    def __init__(self, clone: Clone, learned: bool, ratio: float, decoder_depth: int,
                 batch: tuple[torch.Tensor, torch.Tensor], precision: Precision):
        self.clone, self.batch, self.device, self.precision = clone, batch, batch[0].device, precision
        with clone.code():
            self._build(clone, learned, ratio, decoder_depth)

    def _build(self, clone: Clone, learned: bool, ratio: float, decoder_depth: int) -> None:
        if learned:
            build = clone.load("models.pretrain.vit").pretrain_videomae_base_patch16_224
            engine, helpers = clone.load("msc.engine_for_pretraining"), clone.load("msc.utils")
            options = {"mask_ratio": ratio}
        else:
            build = clone.load("modeling_pretrain").pretrain_videomae_base_patch16_224
            engine, helpers, options = clone.load("engine_for_pretraining"), clone.load("utils"), {}
        with contextlib.redirect_stdout(io.StringIO()):
            self.model: nn.Module = build(decoder_depth=decoder_depth, **options).to(self.device)
        self.engine = engine
        decayed = [one for name, one in self.model.named_parameters() if one.ndim > 1 and "mask_token" not in name]
        plain = [one for name, one in self.model.named_parameters() if one.ndim <= 1 or "mask_token" in name]
        self.optimizer = torch.optim.AdamW([{"params": plain, "weight_decay": 0.0}, {"params": decayed}], lr=1e-5,
                                           betas=(0.9, 0.95), weight_decay=0.05)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.scaler = helpers.NativeScalerWithGradNormCount()
        if self.device.type != "cuda":   # torch's scaler is then idle and has no state, which their engine logs
            self.scaler.state_dict = lambda: {"scale": 1.0}

    def __call__(self) -> None:
        with self.clone.code(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), \
                _synchronizing_only_cuda(), self.precision.autocast():
            warnings.simplefilter("ignore")
            self.engine.train_one_epoch(self.model, [self.batch], self.optimizer, self.device, 0, self.scaler,
                                        max_norm=None, start_steps=0)

    def parameters(self) -> list[torch.Tensor]:
        """Of all its networks."""
        return list(self.model.parameters())


@contextlib.contextmanager
def _synchronizing_only_cuda() -> Iterator[None]:
    if torch.cuda.is_available():
        yield
        return
    saved, torch.cuda.synchronize = torch.cuda.synchronize, lambda device=None: None
    try:
        yield
    finally:
        torch.cuda.synchronize = saved


def motionformer_attention(clone: Clone, dim: int, heads: int) -> nn.Module:
    """Motionformer's `TrajectoryAttention` with its projected values (Eq. 2), from its file of blocks."""
    folder = "slowfast/models"
    package = types.ModuleType("motionformer_models")   # its own package imports a video library that it does not need
    package.__path__ = [str(clone.path / folder)]
    sys.modules["motionformer_models"] = package
    try:
        blocks = clone.load("motionformer_models.vit_helper")
    finally:
        del sys.modules["motionformer_models"]
    return blocks.TrajectoryAttention(dim, heads, qkv_bias=True, use_original_code=False)
