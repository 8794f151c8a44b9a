"""The sampler as two calls inside a training loop of one's own: `choose` before the forward, `learn` after it."""

from .errors import errors_of_mean
from .looking import probabilities, validation_mask
from .masked import keep_visible, noise_of
from .sampling import SamplingHook
from .tokens import PixelTokens

__all__ = ["PixelTokens", "SamplingHook", "errors_of_mean", "keep_visible", "noise_of", "probabilities",
           "validation_mask"]
