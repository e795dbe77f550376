"""fp4: the tables of the formats, a scale without overflow, FP8 without loss, and the traps."""

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.parametrize import register_parametrization

from dsnotes.after.fp4 import (
    E2M1,
    MAGNITUDES,
    Fp4Weight,
    codes,
    decode,
    decode_scale,
    encode_scale,
    pack,
    quantize_fp4,
    round_trip,
    scale_for,
    straight_through,
    to_fp8,
    unpack,
)
from dsnotes.training.fp8.formats import BLOCK, E4M3, cast, dequantize, quantize
from dsnotes.training.fp8.linear import Fp8Linear, Recipe


def gaussian(rows: int = 128, cols: int = 256, seed: int = 0) -> Tensor:
    return torch.randn(rows, cols, generator=torch.Generator().manual_seed(seed))


def relative(found: Tensor, x: Tensor) -> float:
    return ((found - x).norm() / x.norm()).item()


def test_the_sixteen_codes_are_those_of_ml_dtypes() -> None:
    bits = np.arange(16, dtype=np.uint8)
    expected = torch.from_numpy(bits.view(ml_dtypes.float4_e2m1fn).astype(np.float32))
    ours = decode(torch.from_numpy(bits))
    assert torch.equal(ours, expected)
    assert torch.equal(ours.signbit(), expected.signbit())
    assert codes(ours).tolist() == bits.tolist()


def test_numbers_round_as_in_ml_dtypes() -> None:
    """Ties to even, 0.25 to 0 and 5 to 4; larger numbers become 6."""
    x = torch.cat([torch.linspace(-8, 8, 6401), gaussian().flatten()])
    expected = x.numpy().astype(ml_dtypes.float4_e2m1fn).astype(np.float32)
    assert torch.equal(cast(x, E2M1).float(), torch.from_numpy(expected))
    ties = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])
    assert cast(ties, E2M1).tolist() == [0, 1, 1, 2, 2, 4, 4]


def test_a_scale_is_the_byte_of_ml_dtypes() -> None:
    byte = np.arange(256, dtype=np.uint8)
    expected = torch.from_numpy(byte.view(ml_dtypes.float8_e8m0fnu).astype(np.float32))
    ours = decode_scale(torch.from_numpy(byte))
    torch.testing.assert_close(ours, expected, rtol=0, atol=0, equal_nan=True)
    assert encode_scale(ours).tolist() == byte.tolist()


@given(amax=st.floats(2.0**-100, 2.0**100, width=32))
@pytest.mark.parametrize("fmt", [E2M1, E4M3], ids=lambda f: f.name)
def test_the_scale_is_the_least_that_does_not_overflow(fmt, amax: float) -> None:
    scale = scale_for(torch.tensor(amax), fmt).item()
    assert amax / scale <= fmt.max < 2 * amax / scale


@pytest.mark.parametrize("fmt", [E2M1, E4M3], ids=lambda f: f.name)
def test_the_rule_is_that_of_the_fp8_layers(fmt) -> None:
    x = gaussian()
    theirs = dequantize(quantize(x, group=(1, 32), fmt=fmt, power_of_two=True))
    assert torch.equal(round_trip(x, fmt), theirs)


@pytest.mark.parametrize(("spread", "fits"), [(14, True), (16, False)])
def test_scales_within_a_tile_may_spread_by_two_to_the_fourteen(spread: int, fits: bool) -> None:
    """facts: E2M1 times 2^k is exact in E4M3 for k from -8 to 6."""
    x = MAGNITUDES.repeat(128, 8)
    x[:, 32:] *= 2.0**-spread
    q = quantize_fp4(x)
    assert torch.equal(dequantize(q), x)
    if fits:
        assert torch.equal(dequantize(to_fp8(q)), x)
    else:
        with pytest.raises(ValueError, match="q must be exact in FP8"):
            to_fp8(q)


def test_e2m1_is_exact_in_e4m3_for_fifteen_exponents() -> None:
    shifted = {k: MAGNITUDES * 2.0**k for k in range(-12, 12)}
    exact = [k for k, x in shifted.items() if torch.equal(cast(x, E4M3).float(), x)]
    assert exact == list(range(-8, 7))


def test_scales_of_any_size_are_not_exact() -> None:
    """Why the FP8 scales must be powers of two: those of V3, amax / 448, change the weight."""
    x = dequantize(quantize_fp4(gaussian()))
    assert torch.equal(dequantize(quantize(x, group=BLOCK, power_of_two=True)), x)
    assert not torch.equal(dequantize(quantize(x, group=BLOCK)), x)


def test_an_fp8_layer_trains_a_weight_of_four_bits() -> None:
    """The output is that of the FP4 weight, the gradient lands on the FP32 master."""
    layer = Fp8Linear(128, 96, recipe=Recipe(power_of_two=True))
    master, x = layer.weight.detach().clone(), gaussian(8, 128)
    register_parametrization(layer, "weight", Fp4Weight())
    y = layer(x)
    y.square().sum().backward()

    plain = Fp8Linear(128, 96, recipe=Recipe(power_of_two=True))
    plain.weight.data = dequantize(quantize_fp4(master))
    expected = plain(x)
    expected.square().sum().backward()
    original = layer.parametrizations.weight.original
    assert torch.equal(y, expected)
    assert torch.equal(original.grad, plain.weight.grad)
    assert torch.equal(original, master)


@given(st.lists(st.integers(0, 15), min_size=2, max_size=40).filter(lambda v: len(v) % 2 == 0))
def test_packing_is_undone_by_unpacking(values: list[int]) -> None:
    x = torch.tensor(values, dtype=torch.uint8)
    assert pack(x).numel() * 2 == x.numel()
    assert torch.equal(unpack(pack(x)), x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: encode_scale(torch.tensor([3.0])), "scale must be a power of two"),
        (lambda: encode_scale(torch.tensor([0.0])), "scale must be a power of two"),
        (lambda: encode_scale(torch.tensor([-2.0])), "scale must be a power of two"),
        (lambda: encode_scale(torch.tensor([torch.inf])), "scale must be a power of two"),
        (lambda: scale_for(torch.tensor([0.0])), "amax must be above 0"),
        (lambda: codes(torch.tensor([torch.nan])), "x must not hold NaN"),
        (lambda: decode(torch.tensor([16], dtype=torch.uint8)), "codes must lie in 0 .. 15"),
        (lambda: pack(torch.tensor([16, 0], dtype=torch.uint8)), "codes must lie in 0 .. 15"),
        (lambda: pack(torch.tensor([1], dtype=torch.uint8)), "codes must have an even number"),
        (lambda: round_trip(torch.zeros(2, 33)), r"block \(32\) must divide the columns \(33\)"),
        (lambda: round_trip(torch.zeros(2, 33), block=0), r"block \(0\) must divide"),
    ],
)
def test_what_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# --- traps ---


def test_trap_1_a_rounded_scale_overflows() -> None:
    """torch's cast to UE8M0 goes to the nearest: 1.4 becomes 1, and 8.4 is cut to 6."""
    assert torch.tensor([0.3, 1.5, 3.0]).to(torch.float8_e8m0fnu).tolist() == [0.25, 2, 4]
    amax = torch.tensor(8.4)
    assert scale_for(amax, rule="nearest") == 1
    assert scale_for(amax) == 2
    x = gaussian()
    largest = x.unflatten(1, (-1, 32)).abs().amax(2)
    for fmt in (E2M1, E4M3):
        right, wrong = (scale_for(largest, fmt, r) for r in ("rceil", "nearest"))
        assert (largest / right <= fmt.max).all()
        assert (largest / wrong > fmt.max).float().mean() > 0.4
        assert relative(round_trip(x, fmt, "nearest"), x) > relative(round_trip(x, fmt), x)


def test_trap_2_the_halves_of_a_byte_swapped() -> None:
    """The numbers are all there, each beside its place: only a comparison by place sees it."""
    x = cast(gaussian(4, 64), E2M1).float()
    packed = pack(codes(x))
    swapped = torch.stack([packed >> 4, packed & 15], dim=-1).flatten(-2)
    assert torch.equal(decode(unpack(packed)), x)
    assert relative(decode(swapped), x) > 1
    assert torch.equal(decode(swapped).sort().values, x.sort().values)


@pytest.mark.parametrize("name", ["block of zeros", "small numbers"])
def test_trap_3_the_floor_of_fp8_under_a_block_of_four_bits(name: str) -> None:
    """FP8 bounds amax by 1e-4, FP4 by 6 * 2^-126; without a bound a block of zeros is NaN."""
    x = torch.zeros(1, 32) if name == "block of zeros" else torch.full((1, 32), 1e-6)

    def with_floor(least: float) -> Tensor:
        scale = torch.exp2(torch.ceil(torch.log2(x.abs().amax().clamp(min=least) / 6)))
        return cast(x / scale, E2M1).float() * scale

    if name == "block of zeros":
        assert with_floor(0.0).isnan().all()
        assert torch.equal(dequantize(quantize_fp4(x)), x)
    else:
        assert (with_floor(1e-4) == 0).all()
        torch.testing.assert_close(dequantize(quantize_fp4(x)), x, rtol=0.25, atol=0)
    assert torch.equal(with_floor(6 * 2.0**-126), dequantize(quantize_fp4(x)))


def test_trap_4_nvfp4_read_as_mxfp4() -> None:
    """Blocks of 16 with an E4M3 scale: the bytes of the scales mean something else."""
    x = gaussian(1, 32)
    scale = cast(x.unflatten(1, (2, 16)).abs().amax(2) / 6, E4M3)  # (1, 2)
    q = cast(x.unflatten(1, (2, 16)) / scale.float()[..., None], E2M1).float()
    assert relative((q * scale.float()[..., None]).flatten(1), x) < 0.15
    as_mx = decode_scale(scale.view(torch.uint8))
    assert relative((q * as_mx[..., None]).flatten(1), x) > 0.9


def test_trap_5_gradients_of_four_bits() -> None:
    """QAT rounds the weight, not the gradient: many of a gradient's entries would become 0."""
    w = gaussian().requires_grad_()
    (straight_through(w) * gaussian(seed=1) ** 3).sum().backward()
    assert torch.equal(w.grad, gaussian(seed=1) ** 3)
    lost = (dequantize(quantize_fp4(w.grad)) == 0).float().mean()
    assert lost > 0.3
