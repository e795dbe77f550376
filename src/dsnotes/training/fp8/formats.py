"""Eight-bit floating point: the formats, and quantisation in small groups that share one scale.

A group (a tile of 1x128 activations, a block of 128x128 weights) is divided by a scale that moves
its largest magnitude to the largest number of the format, and then rounded. The scale is stored
with the codes and multiplied back later. An outlier reduces the precision of its own group only.

Sources
    V3 (arXiv 2412.19437) section 3.3.2, figure 7a  1x128 tiles, 128x128 blocks, online scales
        amax/448; section 3.3.3: E5M6, power-of-two scales; section 3.5.2: 128x1 tiles for Wgrad
    README_WEIGHTS of the released code   `weight_scale_inv`, and edge blocks padded with zeros

Departures
    - The paper says only that E5M6 has 12 bits. Here its layout is that of IEEE numbers, bias 15.
      A tensor of E5M6 numbers has dtype float16; the last four mantissa bits are 0.
    - A group of zeros gets scale 1. The released kernel bounds amax from below by 1e-4 instead,
      which pushes groups of tiny gradients into the subnormals; here the scale can fall to 2^-126.
    - A group that holds an infinity or a NaN becomes NaN as a whole, the others do not.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int, Integer, Shaped
from torch import Tensor

from dsnotes.checks.arguments import checked
from dsnotes.training.fp8.hardware import kernels_for


class Format(NamedTuple):
    """A number format: value = (-1)^sign * (1 + fraction / 2^m) * 2^(exponent - bias)."""

    name: str
    exponent_bits: int
    mantissa_bits: int  # m, without the implicit leading 1
    bias: int
    max: float  # largest finite number
    dtype: torch.dtype  # of tensors that hold such numbers

    @property
    def bits(self) -> int:
        """Bits of one number, sign included."""
        return 1 + self.exponent_bits + self.mantissa_bits


E4M3 = Format("E4M3", 4, 3, 7, 448.0, torch.float8_e4m3fn)
E5M2 = Format("E5M2", 5, 2, 15, 57344.0, torch.float8_e5m2)
E5M6 = Format("E5M6", 5, 6, 15, 65024.0, torch.float16)
# Whole numbers are floating-point numbers without exponent: one grid of step 1, to compare with.
INT8 = Format("INT8", 0, 7, -6, 127.0, torch.int8)

# Rows and columns that share a scale; None stands for all of them.
Group = tuple[int | None, int | None]
PER_TENSOR: Group = (None, None)
TILE: Group = (1, 128)  # one token, 128 channels
TOKEN_TILE: Group = (128, 1)  # 128 tokens, one channel
BLOCK: Group = (128, 128)


@torch.no_grad()
@checked
def cast(x: Float[Tensor, "*shape"], fmt: Format = E4M3) -> Shaped[Tensor, "*shape"]:
    """The nearest numbers of `fmt`, ties to even mantissa. Larger magnitudes become `fmt.max`.

    Without the clamp torch turns 61,440 into infinity as E5M2, but 600 into 448 as E4M3. NaN stays
    NaN, or 0 in INT8. The gradient of rounding is 0; `fp8.linear` says what training uses instead.

        >>> cast(torch.tensor([0.3, 17.0, 600.0])).tolist()
        [0.3125, 16.0, 448.0]
    """
    # float64 keeps its digits: rounded to float32 first, numbers near a tie would fall on it
    x = x.to(torch.promote_types(x.dtype, torch.float32)).clamp(-fmt.max, fmt.max)
    if x.dtype == torch.float32 and fmt.dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        return x.to(fmt.dtype)
    # x = c * 2^e with 0.5 <= |c| < 1; subnormals share the step of the smallest normal number
    exponent = torch.frexp(x).exponent.clamp(min=2 - fmt.bias)
    step = torch.ldexp(torch.ones_like(x), exponent - 1 - fmt.mantissa_bits)
    nearest = torch.round(x / step) * step
    return (nearest if fmt.dtype.is_floating_point else nearest.nan_to_num(0.0)).to(fmt.dtype)


@checked
def codes(x: Float[Tensor, "*shape"], fmt: Format = E4M3) -> Int[Tensor, "*shape"]:
    """The bits of the nearest numbers of a floating-point format, as integers below 2^fmt.bits.

    >>> codes(torch.tensor([1.0, -1.0, 448.0]))
    tensor([ 56, 184, 126])
    """
    if not fmt.exponent_bits:
        raise ValueError(f"fmt must be a floating format, got {fmt.name}")
    y = cast(x, fmt)
    stored = y.view(torch.uint8).long() if y.itemsize == 1 else y.view(torch.int16).long() & 0xFFFF
    return stored >> (8 * y.itemsize - fmt.bits)


@checked
def decode(codes: Integer[Tensor, "*shape"], fmt: Format = E4M3) -> Float32[Tensor, "*shape"]:
    """The numbers that the codes mean, computed from the definition of the format.

    E4M3 has no infinity: in its largest exponent only the mantissa 111 is NaN. In the other two
    formats the largest exponent means infinity (mantissa 0) or NaN, as in IEEE 754.
    Raises ValueError when a code does not lie in 0 .. 2^fmt.bits - 1.

        >>> decode(torch.tensor([0b0_1111_110, 0b0_0000_001, 0b0_1111_111])).tolist()
        [448.0, 0.001953125, nan]
    """
    if not fmt.exponent_bits:
        raise ValueError(f"fmt must be a floating format, got {fmt.name}")
    codes = codes.long()  # 2^8 is 0 in uint8
    if codes.numel() and not 0 <= codes.min() <= codes.max() < 2**fmt.bits:
        raise ValueError(
            f"codes must lie in 0 .. {2**fmt.bits - 1} for {fmt.name}, "
            f"got {codes.min().item()} .. {codes.max().item()}"
        )
    m, top = fmt.mantissa_bits, 2**fmt.exponent_bits - 1
    fraction, exponent = codes & (2**m - 1), (codes >> m) & top
    normal = exponent > 0
    units = fraction + normal * 2**m  # the leading 1 is implicit, and missing in subnormals
    value = torch.ldexp(units.float(), exponent.clamp(min=1) - fmt.bias - m)
    if fmt is E4M3:
        value[(exponent == top) & (fraction == 2**m - 1)] = torch.nan
    else:
        value[(exponent == top) & (fraction == 0)] = torch.inf
        value[(exponent == top) & (fraction > 0)] = torch.nan
    return torch.where(codes >> (fmt.bits - 1) == 1, -value, value)


@checked
def bit_pattern(x: float, fmt: Format = E4M3) -> str:
    """Sign, exponent and mantissa bits of the number of `fmt` nearest to x.

    >>> bit_pattern(448.0), bit_pattern(-0.3)
    ('0 1111 110', '1 0101 010')
    """
    text = f"{codes(torch.tensor(x, dtype=torch.float64), fmt).item():0{fmt.bits}b}"
    return f"{text[0]} {text[1 : -fmt.mantissa_bits]} {text[-fmt.mantissa_bits :]}"


class Quantized(NamedTuple):
    """A matrix in a narrow format, with one scale per group: the codes times their scales.

    `scale_inv` multiplies although its name suggests a division; the name is that of the released
    checkpoint (`weight_scale_inv`).
    """

    data: Shaped[Tensor, "rows cols"]
    scale_inv: Shaped[Tensor, "row_groups col_groups"]  # floats; those of `quantize` are float32
    group: Group

    @property
    def T(self) -> "Quantized":
        """The transposed matrix: the same codes and scales; 1x128 tiles become 128x1."""
        return Quantized(self.data.T, self.scale_inv.T, (self.group[1], self.group[0]))


@torch.no_grad()
@checked
def quantize(
    x: Float[Tensor, "rows cols"],
    *,
    group: Group = TILE,
    fmt: Format = E4M3,
    power_of_two: bool = False,
) -> Quantized:
    """Divide each group by amax / fmt.max and round (V3 section 3.3.2).

    Groups at the edges may be smaller. With `power_of_two` the scale is 2^ceil(log2 s): one byte as
    UE8M0. The arithmetic is in float32, for a float64 matrix in float64, without gradient.
    ValueError unless `group` holds whole numbers above 0 or None, or if a scale overflows.

        >>> q = quantize(torch.randn(576, 7168), group=BLOCK)
        >>> q.data.dtype, q.scale_inv.shape
        (torch.float8_e4m3fn, torch.Size([5, 56]))
    """
    _check_group(group)
    if (kernels := kernels_for(x)) and kernels.knows(group, fmt):
        return Quantized(*kernels.quantize_as(x, group, fmt, power_of_two))  # the same, one pass
    groups = _in_groups(x.to(torch.promote_types(x.dtype, torch.float32)), group)
    largest = groups.new_full((), fmt.max)  # by a plain number, CUDA multiplies with the inverse
    amax = groups.abs().amax(dim=(1, 3))  # (row groups, column groups)
    scale = (amax / largest).clamp(min=torch.finfo(torch.float32).tiny).float()
    if power_of_two:
        scale = _power_of_two_above(scale)
    scale = scale.masked_fill(amax == 0, 1.0).masked_fill(~amax.isfinite(), torch.nan)
    if x.dtype == torch.float64 and (~scale.isfinite() & amax.isfinite()).any():
        raise ValueError(f"x must have scales that fit float32, got a group with {amax.max():.6g}")
    data = cast(groups / scale[:, None, :, None], fmt)
    return Quantized(_ungrouped(data, *x.shape), scale, group)


@checked
def dequantize(q: Quantized) -> Float32[Tensor, "rows cols"]:
    """The codes times their scales; this also reads a released weight and `weight_scale_inv`.

    The scales may have any floating type, also UE8M0 (`torch.float8_e8m0fnu`). A product above the
    largest float32 becomes that number. ValueError unless there is one scale for each group.

        >>> dequantize(quantize(torch.tensor([[0.5, -448.0]]))).tolist()
        [[0.5, -448.0]]
    """
    check_scales(q)
    groups = _in_groups(q.data.float(), q.group)  # (row groups, r, column groups, c)
    scale = q.scale_inv.float()[:, None, :, None]  # torch promotes no 8-bit type
    largest = torch.full_like(scale, torch.finfo(torch.float32).max)
    largest = largest.masked_fill(~scale.isfinite(), torch.inf)
    numbers = (groups * scale).clamp_(-largest, largest)
    if q.data.dtype in (E5M2.dtype, E5M6.dtype):  # these have infinities of their own
        numbers = torch.where(groups.isinf(), groups * scale, numbers)
    return _ungrouped(numbers, *q.data.shape)


def check_scales(q: Quantized, name: str = "q") -> None:
    """ValueError unless `q` is a matrix with one scale for each group."""
    _check_group(q.group)
    if not q.scale_inv.is_floating_point():
        raise TypeError(f"{name}.scale_inv must hold floats, got {q.scale_inv.dtype}")
    expected = tuple(
        -(-size // (side or max(size, 1))) for size, side in zip(q.data.shape, q.group, strict=True)
    )
    if tuple(q.scale_inv.shape) != expected:
        raise ValueError(
            f"{name}.scale_inv must have shape {expected}, one scale for each {q.group} group of "
            f"data {tuple(q.data.shape)}, got {tuple(q.scale_inv.shape)}"
        )


def _check_group(group: Group) -> None:
    whole = [side is None or (type(side) is int and side > 0) for side in group]
    if whole != [True, True]:
        raise ValueError(f"group must hold two positive whole numbers or None, got {group!r}")


def _in_groups(x: Tensor, group: Group) -> Tensor:
    """(rows, cols) -> (row groups, r, column groups, c), padded with zeros at the edges."""
    rows, cols = x.shape
    r, c = group[0] or max(rows, 1), group[1] or max(cols, 1)
    if rows % r or cols % c:
        x = F.pad(x, (0, -cols % c, 0, -rows % r))
    return x.reshape(x.shape[0] // r, r, x.shape[1] // c, c)


def _ungrouped(groups: Tensor, rows: int, cols: int) -> Tensor:
    return groups.flatten(2, 3).flatten(0, 1)[:rows, :cols].contiguous()


def _power_of_two_above(scale: Tensor) -> Tensor:
    """2^ceil(log2 s), from the exponent bits: a logarithm could miss exact powers of two."""
    mantissa, exponent = torch.frexp(scale)  # scale = mantissa * 2^exponent, mantissa in [0.5, 1)
    return torch.ldexp(mantissa / mantissa, exponent - (mantissa == 0.5).int())  # inf: NaN
