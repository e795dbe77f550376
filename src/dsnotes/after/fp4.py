"""FP4 weights with power-of-two scales (UE8M0), and training that already sees them.

Thirty-two numbers share a scale of one byte, which is only an exponent. Four bits remain for each
number: sign and one of eight magnitudes. Multiplied out, such a weight is still exact in FP8, so
the FP8 layers of V3 train with it unchanged.

Sources
    V4 (arXiv 2606.19348) section 5.2.1   FP4 master -> FP4 -> FP8 without loss, straight through
    released kernel.py, act_quant and fp4_act_quant   2^ceil(log2(amax / 6)), blocks of 32
    OCP Microscaling Formats 1.0, the scale rules by the names that torchao gives them

Equations (F: largest number of the format, 6 for E2M1)
    scale      s = 2^ceil(log2(amax / F))
    codes      q = round(x / s) to the nearest of 0, 0.5, 1, 1.5, 2, 3, 4, 6, ties to even
    weight     FP32 -> s q -> FP8; its gradient goes to the FP32 weight as it is

Departures
    - The bytes of blocks of zeros: scale 1 here, as in `training.fp8`; there amax is at least
      6 * 2^-126, which makes the scale 2^-126. Both give back zeros.
    - `quantize_fp4` keeps the numbers as bfloat16; `codes` and `pack` give the half bytes.
    - The scale of the FP8 tile is our choice, UE8M0 by amax / 448
      (`training.fp8.formats.quantize`), the rule of the FP8 layers.
"""

from typing import Literal

import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn

from dsnotes.checks.arguments import checked
from dsnotes.training.fp8.formats import BLOCK, Format, Group, Quantized, cast, dequantize, quantize

E2M1 = Format("E2M1", 2, 1, 1, 6.0, torch.bfloat16)
MAGNITUDES = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])  # by the lower three bits
BLOCK32: Group = (1, 32)
BIAS = 127  # of UE8M0: byte b means 2^(b - 127), 255 means NaN
Rule = Literal["rceil", "floor", "even", "nearest"]


@checked
def quantize_fp4(x: Float[Tensor, "rows cols"]) -> Quantized:
    """Blocks of 32 along a row: numbers of E2M1 and one power of two for each block.

    >>> q = quantize_fp4(torch.tensor([[0.2, -0.7, 3.0, 5.0]]))
    >>> q.data.tolist(), q.scale_inv.tolist()
    ([[0.0, -0.5, 3.0, 4.0]], [[1.0]])
    """
    return quantize(x, group=BLOCK32, fmt=E2M1, power_of_two=True)


@checked
def encode_scale(scale: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """The byte of each UE8M0 scale. NaN is 255; there is neither a zero nor a sign.

    ValueError unless every other scale is a power of two from 2^-127 to 2^127.

        >>> encode_scale(torch.tensor([0.25, 1.0, 2.0])).tolist()
        [125, 127, 128]
    """
    mantissa, exponent = torch.frexp(scale.double())  # scale = mantissa * 2^exponent
    byte = exponent.long() - 1 + BIAS
    fits = (mantissa == 0.5) & (byte >= 0) & (byte < 255)
    if wrong := scale[~fits & ~scale.isnan()].tolist():
        raise ValueError(f"scale must be a power of two, 2^-127 to 2^127, got {wrong[0]:g}")
    return byte.masked_fill(scale.isnan(), 255).to(torch.uint8)


@checked
def decode_scale(byte: UInt8[Tensor, "*shape"]) -> Float32[Tensor, "*shape"]:
    """2^(byte - 127), or NaN for 255.

    >>> decode_scale(torch.tensor([0, 127, 255], dtype=torch.uint8)).tolist()
    [5.877471754111438e-39, 1.0, nan]
    """
    power = torch.ldexp(torch.ones(byte.shape, dtype=torch.float64), byte.long() - BIAS)
    return power.float().masked_fill(byte == 255, torch.nan)


@checked
def codes(x: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """The four bits of the nearest E2M1 number: sign, two of exponent, one of mantissa.

    ValueError for NaN, which the format does not have.

        >>> [f"{c:04b}" for c in codes(torch.tensor([0.5, 1.0, -6.0])).tolist()]
        ['0001', '0010', '1111']
    """
    if x.isnan().any():
        raise ValueError("x must not hold NaN: E2M1 has none")
    numbers = cast(x, E2M1).float()
    magnitude = torch.searchsorted(MAGNITUDES.to(x.device), numbers.abs())
    return (magnitude + 8 * numbers.signbit()).to(torch.uint8)


@checked
def decode(codes: UInt8[Tensor, "*shape"]) -> Float32[Tensor, "*shape"]:
    """The numbers that the four bits mean. ValueError for a code above 15.

    >>> decode(torch.tensor([7, 9], dtype=torch.uint8)).tolist()
    [6.0, -0.5]
    """
    if codes.numel() and codes.max() > 15:
        raise ValueError(f"codes must lie in 0 .. 15, got {codes.max().item()}")
    signed = torch.cat([MAGNITUDES, -MAGNITUDES]).to(codes.device)
    return signed[codes.long()]


@checked
def pack(codes: UInt8[Tensor, "*batch cols"]) -> UInt8[Tensor, "*batch bytes"]:
    """Two codes a byte: the first in the lower half, as torch's `float4_e2m1fn_x2`.

    ValueError for an odd number of columns or a code above 15.

        >>> pack(torch.tensor([0x1, 0xF], dtype=torch.uint8)).tolist() == [0xF1]
        True
    """
    if codes.shape[-1] % 2:
        raise ValueError(f"codes must have an even number of columns, got {codes.shape[-1]}")
    if codes.numel() and codes.max() > 15:
        raise ValueError(f"codes must lie in 0 .. 15, got {codes.max().item()}")
    return codes[..., ::2] | codes[..., 1::2] << 4


@checked
def unpack(packed: UInt8[Tensor, "*batch bytes"]) -> UInt8[Tensor, "*batch cols"]:
    """The two codes of each byte, the lower half first.

    >>> unpack(torch.tensor([0xF1], dtype=torch.uint8)).tolist()
    [1, 15]
    """
    return torch.stack([packed & 15, packed >> 4], dim=-1).flatten(-2)


@checked
def scale_for(
    amax: Float[Tensor, "*shape"], fmt: Format = E2M1, rule: Rule = "rceil"
) -> Float32[Tensor, "*shape"]:
    """The power of two for blocks whose largest magnitude is `amax`, by one of four rules.

    rceil    2^ceil(log2(amax / F)): nothing lies above F afterwards (V4)
    floor    2^(floor(log2 amax) - e), e the exponent of F: the OCP specification; F can overflow
    even     floor, after amax was rounded to the mantissa of the format
    nearest  what torch makes of amax / F as `float8_e8m0fnu`: F can overflow

    ValueError unless amax is above 0: UE8M0 has no zero.

        >>> [scale_for(torch.tensor(7.0), rule=r).item() for r in ("rceil", "floor")]
        [2.0, 1.0]
    """
    if not (amax > 0).all():
        raise ValueError("amax must be above 0, UE8M0 has no zero")
    amax = amax.float()
    top = torch.frexp(torch.tensor(fmt.max)).exponent - 1
    if rule == "nearest":
        return (amax / fmt.max).to(torch.float8_e8m0fnu).float()
    mantissa, exponent = torch.frexp(amax / fmt.max if rule == "rceil" else amax)
    if rule == "rceil":
        exponent = exponent - (mantissa == 0.5).int()
    else:
        half_a_step = 2.0 ** -(fmt.mantissa_bits + 2) if rule == "even" else 0.0
        exponent = exponent - 1 - top + (mantissa + half_a_step >= 1).int()
    return torch.ldexp(torch.ones_like(amax), exponent)


@checked
def round_trip(
    x: Float[Tensor, "rows cols"], fmt: Format = E2M1, rule: Rule = "rceil", block: int = 32
) -> Float32[Tensor, "rows cols"]:
    """What is left of x after quantisation by `rule`; larger numbers saturate.

    ValueError unless `block` divides the columns.

        >>> round_trip(torch.tensor([[7.0, 1.0]]), rule="floor", block=2).tolist()
        [[6.0, 1.0]]
    """
    if block < 1 or x.shape[1] % block:
        raise ValueError(f"block ({block}) must divide the columns ({x.shape[1]})")
    blocks = x.float().unflatten(1, (-1, block))
    amax = blocks.abs().amax(dim=2, keepdim=True).clamp(min=fmt.max * 2.0**-126)
    scale = scale_for(amax, fmt, rule)
    return (cast(blocks / scale, fmt).float() * scale).flatten(1)


@checked
def to_fp8(q: Quantized) -> Quantized:
    """The same matrix in E4M3 with one UE8M0 scale for each 128x128 tile, without loss.

    E2M1 times 2^k is exact in E4M3 for k from -8 to 6: scales inside a tile may spread 2^14.
    ValueError where they spread so far that a number would change.

        >>> q = quantize_fp4(torch.randn(128, 256))
        >>> torch.equal(dequantize(to_fp8(q)), dequantize(q))
        True
    """
    wide = dequantize(q)
    narrow = quantize(wide, group=BLOCK, power_of_two=True)
    changed = int((dequantize(narrow) != wide).sum())
    if changed:
        raise ValueError(f"q must be exact in FP8, but its scales change {changed} numbers")
    return narrow


@checked
def straight_through(weight: Float[Tensor, "rows cols"]) -> Float[Tensor, "rows cols"]:
    """The weight as FP4 would store it; the gradient passes as if nothing was rounded.

    >>> w = torch.tensor([[0.2, 5.0]], requires_grad=True)
    >>> straight_through(w).sum().backward()
    >>> w.grad.tolist()
    [[1.0, 1.0]]
    """
    rounded = dequantize(quantize_fp4(weight.detach())).to(weight.dtype)
    return rounded + (weight - weight.detach())


class Fp4Weight(nn.Module):
    """`straight_through` as a parametrization: the layer keeps its class and its FP32 weight.

    >>> from torch.nn.utils.parametrize import register_parametrization
    >>> from dsnotes.training.fp8.linear import Fp8Linear, Recipe
    >>> layer = Fp8Linear(64, 40, recipe=Recipe(power_of_two=True))
    >>> layer = register_parametrization(layer, "weight", Fp4Weight())
    >>> layer(torch.randn(3, 64)).shape
    torch.Size([3, 40])
    """

    def forward(self, weight: Tensor) -> Tensor:
        return straight_through(weight)
