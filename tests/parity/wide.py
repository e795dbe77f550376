"""A `torch` for the modules of a peer that compute in float32 whatever their weights are."""

from types import ModuleType
from typing import Any

import torch


class WideTorch(ModuleType):
    """`torch` with float64 where float32 is asked for; the peer's formulas stay as they are."""

    float32 = float = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)
