"""What the device of a tensor offers for FP8: kernels that quantise, products with block scales."""

import functools
from typing import Any

import torch
from torch import Tensor

from dsnotes.checks.devices import triton_capability


def kernels_for(x: Tensor) -> Any:
    """The module `kernels` if it can quantise x, else None.

    It needs a GPU that converts to FP8 itself (Ada, Hopper or newer), Triton, and numbers that are
    not float64.
    """
    if x.dtype == torch.float64 or not x.numel() or triton_capability(x.device) < (8, 9):
        return None
    from dsnotes.training.fp8 import kernels  # needs Triton

    return kernels


@functools.cache
def multiplies_blocks(device: torch.device) -> bool:
    """Whether cuBLAS has FP8 products with scales of blocks: on Hopper, since CUDA 12.9."""
    cuda = tuple(map(int, (torch.version.cuda or "0.0").split(".")[:2]))
    return (
        device.type == "cuda"
        and cuda >= (12, 9)
        and torch.cuda.get_device_capability(device)[0] == 9
    )
