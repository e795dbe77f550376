"""FP8: formats and groups, the three products of a linear layer, and the limited accumulation of
tensor cores."""

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dsnotes.config import TINY
from dsnotes.model.deepseek import DeepSeek
from dsnotes.training.fp8 import formats, gemm, linear
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
from dsnotes.training.fp8.linear import Bf16Linear, Fp8Linear, Recipe

FLOATS = pytest.mark.parametrize("fmt", [E4M3, E5M2, E5M6], ids=lambda f: f.name)


def relative_error(x: Tensor, reference: Tensor) -> float:
    return ((x - reference).norm() / reference.norm()).item()


def row_errors(x: Tensor, reference: Tensor) -> Tensor:
    return (x - reference).norm(dim=1) / reference.norm(dim=1)


def gradient_like(rows: int, cols: int) -> Tensor:
    """Tokens whose gradients differ by orders of magnitude: row scales log-normal, sigma 4."""
    return torch.randn(rows, cols) * torch.exp(4 * torch.randn(rows, 1))


# --- formats --------------------------------------------------------------------------------------


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


# --- groups ---------------------------------------------------------------------------------------

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


# --- products -------------------------------------------------------------------------------------


def assert_product(actual: Tensor, a: Tensor, b: Tensor) -> None:
    """A B^T up to the rounding of float32 sums, entry by entry."""
    assert ((actual - a @ b.T).abs() <= 1e-6 * (a.abs() @ b.abs().T)).all()


@pytest.mark.parametrize("b_group", [TILE, BLOCK, PER_TENSOR, (1, None)], ids=str)
@pytest.mark.parametrize("shape", [(128, 128, 128), (5, 7, 300), (130, 129, 513), (0, 4, 200)])
def test_gemm_is_the_product_of_the_dequantised_matrices(
    b_group: formats.Group, shape: tuple[int, int, int]
) -> None:
    m, n, k = shape
    a, b = quantize(gradient_like(m, k)), quantize(gradient_like(n, k), group=b_group)
    assert_product(gemm.gemm(a, b), dequantize(a).double(), dequantize(b).double())
    assert gemm.gemm(a, b, out_dtype=torch.bfloat16).dtype == torch.bfloat16


def test_gemm_error_on_gaussian_data_is_that_of_two_operands() -> None:
    a, b = torch.randn(128, 1024), torch.randn(128, 1024)
    error = relative_error(gemm.gemm(quantize(a), quantize(b, group=BLOCK)), a @ b.T)
    assert 0.03 < error < 0.045  # sqrt(2) * 2.6 %


def on_meta(q: Quantized) -> Quantized:
    return Quantized(q.data.to("meta"), q.scale_inv.to("meta"), q.group)


@pytest.mark.parametrize("groups", [(TILE, TILE), (TILE, BLOCK), (BLOCK, TILE)], ids=str)
@pytest.mark.parametrize("shape", [(256, 384, 512), (5, 7, 300), (130, 129, 1100), (1, 1, 1)])
def test_torch_accepts_the_layout_for_tensor_cores(
    groups: tuple[formats.Group, formats.Group], shape: tuple[int, int, int]
) -> None:
    """On the meta device torch checks dtypes, shapes and strides of codes and scales."""
    m, n, k = shape
    a = on_meta(quantize(torch.randn(m, k), group=groups[0]))
    b = on_meta(quantize(torch.randn(n, k), group=groups[1]))
    out = gemm._tensor_core_gemm(a, b, out_dtype=torch.bfloat16)
    assert out.shape == (m, n)
    turned = on_meta(quantize(torch.randn(k, m), group=(groups[0][1], groups[0][0]))).T
    assert gemm._tensor_core_gemm(turned, b, out_dtype=torch.float32).shape == (m, n)


def test_whole_blocks_pads_with_zeros() -> None:
    data, scale = gemm._whole_blocks(quantize(torch.randn(5, 300)))
    assert data.shape == (128, 384)
    assert scale.shape == (128, 3)
    assert not data[5:].float().any()
    assert not data[:, 300:].float().any()
    assert not scale[5:].any()


# --- the linear layer -----------------------------------------------------------------------------


def run(layer: nn.Module, x: Tensor, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x = x.clone().requires_grad_()
    y = layer(x)
    y.backward(dy)
    return y.detach(), x.grad, layer.weight.grad


def case(tokens: int = 200, n: int = 140, k: int = 300) -> tuple[nn.Linear, Tensor, Tensor]:
    return nn.Linear(k, n, bias=False), torch.randn(tokens, k), gradient_like(tokens, n)


def twin(linear: nn.Linear, recipe: Recipe) -> Fp8Linear:
    layer = Fp8Linear(linear.in_features, linear.out_features, recipe=recipe)
    layer.load_state_dict(linear.state_dict())
    return layer


def rounded(
    x: Tensor, group: formats.Group, fmt: Format = E4M3, power_of_two: bool = False
) -> Tensor:
    return dequantize(quantize(x, group=group, fmt=fmt, power_of_two=power_of_two)).double()


RECIPES = {
    "v3": Recipe(output_dtype=None),
    "o_proj": Recipe(output_dtype=None, cache_format=E5M6),
    "powers of two": Recipe(output_dtype=None, power_of_two=True),
    "blocks in Dgrad": Recipe(output_dtype=None, dgrad_group=BLOCK),
    "E5M2 gradients": Recipe(output_dtype=None, gradient_format=E5M2),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_all_three_products_equal_explicit_dequantised_ones(recipe: Recipe) -> None:
    linear, x, dy = case()
    y, dx, dw = run(twin(linear, recipe), x, dy)
    w, pow2 = linear.weight.detach(), recipe.power_of_two
    fmt = recipe.gradient_format
    w_q = rounded(w, BLOCK, power_of_two=pow2)
    assert_product(y, rounded(x, TILE, power_of_two=pow2), w_q)
    assert_product(dx, rounded(dy, recipe.dgrad_group, fmt, pow2), w_q.T)
    cached = rounded(x, TILE, recipe.cache_format, pow2 or recipe.cache_format is E5M6)
    x_t = rounded(cached.float(), TOKEN_TILE, power_of_two=pow2)
    assert_product(dw, rounded(dy, TOKEN_TILE, fmt, pow2).T, x_t.T)
    assert dw.dtype == torch.float32


def test_the_layer_is_close_to_float32_row_by_row() -> None:
    linear, x, dy = case()
    y, dx, dw = run(linear, x, dy)
    linear.weight.grad = None
    y8, dx8, dw8 = run(twin(linear, Recipe()), x, dy)
    assert 0.03 < row_errors(y8, y).median() < 0.045
    assert 0.03 < row_errors(dx8, dx).median() < 0.045  # although tokens differ by orders
    # Wgrad sums over tokens: groups of 128 tokens share a scale, so the largest tokens set it;
    # they also set the sum. The input was rounded twice.
    assert relative_error(dw8, dw) < 0.07


def test_outputs_are_rounded_to_bfloat16_and_weight_gradients_are_not() -> None:
    linear, x, dy = case()
    y, dx, dw = run(twin(linear, Recipe()), x, dy)
    for result in (y, dx):
        assert result.dtype == torch.float32
        assert result.bfloat16().float().equal(result)
    assert not dw.bfloat16().float().equal(dw)


def test_input_may_be_bfloat16_and_may_hold_no_tokens() -> None:
    layer = Fp8Linear(300, 40)
    x = torch.randn(2, 5, 300, dtype=torch.bfloat16, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert (y.dtype, x.grad.dtype, layer.weight.grad.dtype) == (
        torch.bfloat16,
        torch.bfloat16,
        torch.float32,
    )
    layer.weight.grad = None
    empty = torch.empty(0, 300, requires_grad=True)
    layer(empty).sum().backward()
    assert empty.grad.shape == (0, 300)
    assert not layer.weight.grad.any()


def test_nothing_is_computed_for_a_frozen_side() -> None:
    layer = Fp8Linear(40, 30)
    layer.weight.requires_grad_(False)
    x = torch.randn(3, 40, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is None
    assert x.grad is not None


def test_convert_replaces_what_v3_quantises_and_nothing_else() -> None:
    model = DeepSeek(TINY)
    linears = {name for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    before = dict(model.named_parameters())
    names = linear.convert(model)
    assert set(names) == linears - {"lm_head"}
    assert len(names) == 3 * 5 + 3 + 2 * 17 * 3  # attention, one dense layer, experts
    assert {n for n, m in model.named_modules() if isinstance(m, Fp8Linear)} == set(names)
    after = dict(model.named_parameters())
    assert after.keys() == before.keys()
    assert all(after[name] is before[name] for name in before)
    assert model.model.layers[1].self_attn.o_proj.recipe.cache_format is E5M6
    assert model.model.layers[1].self_attn.q_b_proj.recipe.cache_format is E4M3


def test_the_bf16_baseline_replaces_the_same_layers() -> None:
    model = DeepSeek(TINY)
    names = linear.convert(DeepSeek(TINY))
    assert linear.convert(model, recipe=None) == names
    assert all(isinstance(model.get_submodule(name), Bf16Linear) for name in names)


def test_the_bf16_baseline_equals_a_linear_layer_in_bfloat16() -> None:
    linear, x, dy = case()
    baseline = Bf16Linear(300, 140, bias=False)
    baseline.load_state_dict(linear.state_dict())
    y, dx, dw = run(baseline, x, dy)
    narrow = nn.Linear(300, 140, bias=False, dtype=torch.bfloat16)
    narrow.load_state_dict(linear.state_dict())
    y16, dx16, dw16 = run(narrow, x.bfloat16(), dy.bfloat16())
    for ours, theirs in [(y, y16), (dx, dx16)]:  # sums in another order round differently
        assert ours.equal(ours.bfloat16().float())
        assert (ours.bfloat16() == theirs).float().mean() > 0.99
        assert relative_error(ours, theirs.float()) < 3e-4
    assert not dw.equal(dw.bfloat16().float())  # float32
    assert relative_error(dw, dw16.float()) < 2.0**-8
    assert relative_error(dw, dy.bfloat16().float().T @ x.bfloat16().float()) < 1e-6


def test_a_converted_model_is_close_and_can_be_trained() -> None:
    few = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1}
    model = DeepSeek(dataclasses.replace(TINY, **few))
    tokens = torch.randint(0, 256, (2, 33))
    logits = model(tokens).detach()
    linear.convert(model)
    assert 0 < relative_error(model(tokens).detach(), logits) < 0.1
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(6):
        out = model(tokens)[:, :-1].flatten(0, 1)
        loss = nn.functional.cross_entropy(out, tokens[:, 1:].flatten())
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0] - 0.5


def test_memory_per_parameter_and_per_cached_element() -> None:
    v3, bf16, fp32 = (linear.bytes_per_parameter(r) for r in ("v3", "bf16", "fp32"))
    assert sum(v3.values()) == pytest.approx(13.0, abs=1e-3)
    assert sum(bf16.values()) == 18
    assert sum(fp32.values()) == 16
    q = quantize(torch.randn(512, 512), group=BLOCK)
    assert (q.data.nbytes + q.scale_inv.nbytes) / q.data.numel() == v3["weight"]
    q = quantize(torch.randn(512, 512))
    per_element = (q.data.nbytes + q.scale_inv.nbytes) / q.data.numel()
    assert linear.bytes_per_cached_element(E4M3) == per_element
    assert linear.bytes_per_cached_element(E5M6, power_of_two=True) == 1.5 + 1 / 128
    assert linear.bytes_per_cached_element(None) == 2


# --- limited accumulation -------------------------------------------------------------------------


def test_a_sum_that_fits_the_register_is_exact() -> None:
    a, b = torch.randint(-3, 4, (2, 16, 96)).float()
    for promote_every in (None, 32, 96):
        c = gemm.tensor_core_matmul(a, b, promote_every=promote_every)
        assert c.equal(a @ b.T)


def test_one_instruction_by_hand() -> None:
    a = torch.tensor([[2.0**14, 1.0, 3.0, -3.0, -1.0]])
    ones = torch.ones(1, 5)
    # aligned to 2^14 with 13 fraction bits, the unit is 2: 1 -> 0, 3 -> 2, -3 -> -2
    assert gemm.tensor_core_matmul(a, ones).item() == 2.0**14
    assert gemm.tensor_core_matmul(a[:, :3], ones[:, :3]).item() == 2.0**14 + 2
    assert gemm.tensor_core_matmul(a, ones, fraction_bits=14).item() == 2.0**14
    near = gemm.tensor_core_matmul(a[:, :3], ones[:, :3], rounding="nearest")
    assert near.item() == 2.0**14 + 4  # 3 is a tie between 2 and 4
    b = torch.tensor([[2.0**14] + [1.0] * 63])
    results = [
        gemm.tensor_core_matmul(b, torch.ones(1, 64), promote_every=n).item()
        for n in (None, 64, 32)
    ]
    assert results == [16384, 16384, 16416]  # the exact sum is 16447


GPU = json.loads((Path(__file__).parents[3] / "book/data/runs/fp8_gpu.json").read_text("utf-8"))


@pytest.mark.parametrize(("how", "n_c"), [("unpromoted", None), ("promoted", 128)])
def test_the_model_gives_the_bits_of_an_h100(how: str, n_c: int | None) -> None:
    """Codes of all kinds and what the tensor cores made of them, recorded on the GPU."""
    a, b = (
        formats.decode(torch.tensor([list(bytes.fromhex(row)) for row in GPU["sample"][side]]))
        for side in ("a", "b")
    )
    found = torch.tensor(GPU["sample"][how])
    assert gemm.tensor_core_matmul(a, b, promote_every=n_c).equal(found)
    for other in ({"fraction_bits": 12}, {"fraction_bits": 14}, {"rounding": "nearest"},
                  {"instruction_k": 16}, {"instruction_k": 64}):  # fmt: skip
        assert not gemm.tensor_core_matmul(a, b, promote_every=n_c, **other).equal(found)
    reference = a.double() @ b.double().T
    assert not found.double().equal(reference)


def test_recorded_products_of_the_gpu_equal_the_model() -> None:
    assert {row["equal"] for row in GPU["accumulation"]} == {1.0}
    assert {row["equal_in_blocks"] for row in GPU["accumulation"] if row["N_C"]} == {1.0}


def test_the_exponent_of_a_product_is_that_of_its_factors() -> None:
    big, one = 1.5 * 2.0**7, 1.0  # 1.5 * 1.5 > 2, and still aligned as 2^14: the unit is 2
    a = torch.tensor([[big, 3.0]])
    b = torch.tensor([[big, one]])
    # 2.25 * 2^14 + 3: the 3 becomes 2, then the register of 2^15 keeps multiples of 4
    assert gemm.tensor_core_matmul(a, b).item() == 36864
    small = torch.tensor([[big, 3.0, 3.0]])
    assert gemm.tensor_core_matmul(small, torch.tensor([[big, one, one]])).item() == 36868


def errors(**arguments: object) -> dict[tuple[int, int | None], float]:
    rows = gemm.accumulation_errors(size=32, **arguments)
    return {(row["K"], row["N_C"]): row["relative_max"] for row in rows}


def test_error_grows_with_k_without_promotion_and_not_with_it() -> None:
    e = errors(ks=[512, 2048, 8192], promote_every=[None, 128], distributions=["uniform"])
    assert 5 * e[512, None] < 5 * e[2048, None] / 2 < e[8192, None]
    assert max(e[k, 128] for k in (512, 2048, 8192)) < 0.001
    assert e[8192, None] > 100 * e[8192, 128]


def test_error_grows_with_the_promotion_interval() -> None:
    e = errors(ks=[4096], promote_every=[32, 128, 512, None], distributions=["uniform"])
    assert e[4096, 32] < e[4096, 128] < e[4096, 512] < e[4096, None]


def test_the_distribution_decides_what_is_lost_at_k_4096() -> None:
    """The paper's "nearly 2 %" lies between: sums that cancel lose less, sums that grow more."""
    of = {
        name: errors(ks=[4096], promote_every=[None], distributions=[name])[4096, None]
        for name in gemm.DISTRIBUTIONS
    }
    assert 0.003 < of["normal"] < 0.015 < of["rectified"] < 0.022
    assert 0.06 < of["uniform"] < of["half-normal"] < 0.08


def test_one_more_bit_halves_the_error() -> None:
    e13, e14 = (
        errors(ks=[4096], promote_every=[None], distributions=["uniform"], fraction_bits=bits)
        for bits in (13, 14)
    )
    assert e14[4096, None] == pytest.approx(e13[4096, None] / 2, rel=0.15)


# --- traps: the wrong variant on concrete numbers, and what ours does -----------------------------


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


def test_trap_5_blocks_mix_tokens_of_different_size() -> None:
    dy = gradient_like(1024, 256)
    tile, block = (row_errors(dequantize(quantize(dy, group=g)), dy) for g in (TILE, BLOCK))
    assert tile.max() < 0.04
    assert (block > 0.25).float().mean() > 0.3  # a third of the tokens lose a quarter or more
    assert block.max() == 1  # and some lose everything
    linear, x, _ = case(1024, 256, 128)
    exact = run(linear, x, dy)[1]
    ours, blocks = (run(twin(linear, r), x, dy)[1] for r in (Recipe(), Recipe(dgrad_group=BLOCK)))
    assert row_errors(ours, exact).max() < 0.06
    assert (row_errors(blocks, exact) > 0.25).float().mean() > 0.3


def test_trap_6_gradients_are_e4m3_but_one_cache_is_e5m6() -> None:
    dy = gradient_like(256, 256)
    e4m3, e5m2 = (relative_error(dequantize(quantize(dy, fmt=f)), dy) for f in (E4M3, E5M2))
    assert e5m2 == pytest.approx(2 * e4m3, rel=0.1)
    linear, x, dy = case()
    ours, wrong = (run(twin(linear, r), x, dy)[1] for r in (Recipe(), Recipe(gradient_format=E5M2)))
    exact = dy @ linear.weight.detach()
    assert relative_error(wrong, exact) > 1.3 * relative_error(ours, exact)
    model = DeepSeek(TINY)
    linear.convert(model)
    attention = model.model.layers[0].self_attn
    for layer, dtype in [
        (attention.o_proj, torch.float16),
        (attention.q_a_proj, torch.float8_e4m3fn),
    ]:
        y = layer(torch.randn(1, 4, layer.in_features))
        saved = y.grad_fn.next_functions[0][0].saved_tensors
        assert saved[0].dtype == dtype
        assert saved[2].dtype == torch.float8_e4m3fn


def test_trap_7_weight_scale_inv_is_multiplied() -> None:
    w = 0.02 * torch.randn(576, 300)
    weight, weight_scale_inv, _ = quantize(w, group=BLOCK)
    assert relative_error(dequantize(Quantized(weight, weight_scale_inv, BLOCK)), w) < 0.03
    wrong = dequantize(Quantized(weight, 1 / weight_scale_inv, BLOCK))
    assert wrong.std() > 1e6 * w.std()
    assert weight_scale_inv.shape == (5, 3)  # the edge blocks count: 576 = 4.5 * 128
    assert weight_scale_inv.max() < 1e-3


def test_trap_8_moments_weights_and_gradients_are_not_fp8() -> None:
    # beta2 = 0.95, a second moment of 1 and a squared gradient of 2: it should move to 1.05
    new = torch.tensor([0.95 * 1.0 + 0.05 * 2.0])
    assert cast(new).float().item() == 1.0  # in E4M3 it never moves
    assert new.bfloat16().item() == pytest.approx(1.05, rel=0.004)
    memory = linear.bytes_per_parameter("v3")
    assert (memory["moments"], memory["master"], memory["gradient"]) == (2 * 2, 4, 4)
    model = DeepSeek(TINY)
    linear.convert(model)
    model(torch.randint(0, 256, (1, 40))).square().mean().backward()
    for parameter in model.parameters():
        assert parameter.dtype == torch.float32
        assert parameter.grad is None or parameter.grad.dtype == torch.float32
    stays = (nn.Embedding, nn.RMSNorm)
    layer = model.model.layers[1]
    assert isinstance(model.model.embed_tokens, stays)
    assert isinstance(layer.input_layernorm, stays)
    assert type(model.lm_head) is nn.Linear
    assert layer.mlp.gate(torch.randn(3, 64)).scores.dtype == torch.float32


def test_trap_9_wgrad_needs_tiles_along_the_tokens() -> None:
    x, dy = gradient_like(256, 128), torch.randn(256, 64)
    x_q, dy_q = quantize(x), quantize(dy, group=TOKEN_TILE)
    with pytest.raises(ValueError, match=r"b must share a scale along 128 columns"):
        gemm.gemm(dy_q.T, x_q.T)  # the scale changes with every term of the sum
    exact = dy.T @ x
    one_scale = x_q.scale_inv.view(2, 128).amax(1, keepdim=True)  # "use one of them for all 128"
    wrong = Quantized(x_q.data.T, one_scale.T.expand(128, 2), TILE)
    assert relative_error(gemm.gemm(dy_q.T, wrong), exact) > 1
    ours = quantize(dequantize(x_q), group=TOKEN_TILE)
    assert relative_error(gemm.gemm(dy_q.T, ours.T), exact) < 0.06


# --- bad input ------------------------------------------------------------------------------------


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
    with pytest.raises(ValueError, match="the same number of columns, got 8 and 9"):
        gemm.gemm(quantize(x), quantize(torch.ones(3, 9)))
    with pytest.raises(ValueError, match=r"promote_every must be a multiple .* got 48"):
        gemm.tensor_core_matmul(x, x, promote_every=48)
    with pytest.raises(ValueError, match=r"dgrad_group must span 128 channels.*\(128, 1\)"):
        Recipe(dgrad_group=TOKEN_TILE)
    with pytest.raises(ValueError, match=r"recipe must be one of .* got 'fp4'"):
        linear.bytes_per_parameter("fp4")
    layer = Fp8Linear(8, 3)
    with pytest.raises(ValueError, match=r"input must be \(\.\.\., 8\), got shape \(4, 9\)"):
        layer(torch.randn(4, 9))
    with pytest.raises(TypeError, match=r"weight must be float32, .* got torch.bfloat16"):
        layer.bfloat16()(x)
    model = nn.ModuleDict({"up_proj": nn.Linear(8, 3)})
    with pytest.raises(TypeError, match="up_proj must be a float32 linear layer without bias"):
        linear.convert(model)


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


def test_products_refuse_what_gave_another_number() -> None:
    a = torch.ones(2, 64)
    for options, name in (
        ({"instruction_k": -32}, "instruction_k"),
        ({"instruction_k": 0}, "instruction_k"),
        ({"fraction_bits": math.nan}, "fraction_bits"),
        ({"fraction_bits": -1}, "fraction_bits"),
        ({"promote_every": 0}, "promote_every"),
    ):
        with pytest.raises((ValueError, TypeError), match=name):
            gemm.tensor_core_matmul(a, a, **options)
    with pytest.raises(ValueError, match=r"b must be .* = \(n, 64\)"):
        gemm.tensor_core_matmul(a, torch.ones(2, 1))
    with pytest.raises(ValueError, match=r"reference must be .* = \(2, 64\)"):
        gemm.errors(a, a[:1])
    q = quantize(torch.ones(2, 300))
    with pytest.raises(ValueError, match=r"a\.scale_inv must have shape \(2, 3\)"):
        gemm.gemm(q._replace(scale_inv=q.scale_inv[:1, :1]), q)


def test_bad_shapes_are_named_without_run_time_annotations() -> None:
    """The annotations that tests switch on refuse these first; a reader runs without them."""
    code = (
        "import torch; from dsnotes import formats, fp8_gemm\n"
        "x = torch.ones(2, 3)\n"
        "for call in (\n"
        "    lambda: formats.quantize(torch.ones(2, 3, 4)),\n"
        "    lambda: formats.quantize(x, group=(1.5, None)),\n"
        "    lambda: gemm.tensor_core_matmul(x, x, rounding='up'),\n"
        "):\n"
        "    try: call()\n"
        "    except (ValueError, TypeError) as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == [
        "x must be a floating-point tensor of shape (rows, cols), "
        "got torch.float32 of shape (2, 3, 4)",
        "group must hold two positive whole numbers or None, got (1.5, None)",
        "rounding must be one of ('truncate', 'nearest'), got 'up'",
    ], done.stderr


def test_where_numbers_become_0_as_the_page_says() -> None:
    """Below 1/458,752 of the largest in E4M3 (2^-18.8), below 1/254 in INT8 (2^-8)."""
    page = (Path(__file__).parents[3] / "book" / "training" / "fp8.md").read_text("utf-8")
    assert "1/458,752（$2^{-18.8}$）才成了 0" in page
    assert "缩到 1/254（约 $2^{-8}$）以下却已经是 0" in page
    for fmt, ratio in ((E4M3, 458_752), (INT8, 254)):
        x = torch.tensor([fmt.max, fmt.max / ratio * 0.999, fmt.max / ratio * 1.001])
        assert cast(x, fmt).float().ne(0).tolist() == [True, False, True]
    assert round(math.log2(458_752), 1) == 18.8
