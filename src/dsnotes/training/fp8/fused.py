"""The layer of `fp8.linear` on a Hopper GPU, where each operand is read once for all its uses.

The numbers are those of `linear._Fp8Linear`, bit for bit. The output gradient gives the codes for
Dgrad and those for Wgrad in one pass, the weight those of W and of W^T, and all codes lie in memory
as the products read them: along the axis of the sum, filled up with zeros to whole blocks.

Sources
    V3 (arXiv 2412.19437) section 3.3.2, 3.5.2   the groups; casts fused with what reads the matrix

Departures
    - A weight is quantised at every forward pass, once for W and W^T. `quantized_once` keeps the
      codes from one optimizer step to the next, for passes that share a step.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from dsnotes.training.fp8.formats import BLOCK, E4M3, PER_TENSOR, TILE, TOKEN_TILE, Quantized
from dsnotes.training.fp8.gemm import gemm, on_tensor_cores, tensor_core_gemm
from dsnotes.training.fp8.hardware import kernels_for, multiplies_blocks

if TYPE_CHECKING:
    from dsnotes.training.fp8.linear import Recipe


def linear(
    x: Tensor, weight: Tensor, recipe: "Recipe", kept: "WeightCodes | None" = None
) -> Tensor | None:
    """X W^T of X (tokens, K) and W (N, K), or None if this takes other hardware or other groups."""
    if (
        x.device != weight.device
        or not multiplies_blocks(x.device)
        or kernels_for(x) is None
        or recipe.dgrad_group not in (TILE, BLOCK, PER_TENSOR)
    ):
        return None
    codes = (kept or WeightCodes()).of(weight, power_of_two=recipe.power_of_two)
    y: Tensor = _Fused.apply(x, weight, codes, recipe)
    return y


class WeightCodes:
    """The codes of one weight and of its transpose, made anew when the weight has changed."""

    def __init__(self) -> None:
        self._of: tuple[Any, ...] = ()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """A copy of the layer, or a pickled one, keeps nothing: no step would make it forget."""
        return type(None), ()

    def of(self, weight: Tensor, *, power_of_two: bool) -> tuple[Quantized, Quantized]:
        """W (N, K) and W^T (K, N) in 128x128 blocks, both with rows that are contiguous.

        A weight has changed when it is another tensor, lies elsewhere, or was written to. What was
        written through `weight.data` cannot be seen.
        """
        now = (weight.data_ptr(), weight._version, power_of_two)
        if not self._of or self._of[0] is not weight or self._of[1] != now:
            # The alias keeps the memory alive, so that no other weight can come to lie there
            alias = weight.detach()
            self._of = (weight, now, alias, _both_ways(alias, power_of_two))
        w, w_t = self._of[3]
        return w, w_t


def _both_ways(weight: Tensor, power_of_two: bool) -> tuple[Quantized, Quantized]:
    w, across = kernels_for(weight).quantize(
        weight, along=BLOCK, across=BLOCK, power_of_two=power_of_two
    )
    return w, across.T


@contextmanager
def quantized_once(model: nn.Module) -> Iterator[None]:
    """Inside, an FP8 weight is quantised once an optimizer step, on GPUs where `linear` serves.

    For gradient accumulation: the micro-batches of a step share the codes. A step of any optimizer
    drops them, and so does a change that PyTorch counts, such as `load_state_dict`. It does not
    count what is written to `weight.data` in place, or by a replayed CUDA graph: open this anew
    after such a change.

        >>> with quantized_once(model):
        ...     for half in tokens.chunk(2):
        ...         model(half).square().mean().backward()
    """
    layers: list[Any] = [module for module in model.modules() if hasattr(module, "kept")]

    def forget(*_: Any) -> None:
        for layer in layers:
            layer.kept = WeightCodes()

    forget()
    # A fused optimizer writes to weights without a new version
    hook = register_optimizer_step_post_hook(forget)
    try:
        yield
    finally:
        hook.remove()
        for layer in layers:
            layer.kept = None


class _Fused(torch.autograd.Function):
    """Y = X W^T with X (T, K), W (N, K); T, N and K are rounded up to whole blocks inside."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, codes: tuple[Quantized, Quantized], recipe: "Recipe"
    ) -> Tensor:
        ctx.recipe, ctx.shape = recipe, weight.shape
        quantize, (w_q, w_t), pow2 = kernels_for(x).quantize, codes, recipe.power_of_two
        x_q, _ = quantize(x, along=TILE, power_of_two=pow2)
        cached = x_q
        if recipe.cache_format != E4M3:
            cached, _ = quantize(x, along=TILE, fmt=recipe.cache_format, power_of_two=True)
        ctx.save_for_backward(cached.data, cached.scale_inv, w_t.data, w_t.scale_inv)
        y = _product(x_q, w_q, recipe.output_dtype or x.dtype)  # Fprop
        return y[: len(x), : len(weight)].to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph: rounding would be left out of the second one
            raise RuntimeError("Fp8Linear has no gradient of a gradient: its steps are rounded")
        recipe, (n, k), dy = ctx.recipe, ctx.shape, grads[0]
        x_data, x_scale, w_data, w_scale = ctx.saved_tensors
        needs_dx, needs_dw = ctx.needs_input_grad[:2]
        quantize, pow2 = kernels_for(dy).quantize, recipe.power_of_two
        dx = dw = None
        dy_q, dy_across = quantize(
            dy,
            along=recipe.dgrad_group if needs_dx else None,
            across=TOKEN_TILE if needs_dw else None,
            fmt=recipe.gradient_format,
            power_of_two=pow2,
        )
        if needs_dx:  # Dgrad: dX = dY W
            dx = _product(dy_q, Quantized(w_data, w_scale, BLOCK), recipe.output_dtype or dy.dtype)
            dx = dx[: len(dy), :k].to(dy.dtype)
        if needs_dw:  # Wgrad: dW = dY^T X
            _, x_across = quantize(x_data, x_scale, across=TOKEN_TILE, power_of_two=pow2)
            dw = _product(dy_across.T, x_across.T, torch.float32)[:n, :k]
        return dx, dw, None, None


def _product(a: Quantized, b: Quantized, out_dtype: torch.dtype) -> Tensor:
    """`gemm`, without its checks where cuBLAS has the product."""
    if on_tensor_cores(a, b):
        return tensor_core_gemm(a, b, out_dtype=out_dtype)
    return gemm(a, b, out_dtype=out_dtype)
