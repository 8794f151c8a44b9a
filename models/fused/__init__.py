"""Trajectory attention in Triton kernels, for GPUs: `--trajectory_kernel triton`."""

from .availability import kernel_fault
from .costs import Cost, cost_of
from .pooling import pool_over_time_fused
from .trajectories import fused_trajectories

__all__ = ["Cost", "cost_of", "fused_trajectories", "kernel_fault", "pool_over_time_fused"]
