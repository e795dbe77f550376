"""Quantisation on a GPU: one Triton kernel that reads a matrix once and writes its codes.

Plain code reads a matrix for the largest magnitudes, again for the division, again for the
rounding. Here a program holds a block of 128 x 128 numbers in registers, finds the scales of its
rows, of its columns or of the whole block, and writes the codes as the products want them: along
the axis that they sum over, filled up with zeros to whole blocks.

The numbers are those of `formats.quantize`, bit for bit: divisions are rounded correctly, and the
largest magnitude is found among the bits of |x|, which are ordered as the numbers are, with
infinity and NaN above all of them.

Legend
    rows, cols              of the matrix x
    all_rows, all_cols      the same, rounded up to multiples of 128
    along                   codes (all_rows, all_cols)
    across                  codes of the transposed matrix (all_cols, all_rows)
"""

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from dsnotes.training.fp8.formats import (
    BLOCK,
    E4M3,
    E5M2,
    E5M6,
    PER_TENSOR,
    TILE,
    TOKEN_TILE,
    Format,
    Group,
    Quantized,
)

SIDE = 128  # of a block


@triton.jit
@no_type_check
def _scale_of(bits, LARGEST: tl.constexpr, POWER_OF_TWO: tl.constexpr):
    """amax / LARGEST, where `bits` are those of amax; 1 for zeros, NaN for infinity and NaN."""
    scale = tl.maximum(tl.div_rn(bits.to(tl.float32, bitcast=True), LARGEST), 2.0**-126)
    if POWER_OF_TWO:  # to the next exponent, unless the fraction is 0
        above = (scale.to(tl.int32, bitcast=True) + 0x7FFFFF) & 0x7F800000
        scale = above.to(tl.float32, bitcast=True)
    scale = tl.where(bits == 0, 1.0, scale)
    return tl.where(bits >= 0x7F800000, float("nan"), scale)


@triton.jit
@no_type_check
def _codes(x, scale, dtype: tl.constexpr):
    """x / scale, rounded; float16 stands for E5M6, the last four bits of which are 0."""
    x = tl.div_rn(x, scale)
    if dtype == tl.float16:
        bits = x.to(tl.int32, bitcast=True)
        exponent = tl.maximum((bits >> 23) & 0xFF, 127 - 14)  # subnormals share a step
        # A sum with 1.5 * 2^17 times the power of two below x drops what is below one step
        large = (((exponent + 17) << 23) | 0x400000).to(tl.float32, bitcast=True)
        x = ((x + large) - large).to(tl.int32, bitcast=True) | (bits & -0x80000000)  # keeps -0
        x = x.to(tl.float32, bitcast=True)
    return x.to(dtype)


@triton.jit(do_not_specialize=["rows"])
@no_type_check
def _quantize(
    x, x_scale, amax, along, along_scale, across, across_scale, rows, cols, x_row, x_col,
    ALONG_BLOCK: tl.constexpr, ACROSS_BLOCK: tl.constexpr,
    LARGEST: tl.constexpr, POWER_OF_TWO: tl.constexpr, SIDE: tl.constexpr,
):  # fmt: skip
    """One block. With `x_scale`, x holds codes with scales of 1 x 128 tiles."""
    row_block, col_block = tl.program_id(0), tl.program_id(1)
    all_rows, all_cols = tl.num_programs(0) * SIDE, tl.num_programs(1) * SIDE
    i = row_block.to(tl.int64) * SIDE + tl.arange(0, SIDE)
    j = col_block.to(tl.int64) * SIDE + tl.arange(0, SIDE)
    inside = (i < rows)[:, None] & (j < cols)[None, :]
    block = tl.load(x + i[:, None] * x_row + j[None, :] * x_col, mask=inside, other=0.0)
    block = block.to(tl.float32)
    if x_scale is not None:  # as in `dequantize`
        block *= tl.load(x_scale + col_block * all_rows + i)[:, None]
        largest: tl.constexpr = 3.4028234663852886e38
        block = tl.clamp(block, -largest, largest, propagate_nan=tl.PropagateNan.ALL)
    bits = block.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    if ALONG_BLOCK or ACROSS_BLOCK:
        of_block = _scale_of(tl.max(tl.max(bits, 1), 0), LARGEST, POWER_OF_TWO)
    if along is not None:
        if amax is not None:  # of the whole matrix
            scale = _scale_of(tl.load(amax).to(tl.int32, bitcast=True), LARGEST, POWER_OF_TWO)
            tl.store(along_scale, scale)
            codes = _codes(block, scale, along.dtype.element_ty)
        elif ALONG_BLOCK:
            tl.store(along_scale + row_block * tl.num_programs(1) + col_block, of_block)
            codes = _codes(block, of_block, along.dtype.element_ty)
        else:
            of_rows = _scale_of(tl.max(bits, 1), LARGEST, POWER_OF_TWO)
            tl.store(along_scale + col_block * all_rows + i, of_rows)
            codes = _codes(block, of_rows[:, None], along.dtype.element_ty)
        tl.store(along + i[:, None] * all_cols + j[None, :], codes)  # type: ignore[used-before-def]
    if across is not None:
        if ACROSS_BLOCK:
            tl.store(across_scale + col_block * tl.num_programs(0) + row_block, of_block)
            codes = _codes(block, of_block, across.dtype.element_ty)
        else:
            of_cols = _scale_of(tl.max(bits, 0), LARGEST, POWER_OF_TWO)
            tl.store(across_scale + row_block * all_cols + j, of_cols)
            codes = _codes(block, of_cols[None, :], across.dtype.element_ty)
        tl.store(across + i[:, None] + j[None, :] * all_rows, codes)


def quantize(
    x: Tensor,
    x_scale: Tensor | None = None,
    *,
    along: Group | None = None,
    across: Group | None = None,
    fmt: Format = E4M3,
    power_of_two: bool = False,
) -> tuple[Any, Any]:
    """The matrix quantised in groups `along` (1x128, 128x128, all) and `across` (128x1, 128x128).

    Both are `Quantized`, or None, and have the shape of x filled up to whole blocks; the codes of
    `across` lie in memory as those of the transposed matrix. With `x_scale`, x holds the codes of
    1x128 tiles in whole blocks.
    """
    blocks = triton.cdiv(x.shape[0], SIDE), triton.cdiv(x.shape[1], SIDE)
    shape = blocks[0] * SIDE, blocks[1] * SIDE
    amax = codes = scale = codes_t = scale_t = first = second = None
    if along is not None:
        codes = x.new_empty(shape, dtype=fmt.dtype)
        if along == TILE:
            scale = x.new_empty((blocks[1], shape[0]), dtype=torch.float32)
            first = Quantized(codes, scale.T, TILE)
        else:
            scale = x.new_empty(blocks if along == BLOCK else (1, 1), dtype=torch.float32)
            first = Quantized(codes, scale, along)
        amax = x.abs().amax().float() if along == PER_TENSOR else None
    if across is not None:
        codes_t = x.new_empty(shape[::-1], dtype=fmt.dtype)
        if across == BLOCK:
            scale_t = x.new_empty(blocks[::-1], dtype=torch.float32)
            second = Quantized(codes_t.T, scale_t.T, BLOCK)
        else:
            scale_t = x.new_empty((blocks[0], shape[1]), dtype=torch.float32)
            second = Quantized(codes_t.T, scale_t, TOKEN_TILE)
    with torch.cuda.device_of(x):
        _quantize[blocks](
            x, x_scale, amax, codes, scale, codes_t, scale_t, *x.shape, *x.stride(),
            along == BLOCK, across == BLOCK, fmt.max, power_of_two, SIDE, num_warps=8,
        )  # fmt: skip
    return first, second


def knows(group: Group, fmt: Format) -> bool:
    """Whether `quantize` has the group and the format."""
    return group in (TILE, TOKEN_TILE, BLOCK, PER_TENSOR) and fmt in (E4M3, E5M2, E5M6)


def quantize_as(x: Tensor, group: Group, fmt: Format, power_of_two: bool) -> Quantized:
    """`quantize` in one way, cut to the shape of x, row by row as on the CPU."""
    along, across = (None, group) if group == TOKEN_TILE else (group, None)
    made = quantize(x, along=along, across=across, fmt=fmt, power_of_two=power_of_two)
    (data, scale, _), (rows, cols) = made[0] or made[1], x.shape
    scale = scale[:rows] if group == TILE else scale[:, :cols]
    return Quantized(data[:rows, :cols].contiguous(), scale.contiguous(), group)
