"""Sizes of the tiles that the kernels work on: compile-time constants, powers of two.

Chosen so that bfloat16 of 64 channels needs no spilled registers on compute capability 9.0, as its assembler reports
(8.0: 8 bytes in one kernel), and that 64 KiB of shared memory suffice. Nothing was timed on a GPU.
"""

import math

CHANNELS = 32   # Eq. 2: of the width at once
LEAST_ROWS = 16  # of Eq. 2: what the matrix units take
SPLITS = 8      # partial sums of the gradient of Eq. 2's weights, which are added in a fixed order
WARPS_EQ_1, WARPS_EQ_2 = 4, 8


def power_of_two(size: int, least: int = 1) -> int:
    """The smallest that holds `size`."""
    return max(least, 1 << (size - 1).bit_length())


def side(width: int, element_size: int) -> int:
    """Queries, and keys, of a tile of Eq. 1, for heads of `width` channels of so many bytes each."""
    return max(16, min(64, 64 * 128 // (power_of_two(width, 16) * element_size)))


def heads_at_once(heads: int, width: int, element_size: int) -> int:
    """Heads of Eq. 2 that share a read of the trajectories: a power of two that divides `heads`."""
    return math.gcd(heads, max(1, min(4, 512 // (power_of_two(width, 16) * element_size))))


def rows_at_once(frames: int, element_size: int) -> int:
    """Rows of a tile of Eq. 2."""
    return 32 if element_size < 4 and frames <= 8 else LEAST_ROWS
