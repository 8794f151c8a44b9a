"""Sizes of the tiles that the kernels work on: compile-time constants, powers of two."""

import math

# Chosen for registers without spills on compute capability 8.0 and 9.0; never timed on a GPU.
QUERIES, KEYS = 64, 64        # Eq. 1
ROWS, CHANNELS = 32, 32       # Eq. 2
HEADS = 4                     # of Eq. 2 that share a read of the trajectories
WARPS = 4


def power_of_two(size: int, least: int = 1) -> int:
    """The smallest that holds `size`."""
    return max(least, 1 << (size - 1).bit_length())


def heads_at_once(heads: int) -> int:
    """The largest power of two up to HEADS that divides `heads`."""
    return math.gcd(heads, HEADS)
