"""FP8's formats and groups: every code, every rounding, every scale."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dsnotes.training.fp8 import formats
from dsnotes.training.fp8.formats import (
    BLOCK,
    E4M3,
    E5M2,
    E5M6,
    INT8,
    PER_TENSOR,
    TILE,
    TOKEN_TILE,
    Format,
    Quantized,
    cast,
    dequantize,
    quantize,
)

from .measure import gradient_like, relative_error

FLOATS = pytest.mark.parametrize("fmt", [E4M3, E5M2, E5M6], ids=lambda f: f.name)


# --- formats ---


def definition(code: int, fmt: Format) -> float:
    """The value of one code, spelled out with Python numbers."""
    m, e = fmt.mantissa_bits, fmt.exponent_bits
    fraction, exponent, sign = code % 2**m, code // 2**m % 2**e, code // 2 ** (m + e)
    if exponent == 2**e - 1 and (fmt is not E4M3 or fraction == 2**m - 1):
        return math.nan if fraction else (-1) ** sign * math.inf
    value = (1 + fraction / 2**m) * 2.0 ** (exponent - fmt.bias)
    if exponent == 0:
        value = fraction / 2**m * 2.0 ** (1 - fmt.bias)
    return (-1) ** sign * value


@FLOATS
def test_every_code_decodes_to_its_definition_and_is_its_own_cast(fmt: Format) -> None:
    codes = torch.arange(2**fmt.bits)
    values = formats.decode(codes, fmt)
    expected = torch.tensor([definition(c, fmt) for c in codes.tolist()])
    torch.testing.assert_close(values, expected, rtol=0, atol=0, equal_nan=True)
    finite = values.isfinite()
    assert formats.codes(values[finite], fmt).equal(codes[finite])
    assert cast(values[finite], fmt).float().equal(values[finite])
    assert cast(torch.tensor(math.nan), fmt).float().isnan()


@pytest.mark.parametrize("fmt", [E4M3, E5M2], ids=lambda f: f.name)
def test_decoding_agrees_with_torch_on_all_256_codes(fmt: Format) -> None:
    codes = torch.arange(256)
    theirs = codes.to(torch.uint8).view(fmt.dtype).float()
    assert formats.decode(codes, fmt).nan_to_num(nan=-1.0).equal(theirs.nan_to_num(nan=-1.0))


@FLOATS
def test_cast_is_to_nearest_and_ties_to_even_at_every_midpoint(fmt: Format) -> None:
    half = torch.arange(2 ** (fmt.bits - 1))  # codes of non-negative numbers are in their order
    values = formats.decode(half, fmt)
    half, values = half[values.isfinite()], values[values.isfinite()]
    low, high, mid = values[:-1], values[1:], (values[:-1] + values[1:]) / 2
    even = torch.where(half[:-1] % 2 == 0, low, high)
    for sign in (1, -1):
        assert cast(sign * mid, fmt).float().equal(sign * even)
        below, above = (torch.nextafter(mid, torch.tensor(to)) for to in (0.0, math.inf))
        assert cast(sign * below, fmt).float().equal(sign * low)
        assert cast(sign * above, fmt).float().equal(sign * high)


@FLOATS
def test_cast_saturates_also_infinity(fmt: Format) -> None:
    x = torch.tensor([fmt.max, 1.01 * fmt.max, 1.5 * fmt.max, 1e30, math.inf])
    assert cast(x, fmt).float().eq(fmt.max).all()
    assert cast(-x, fmt).float().eq(-fmt.max).all()


@pytest.mark.parametrize(
    ("fmt", "max_", "min_normal", "min_subnormal", "eps", "finite"),
    [  # facts of the formats; 253 and 247 distinct numbers, +0 and -0 counted once
        (E4M3, 448.0, 2**-6, 2**-9, 2**-3, 253),
        (E5M2, 57344.0, 2**-14, 2**-16, 2**-2, 247),
        (E5M6, 65024.0, 2**-14, 2**-20, 2**-6, 3967),
    ],
    ids=lambda v: getattr(v, "name", ""),
)
def test_ranges(
    fmt: Format, max_: float, min_normal: float, min_subnormal: float, eps: float, finite: int
) -> None:
    values = formats.decode(torch.arange(2**fmt.bits), fmt)
    values = values[values.isfinite()].unique()
    assert len(values) == finite
    assert values[-1] == fmt.max == max_
    assert values[values > 0][0] == min_subnormal
    assert formats.codes(torch.tensor(min_normal), fmt) == 1 << fmt.mantissa_bits
    assert values[values > 1][0] - 1 == eps


def test_e5m6_is_float16_without_its_last_four_bits() -> None:
    x = torch.randn(10_000).exp()
    y = cast(x, E5M6)
    assert y.dtype == torch.float16
    assert not (y.view(torch.int16) & 0b1111).any()
    assert formats.codes(x, E5M6).equal(y.view(torch.int16).long() >> 4)


def test_bit_patterns_that_a_reader_can_check() -> None:
    assert formats.bit_pattern(448.0) == "0 1111 110"
    assert formats.bit_pattern(-1.0) == "1 0111 000"
    assert formats.bit_pattern(2**-9) == "0 0000 001"
    assert formats.bit_pattern(1.75, E5M2) == "0 01111 11"
    assert formats.bit_pattern(65024.0, E5M6) == "0 11110 111111"


# --- groups ---


GROUPS = [PER_TENSOR, TILE, TOKEN_TILE, BLOCK, (1, None)]


def members(group: formats.Group, i: int, j: int) -> tuple[slice, slice]:
    """The group that holds element (i, j)."""
    r, c = group
    rows = slice(None) if r is None else slice(i // r * r, i // r * r + r)
    return rows, slice(None) if c is None else slice(j // c * c, j // c * c + c)


@pytest.mark.parametrize("group", GROUPS, ids=str)
@pytest.mark.parametrize("shape", [(128, 256), (130, 257), (1, 1), (3, 127), (129, 5)])
def test_each_group_has_the_scale_of_its_own_maximum(
    group: formats.Group, shape: tuple[int, int]
) -> None:
    x = gradient_like(*shape)
    q = quantize(x, group=group)
    r, c = group[0] or shape[0], group[1] or shape[1]
    assert q.scale_inv.shape == (math.ceil(shape[0] / r), math.ceil(shape[1] / c))
    for i, j in [(0, 0), (shape[0] - 1, shape[1] - 1), (shape[0] // 2, shape[1] // 2)]:
        scale = x[members(group, i, j)].abs().max() / 448
        assert q.scale_inv[i // r, j // c] == scale
        assert q.data[i, j].float() == cast(x[i, j] / scale).float()
        assert dequantize(q)[i, j] == q.data[i, j].float() * scale


def test_a_matrix_without_rows_stays_one() -> None:
    for group in GROUPS:
        q = quantize(torch.empty(0, 200), group=group)
        assert dequantize(q).shape == (0, 200)


def test_transposing_turns_tiles_around() -> None:
    q = quantize(torch.randn(130, 257))
    assert q.T.group == TOKEN_TILE
    assert dequantize(q.T).equal(dequantize(q).T)


def test_power_of_two_scales_are_the_next_above() -> None:
    amax = torch.tensor([448.0, 449.0, 447.0, 224.0, 1.0, 3e-30, 3e38])
    s = quantize(amax[:, None], power_of_two=True).scale_inv[:, 0]
    assert s[:4].tolist() == [1.0, 2.0, 1.0, 0.5]  # 448/448 is a power of two already
    assert (torch.frexp(s).mantissa == 0.5).all()
    assert (amax / s <= 448).all()
    assert (amax / s > 224).all()
    assert s.to(torch.float8_e8m0fnu).float().equal(s)  # one byte holds it
    every = torch.tensor([2.0**e for e in range(-126, 118)])
    scales = quantize(448 * every[:, None], power_of_two=True).scale_inv[:, 0]
    assert scales.equal(every)


def test_scales_in_one_byte_are_read_like_float32() -> None:
    """UE8M0 holds every power of two that a scale is rounded to, edge blocks included."""
    q = quantize(torch.randn(130, 257), group=BLOCK, power_of_two=True)
    byte = q._replace(scale_inv=q.scale_inv.to(torch.float8_e8m0fnu))
    assert torch.equal(dequantize(byte), dequantize(q))


def test_power_of_two_scales_cost_little() -> None:
    x = torch.randn(256, 1024)
    plain, pow2 = (
        relative_error(dequantize(quantize(x, power_of_two=p)), x) for p in (False, True)
    )
    assert 0.02 < plain < pow2 < 1.1 * plain


@pytest.mark.parametrize("power_of_two", [False, True])
def test_a_non_finite_value_spoils_its_group_and_no_other(power_of_two: bool) -> None:
    for bad in (math.nan, math.inf, -math.inf):
        for fmt in (E4M3, E5M2, E5M6, INT8):
            x = torch.randn(2, 256)
            x[0, 3] = bad
            y = dequantize(quantize(x, fmt=fmt, power_of_two=power_of_two))
            assert y[0, :128].isnan().all()
            assert y[0, 128:].isfinite().all()
            assert y[1].isfinite().all()


def test_gradients_of_any_size_keep_their_precision() -> None:
    """A lower bound on amax, as in the released kernel, would flush the smallest ones to 0."""
    x = torch.randn(8, 128)
    for size in (1e-30, 1e-12, 1.0, 1e30):
        assert relative_error(dequantize(quantize(size * x)) / size, x) < 0.04
    kernel_scale = (1e-12 * x).abs().amax(1, keepdim=True).clamp(min=1e-4) / 448
    assert cast(1e-12 * x / kernel_scale).float().count_nonzero() == 0


finite_rows = st.lists(
    st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False), min_size=1, max_size=40
)


@given(row=finite_rows, fmt=st.sampled_from([E4M3, E5M2, E5M6, INT8]), power_of_two=st.booleans())
@settings(deadline=None)
def test_round_trip_error_is_bounded(row: list[float], fmt: Format, power_of_two: bool) -> None:
    x = torch.tensor([row])
    q = quantize(x, fmt=fmt, power_of_two=power_of_two)
    assert (q.scale_inv > 0).all()
    step = torch.finfo(torch.float32).eps * x.abs()  # two roundings to float32, scale and product
    half_ulp = x.abs() * 2.0 ** -(fmt.mantissa_bits + 1)
    smallest = q.scale_inv * 2.0 ** (-fmt.bias - fmt.mantissa_bits)  # half the subnormal step
    bound = smallest.expand_as(x) if fmt is INT8 else torch.maximum(half_ulp, smallest)
    assert ((dequantize(q) - x).abs() <= bound * (1 + 1e-5) + 2 * step).all()


@given(row=finite_rows, fmt=st.sampled_from([E4M3, E5M2, E5M6]))
@settings(deadline=None)
def test_quantising_twice_with_power_of_two_scales_changes_nothing(
    row: list[float], fmt: Format
) -> None:
    x = torch.tensor([row])
    once = dequantize(quantize(x, fmt=fmt, power_of_two=True))
    twice = dequantize(quantize(once, fmt=fmt, power_of_two=True))
    assert twice.equal(once)


@given(row=st.lists(st.floats(-500, 500, width=32), min_size=1), fmt=st.sampled_from([E4M3, E5M6]))
@settings(deadline=None)
def test_cast_is_idempotent_odd_and_monotone(row: list[float], fmt: Format) -> None:
    x = torch.tensor(row).sort().values
    y = cast(x, fmt).float()
    assert cast(y, fmt).float().equal(y)
    assert cast(-x, fmt).float().equal(-y)
    assert (y.diff() >= 0).all()


# --- traps: the wrong variant on concrete numbers, and what ours does ---


def test_trap_1_whole_numbers_are_not_fp8() -> None:
    x = torch.tensor([[448.0, 100.0, 10.0, 1.0, 0.3, 0.02]])
    wrong = torch.round(x / (448 / 127)) * (448 / 127)  # "FP8" as round(x / s): 8 bits, one step
    ours = dequantize(quantize(x))
    assert ((ours - x).abs() / x).max() <= 1 / 16  # a relative error, whatever the size
    assert wrong[0, 3:].tolist() == [0, 0, 0]
    assert torch.allclose(wrong, dequantize(quantize(x, fmt=INT8)))
    steps = cast(torch.arange(1.0, 449)).float().unique().diff().unique()
    assert steps.tolist() == [1, 2, 4, 8, 16, 32]  # from 1 to 448; whole numbers have one step


def bulk_error(outlier: float, *, group: formats.Group, fmt: Format) -> float:
    """Relative error of all other channels when one is multiplied by `outlier`."""
    x = torch.randn(64, 2048, generator=torch.Generator().manual_seed(0))
    x[:, 5] *= outlier
    y = dequantize(quantize(x, group=group, fmt=fmt))
    keep = torch.arange(2048) != 5
    return relative_error(y[:, keep], x[:, keep])


def test_trap_2_an_outlier_of_100_does_not_hurt_e4m3() -> None:
    clean = bulk_error(1, group=PER_TENSOR, fmt=E4M3)
    assert bulk_error(100, group=PER_TENSOR, fmt=E4M3) == pytest.approx(clean, rel=0.03)
    assert bulk_error(1e5, group=PER_TENSOR, fmt=E4M3) > 8 * clean
    assert bulk_error(1e5, group=TILE, fmt=E4M3) < 2 * clean
    int8 = [bulk_error(m, group=PER_TENSOR, fmt=INT8) for m in (1, 100, 1000)]
    assert int8[0] < clean  # INT8 is the better format while there is no outlier
    assert int8[1] > 0.5
    assert int8[2] == pytest.approx(1, abs=1e-3)  # all other channels are 0


def test_trap_3_without_a_clamp_e5m2_overflows_to_infinity() -> None:
    x = torch.tensor([61440.0, -1e6])
    assert x.to(torch.float8_e5m2).float().tolist() == [math.inf, -math.inf]
    assert cast(x, E5M2).float().tolist() == [57344, -57344]
    # amax / s can come out above 448: the clamp is not only for stale scales
    amax = torch.linspace(1, 2, 100_000)
    assert (amax / (amax / 448) > 448).any()
    assert cast(torch.tensor([1000.0])).float().item() == 448


def test_trap_4_a_tile_of_zeros_stays_zero() -> None:
    x = torch.zeros(1, 256)
    x[0, 200] = 3.0
    tiles = x.view(2, 128)
    wrong = (tiles / (tiles.abs().amax(1, keepdim=True) / 448)).to(torch.float8_e4m3fn)
    assert wrong[0].float().isnan().all()
    for fmt in (E4M3, E5M2, E5M6, INT8):
        for power_of_two in (False, True):
            q = quantize(x, fmt=fmt, power_of_two=power_of_two)
            assert q.scale_inv[0, 0] == 1
            assert dequantize(q)[0, :128].eq(0).all()


def test_trap_7_weight_scale_inv_is_multiplied() -> None:
    w = 0.02 * torch.randn(576, 300)
    weight, weight_scale_inv, _ = quantize(w, group=BLOCK)
    assert relative_error(dequantize(Quantized(weight, weight_scale_inv, BLOCK)), w) < 0.03
    wrong = dequantize(Quantized(weight, 1 / weight_scale_inv, BLOCK))
    assert wrong.std() > 1e6 * w.std()
    assert weight_scale_inv.shape == (5, 3)  # the edge blocks count: 576 = 4.5 * 128
    assert weight_scale_inv.max() < 1e-3


# --- bad input ---


def test_bad_input_is_named() -> None:
    x = torch.randn(4, 8)
    for group in ((0, 128), (1, -1), (1.5, None)):
        with pytest.raises(Exception, match="group"):
            quantize(x, group=group)
    with pytest.raises(ValueError, match=r"codes must lie in 0 .. 255 for E4M3, got 0 .. 256"):
        formats.decode(torch.tensor([0, 256]))
    for function in (
        lambda: formats.codes(x, INT8),
        lambda: formats.decode(torch.tensor([1]), INT8),
    ):
        with pytest.raises(ValueError, match="fmt must be a floating format, got INT8"):
            function()
    with pytest.raises(ValueError, match=r"scale_inv must have shape \(5, 3\), one .* \(4, 2\)"):
        dequantize(Quantized(cast(torch.ones(576, 300)), torch.ones(4, 2), BLOCK))


def test_codes_of_any_whole_number_type_and_one_rounding() -> None:
    """2^8 is 0 in uint8; a float64 above a tie must not be rounded on to it by way of float32."""
    x = torch.tensor([1.5, -448.0, 0.0]).to(torch.float8_e4m3fn)
    assert torch.equal(formats.decode(x.view(torch.uint8)), x.float())
    near_tie = torch.tensor([1.0625 + 1e-12, 1.0625, 1.0625 - 1e-12], dtype=torch.float64)
    assert cast(near_tie).tolist() == [1.125, 1.0, 1.0]


def test_numbers_next_to_the_largest_come_back_finite() -> None:
    for power_of_two in (False, True):
        x = torch.full((1, 128), 3.4e38)
        back = dequantize(quantize(x, power_of_two=power_of_two))
        assert (back - x).abs().max() <= 3.4e38 / 16
    infinite = Quantized(torch.tensor([[torch.inf]]).to(torch.float8_e5m2), torch.ones(1, 1), TILE)
    assert dequantize(infinite).item() == torch.inf
    for power_of_two in (False, True):
        for large in (448 * 2.0**128, 1e300):
            x = torch.full((1, 2), large, dtype=torch.float64)
            with pytest.raises(ValueError, match="x must have scales that fit float32, got a grou"):
                quantize(x, power_of_two=power_of_two)


def test_no_gradient_flows_through_a_cast() -> None:
    x = torch.ones(2, 2, requires_grad=True)
    assert not dequantize(quantize(x)).requires_grad
    assert not cast(x).requires_grad


def test_bad_shapes_are_named_without_run_time_annotations() -> None:
    """The annotations that tests switch on refuse these first; a reader runs without them."""
    code = (
        "import torch; from dsnotes.training.fp8 import formats\n"
        "x = torch.ones(2, 3)\n"
        "for call in (\n"
        "    lambda: formats.quantize(torch.ones(2, 3, 4)),\n"
        "    lambda: formats.quantize(x, group=(1.5, None)),\n"
        "):\n"
        "    try: call()\n"
        "    except (ValueError, TypeError) as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == [
        "x must be a floating-point tensor of shape (rows, cols), "
        "got torch.float32 of shape (2, 3, 4)",
        "group must hold two positive whole numbers or None, got (1.5, None)",
    ], done.stderr


def test_where_numbers_become_0_as_the_page_says() -> None:
    """Below 1/458,752 of the largest in E4M3 (2^-18.8), below 1/254 in INT8 (2^-8)."""
    page = (Path(__file__).parents[3] / "book" / "training" / "fp8.md").read_text("utf-8")
    assert "小于最大值的 $2^{-18.8}$，也就是前面算的 $1/458752$，才归了零" in page
    assert "缩到 $1/254$ 以下却已经是零" in page
    for fmt, ratio in ((E4M3, 458_752), (INT8, 254)):
        x = torch.tensor([fmt.max, fmt.max / ratio * 0.999, fmt.max / ratio * 1.001])
        assert cast(x, fmt).float().ne(0).tolist() == [True, False, True]
    assert round(math.log2(458_752), 1) == 18.8
