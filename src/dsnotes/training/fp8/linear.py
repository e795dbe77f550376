"""Linear layers whose three matrix products take FP8 inputs, with master weights in FP32.

The forward pass, the input gradient and the weight gradient quantise their operands in groups along
the axis that they sum over. So a scale is constant for 128 terms: their partial sum is multiplied
by both scales and added up in FP32.

Sources
    V3 (arXiv 2412.19437) section 3.3.1, figure 6   Fprop, Dgrad, Wgrad in FP8 and what stays out
    section 3.3.2, figure 7     1x128 tiles for activations, 128x128 blocks for weights
    section 3.3.3, 3.5.2        what is cached, E5M6 before o_proj, 128x1 tiles for Wgrad
    appendix B.2                128x128 blocks for activation gradients: `Recipe(dgrad_group=BLOCK)`

Departures
    - A weight is quantised at every call, not once per optimizer step. On a Hopper GPU the layer is
      computed by `fused`, which can keep the codes for a step. The numbers are the same.
    - The output of SwiGLU is cached in FP8; V3 caches its inputs and computes it again.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dsnotes.checks.arguments import check_fields, checked
from dsnotes.checks.numeric import at_least, channels
from dsnotes.training.fp8 import fused
from dsnotes.training.fp8.formats import (
    BLOCK,
    E4M3,
    E5M6,
    TILE,
    TOKEN_TILE,
    Format,
    Group,
    Quantized,
    dequantize,
    quantize,
)
from dsnotes.training.fp8.gemm import PROMOTION, gemm

# The linear layers that V3 runs in FP8: those with a weight_scale_inv in the checkpoint. Not FP8:
# embed_tokens, lm_head, mlp.gate, all norms, eh_proj of a multi-token prediction module.
QUANTIZED_LINEARS = (
    "q_proj", "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj",
    "gate_proj", "up_proj", "down_proj",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one linear layer quantises; the defaults are those of V3 for all layers but o_proj."""

    dgrad_group: Group = TILE  # of the output gradient, in Dgrad
    gradient_format: Format = E4M3  # of the output gradient, in Dgrad and Wgrad
    cache_format: Format = E4M3  # of the input kept for Wgrad; in E5M6 with power-of-two scales
    power_of_two: bool = False  # all scales 2^k (UE8M0, as in V3.1)
    output_dtype: torch.dtype | None = torch.bfloat16  # rounding of output and input gradient

    def __post_init__(self) -> None:
        check_fields(self)
        if self.dgrad_group[1] not in (PROMOTION, None):
            raise ValueError(
                f"dgrad_group must span {PROMOTION} channels, the axis that Dgrad sums over, or "
                f"all of them, got {self.dgrad_group}"
            )


V3_RECIPE = Recipe()


class _Fp8Linear(torch.autograd.Function):
    """Y = X W^T with X (T, K), W (N, K); every operand of the three products is quantised."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, recipe: Recipe) -> Tensor:
        ctx.recipe, pow2 = recipe, recipe.power_of_two
        x_q = quantize(x, group=TILE, power_of_two=pow2)
        w_q = quantize(weight, group=BLOCK, power_of_two=pow2)
        cached = x_q
        if recipe.cache_format != E4M3:
            cached = quantize(x, group=TILE, fmt=recipe.cache_format, power_of_two=True)
        ctx.save_for_backward(cached.data, cached.scale_inv, w_q.data, w_q.scale_inv)
        return gemm(x_q, w_q, out_dtype=recipe.output_dtype or x.dtype).to(x.dtype)  # Fprop

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        if torch.is_grad_enabled():  # create_graph: rounding would be left out of the second one
            raise RuntimeError("Fp8Linear has no gradient of a gradient: its steps are rounded")
        recipe, pow2, dy = ctx.recipe, ctx.recipe.power_of_two, grads[0]
        x_data, x_scale, w_data, w_scale = ctx.saved_tensors
        dx, dw, fmt = None, None, recipe.gradient_format  # (tokens, K) and (N, K)
        if ctx.needs_input_grad[0]:  # Dgrad: dX = dY W sums over the N channels of dY
            dy_q = quantize(dy, group=recipe.dgrad_group, fmt=fmt, power_of_two=pow2)
            w_t = Quantized(w_data, w_scale, BLOCK).T
            dx = gemm(dy_q, w_t, out_dtype=recipe.output_dtype or dy.dtype).to(dy.dtype)
        if ctx.needs_input_grad[1]:  # Wgrad: dW = dY^T X sums over the T tokens
            dy_q = quantize(dy, group=TOKEN_TILE, fmt=fmt, power_of_two=pow2)
            x = dequantize(Quantized(x_data, x_scale, TILE))  # its tiles run along the wrong axis
            dw = gemm(dy_q.T, quantize(x, group=TOKEN_TILE, power_of_two=pow2).T)
        return dx, dw, None


class Fp8Linear(nn.Linear):
    """`nn.Linear` without bias, computed in FP8; `weight` and its gradient stay FP32.

    Raises TypeError when the master weight was cast to a narrower dtype, and RuntimeError when a
    backward pass is to be differentiated again.

        >>> Fp8Linear(300, 40)(torch.randn(2, 5, 300)).shape
        torch.Size([2, 5, 40])
    """

    @checked
    def __init__(
        self, in_features: int, out_features: int, *, recipe: Recipe = V3_RECIPE, device: Any = None
    ) -> None:
        at_least(1, in_features=in_features, out_features=out_features)
        super().__init__(in_features, out_features, bias=False, device=device, dtype=torch.float32)
        self.recipe = recipe
        self.kept: fused.WeightCodes | None = None  # codes, while `fused.quantized_once` is open

    @checked
    def forward(self, input: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """Map (..., in_features) to (..., out_features), same dtype."""
        if self.weight.dtype != torch.float32:
            raise TypeError(f"weight must be float32, the master copy, got {self.weight.dtype}")
        if input.shape[-1] != self.in_features:
            raise ValueError(
                f"input must be (..., {self.in_features}), got shape {tuple(input.shape)}"
            )
        x = input.reshape(-1, self.in_features)  # (tokens, in)
        y = fused.linear(x, self.weight, self.recipe, self.kept)
        y = _Fp8Linear.apply(x, self.weight, self.recipe) if y is None else y
        return y.view(*input.shape[:-1], self.out_features)


class Bf16Linear(nn.Linear):
    """The baseline: the same products with BF16 operands and results, the weight gradient in FP32.

    The arithmetic is FP32 on numbers rounded to BF16, which is fast on processors without BF16 too.
    """

    @checked
    def forward(self, input: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """Map (..., in_features) to (..., out_features), float32 numbers that fit in BF16."""
        channels(self.in_features, input=input)
        weight = self.weight + (self.weight.bfloat16().float() - self.weight).detach()
        y: Tensor = _RoundBothWays.apply(F.linear(_RoundBothWays.apply(input.float()), weight))
        return y


class _RoundBothWays(torch.autograd.Function):
    """Round to BF16 and back: the value in forward, its gradient in backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.bfloat16().float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0].bfloat16().float()


@checked
def convert(model: nn.Module, recipe: Recipe = V3_RECIPE) -> list[str]:
    """Replace in place the linear layers that V3 runs in FP8 and none else; returns their names.

    The weights are shared, not copied. `o_proj` gets the recipe with an E5M6 cache (V3 section
    3.3.3). Raises TypeError when such a layer has a bias or a weight that is not float32.

        >>> len(convert(model))
        120
    """

    def fp8(name: str, inputs: int, outputs: int) -> nn.Linear:
        own = dataclasses.replace(recipe, cache_format=E5M6) if name == "o_proj" else recipe
        return Fp8Linear(inputs, outputs, recipe=own, device="meta")

    return _exchange(model, fp8)


@checked
def to_bf16(model: nn.Module) -> list[str]:
    """Replace the same layers as `convert` by the baseline, `Bf16Linear`.

    Weights, names and errors are as in `convert`.

        >>> len(to_bf16(model))
        120
    """
    return _exchange(model, lambda _, k, n: Bf16Linear(k, n, bias=False, device="meta"))


def _exchange(model: nn.Module, new: Callable[[str, int, int], nn.Linear]) -> list[str]:
    exchanged: list[str] = []
    for path, module in list(model.named_modules()):
        parent, _, name = path.rpartition(".")
        if name not in QUANTIZED_LINEARS or not isinstance(module, nn.Linear):
            continue
        if module.bias is not None or module.weight.dtype != torch.float32:
            raise TypeError(
                f"{path} must be a float32 linear layer without bias, got {module.weight.dtype} "
                f"and bias {module.bias is not None}"
            )
        layer = new(name, module.in_features, module.out_features)
        layer.weight = module.weight
        setattr(model.get_submodule(parent), name, layer)
        exchanged.append(path)
    return exchanged


@checked
def bytes_per_parameter(precision: str) -> dict[str, float]:
    """Bytes of training memory that one trained parameter needs, item by item.

    "v3": V3 section 3.3.1 and 3.3.3. "bf16": BF16 weights, FP32 for all else (gradients in BF16
    would save 2 bytes). "fp32": all in FP32, without a second copy of the weight. Nothing is
    sharded: ZeRO-1 divides master weight and moments by the number of data-parallel ranks.
    Raises ValueError for any other precision.

        >>> sum(bytes_per_parameter("v3").values())
        13.000244140625
    """
    fp8_weight = 1 + 4 / 128**2  # and its share of the FP32 scale of a block
    items = {
        "v3": {"weight": fp8_weight, "master": 4.0, "gradient": 4.0, "moments": 2 * 2.0},
        "bf16": {"weight": 2.0, "master": 4.0, "gradient": 4.0, "moments": 2 * 4.0},
        "fp32": {"weight": 4.0, "master": 0.0, "gradient": 4.0, "moments": 2 * 4.0},
    }
    if precision not in items:
        raise ValueError(f"precision must be one of {tuple(items)}, got {precision!r}")
    return items[precision]


@checked
def bytes_per_cached_element(fmt: Format | None, *, power_of_two: bool = False) -> float:
    """Bytes of one element of a cached linear input, in 1x128 tiles; None means BF16.

    A scale takes 4 bytes, or 1 as UE8M0.

        >>> bytes_per_cached_element(E4M3), bytes_per_cached_element(E5M6, power_of_two=True)
        (1.03125, 1.5078125)
    """
    if fmt is None:
        return 2.0
    return fmt.bits / 8 + (1 if power_of_two else 4) / 128
