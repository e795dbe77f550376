"""What the tests of fused layers share: plain casts in place of kernels, recipes, changes."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsnotes.training.fp8.formats import (
    BLOCK,
    E4M3,
    E5M2,
    E5M6,
    PER_TENSOR,
    TILE,
    Format,
    Group,
    Quantized,
    dequantize,
    quantize,
)
from dsnotes.training.fp8.linear import Fp8Linear, Recipe


def both_ways(
    x: Tensor,
    x_scale: Tensor | None = None,
    *,
    along: Group | None = None,
    across: Group | None = None,
    fmt: Format = E4M3,
    power_of_two: bool = False,
) -> tuple[Quantized | None, Quantized | None]:
    """`kernels.quantize`, by `formats.quantize`."""
    x = x.detach()
    x = x.float() if x_scale is None else dequantize(Quantized(x, x_scale, TILE))
    x = F.pad(x, (0, -x.shape[1] % 128, 0, -x.shape[0] % 128))
    how: dict[str, Any] = {"fmt": fmt, "power_of_two": power_of_two}
    first, second = (group and quantize(x, group=group, **how) for group in (along, across))
    return first, second


RECIPES = {
    "v3": Recipe(),
    "o_proj": Recipe(cache_format=E5M6),
    "powers of two": Recipe(power_of_two=True),
    "blocks in Dgrad": Recipe(dgrad_group=BLOCK),
    "one scale in Dgrad": Recipe(dgrad_group=PER_TENSOR),
    "E5M2 gradients": Recipe(gradient_format=E5M2),
    "float32 results": Recipe(output_dtype=None),
}


# --- what happens to a weight ---


def _step(optimizer: type[torch.optim.Optimizer], **options: object) -> Callable[[Fp8Linear], None]:
    def change(layer: Fp8Linear) -> None:
        layer.weight.grad = torch.randn_like(layer.weight)
        optimizer([layer.weight], lr=0.1, **options).step()

    return change


def _in_place(layer: Fp8Linear) -> None:
    with torch.no_grad():
        layer.weight.mul_(2)


def _new_data(layer: Fp8Linear) -> None:
    layer.weight.data = 2 * layer.weight.data


def _new_data_twice(layer: Fp8Linear) -> None:
    """The second tensor may come to lie where the weight lay."""
    for _ in range(2):
        layer.weight.data = 2 * layer.weight.data


def _another_parameter(layer: Fp8Linear) -> None:
    layer.weight = nn.Parameter(2 * layer.weight.detach())


def _same_memory(layer: Fp8Linear) -> None:
    """Another parameter on the same memory has a version of its own."""
    layer.weight = nn.Parameter(layer.weight.data)
    _in_place(layer)


def _load(**options: bool) -> Callable[[Fp8Linear], None]:
    def change(layer: Fp8Linear) -> None:
        layer.load_state_dict({"weight": torch.randn_like(layer.weight)}, **options)

    return change


def _through_float64(layer: Fp8Linear) -> None:
    layer.double()
    _in_place(layer)
    layer.float()


CHANGES: dict[str, Callable[[Fp8Linear], None]] = {
    "SGD": _step(torch.optim.SGD),
    "AdamW, a loop": _step(torch.optim.AdamW, foreach=False),
    "AdamW, foreach": _step(torch.optim.AdamW, foreach=True),
    "AdamW, fused": _step(torch.optim.AdamW, fused=True),
    "in place": _in_place,
    "new data": _new_data,
    "new data twice": _new_data_twice,
    "another parameter": _another_parameter,
    "another parameter on the same memory": _same_memory,
    "load_state_dict": _load(),
    "load_state_dict, assigned": _load(assign=True),
    "to float64 and back": _through_float64,
    "another recipe": lambda layer: setattr(layer, "recipe", Recipe(power_of_two=True)),
}
