"""Whether the kernels can run here. Nothing of this room imports Triton before a kernel runs."""

import importlib.util
import os

import torch
from torch import Tensor

OLDEST = (8, 0)          # compute capability that Triton's matrix products and bfloat16 need
WIDEST_HEAD = 128        # channels; a wider head's tiles do not fit a multiprocessor


def kernel_fault(device: torch.device, head_width: int) -> str | None:
    """Why the kernels cannot run on `device` for heads of so many channels; None where they can.

    A CPU can in Triton's interpreter, TRITON_INTERPRET=1, which is for tests: it is slow.
    """
    if head_width > WIDEST_HEAD:
        return f"its heads may have {WIDEST_HEAD} channels, and these have {head_width}: take more heads"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed: pip install triton"
    if device.type == "cuda" and torch.version.hip is None:
        if (found := torch.cuda.get_device_capability(device)) >= OLDEST:
            return None
        return f"it needs a GPU of compute capability {OLDEST[0]}.{OLDEST[1]}, and this one has {found[0]}.{found[1]}"
    if device.type == "cpu" and interpreted():
        return None
    return f"it needs an NVIDIA GPU, and the networks run on {device.type}"


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def check_tensor(tensor: Tensor, head_width: int) -> None:
    """Raises ValueError: the kernels cannot run where `tensor` is, as after a network was moved to the CPU."""
    if tensor.device.type != "cuda" and (fault := kernel_fault(tensor.device, head_width)):
        raise ValueError(f"the trajectory kernel cannot run: {fault}. use_kernel(net, \"plain\") takes the plain form")
