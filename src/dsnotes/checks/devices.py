"""What can run on a device: the kernels in Triton ask this before they are imported."""

import functools
from importlib.util import find_spec

import torch


@functools.cache
def triton_capability(device: torch.device) -> tuple[int, int]:
    """The compute capability of an NVIDIA GPU for which Triton is there, else (0, 0).

    Ada is (8, 9), Hopper (9, 0).

        >>> triton_capability(torch.device("cpu"))
        (0, 0)
    """
    if device.type != "cuda" or torch.version.cuda is None or find_spec("triton") is None:
        return 0, 0
    return torch.cuda.get_device_capability(device)
