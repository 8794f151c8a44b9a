"""Which tokens are seen: one file per idea, and the table of them (`MASKINGS`)."""

from .adamae import AdaMAESampler
from .fixed import FrameMasking, RandomMasking, TubeMasking
from .grid import TokenGrid, num_visible
from .gumbel import Draw, gumbel_top_k, masked_indices, masked_probability, mixed_with_uniform, some_of, uniform_noise
from .registry import ALIASES, MASKINGS, Masking, find_masking, register_masking
from .sampler import TokenSampler, check_sampler
from .tats import TATS

__all__ = [
    "ALIASES", "AdaMAESampler", "Draw", "FrameMasking", "MASKINGS", "Masking", "RandomMasking", "TATS", "TokenGrid",
    "TokenSampler", "TubeMasking", "check_sampler", "find_masking", "gumbel_top_k", "masked_indices",
    "masked_probability", "mixed_with_uniform", "num_visible", "register_masking", "some_of", "uniform_noise",
]
