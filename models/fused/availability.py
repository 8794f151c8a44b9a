"""Whether the kernels can run here. Nothing of this room imports Triton before a kernel runs."""

import importlib.util
import os

import torch

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
    if device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1":
        return None
    return f"it needs an NVIDIA GPU, and the networks run on {device.type}"
