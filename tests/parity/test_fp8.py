"""FP8 against an implementation that is not torch's (ml_dtypes), and against plain loops over the
conventions of the released kernels and checkpoint, written without `dsnotes`."""

import math
from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest
import torch

from dsnotes.training.fp8 import formats
from dsnotes.training.fp8.formats import (
    BLOCK,
    E4M3,
    E5M2,
    PER_TENSOR,
    TILE,
    Format,
    Quantized,
    dequantize,
    quantize,
)
from dsnotes.training.fp8.gemm import gemm

PEERS = [(E4M3, ml_dtypes.float8_e4m3fn), (E5M2, ml_dtypes.float8_e5m2)]


@pytest.mark.parametrize(("fmt", "peer"), PEERS, ids=lambda v: getattr(v, "name", ""))
def test_every_code_stands_for_the_same_number(fmt: Format, peer: type) -> None:
    theirs = np.arange(256, dtype=np.uint8).view(peer).astype(np.float32)
    ours = formats.decode(torch.arange(256), fmt).numpy()
    np.testing.assert_array_equal(ours, theirs)  # NaN equals NaN here


@pytest.mark.parametrize(("fmt", "peer"), PEERS, ids=lambda v: getattr(v, "name", ""))
def test_casts_agree_bit_for_bit_inside_the_range(fmt: Format, peer: type) -> None:
    exact = formats.decode(torch.arange(256), fmt)
    exact = exact[exact.isfinite()].unique()
    mids = (exact[1:] + exact[:-1]) / 2
    generator = torch.Generator().manual_seed(0)
    spread = torch.exp2(torch.empty(100_000).uniform_(-26, 18, generator=generator))
    sign = torch.randn(100_000, generator=generator).sign()
    inputs = torch.cat([exact, mids, *(torch.nextafter(mids, mids + d) for d in (-1, 1))])
    inputs = torch.cat([inputs, (spread * sign).clamp(-fmt.max, fmt.max)])
    theirs = inputs.numpy().astype(peer).view(np.uint8)
    np.testing.assert_array_equal(formats.codes(inputs, fmt).numpy(), theirs)


def test_where_the_clamp_is_missing_the_two_libraries_differ() -> None:
    """600 becomes NaN there, 448 in torch: with an explicit clamp nothing depends on it."""
    x = np.array([600.0], dtype=np.float32)
    assert math.isnan(float(x.astype(ml_dtypes.float8_e4m3fn)[0]))
    assert torch.tensor(x).to(torch.float8_e4m3fn).item() == 448
    clamped = np.clip(x, -448, 448).astype(ml_dtypes.float8_e4m3fn)
    assert float(clamped[0]) == formats.cast(torch.tensor(x)).float().item() == 448


def activation_kernel(x: np.ndarray, *, ue8m0: bool) -> tuple[np.ndarray, np.ndarray]:
    """s = max(amax, 1e-4) / 448 for every 128 of a row, optionally 2^ceil(log2 s); y = x / s."""
    codes, scales = np.empty_like(x), np.empty((x.shape[0], x.shape[1] // 128), np.float32)
    for i in range(x.shape[0]):
        for j in range(scales.shape[1]):
            tile = x[i, 128 * j : 128 * (j + 1)]
            s = np.float32(max(np.abs(tile).max(), np.float32(1e-4)) / np.float32(448))
            if ue8m0:
                s = np.float32(2.0 ** math.ceil(math.log2(s)))
            y = np.clip(tile / s, np.float32(-448), np.float32(448))
            codes[i, 128 * j : 128 * (j + 1)] = y.astype(ml_dtypes.float8_e4m3fn)
            scales[i, j] = s
    return codes, scales


@pytest.mark.parametrize("ue8m0", [False, True])
@pytest.mark.parametrize(
    "data",
    [
        lambda g: torch.randn(40, 512, generator=g),
        lambda g: torch.randn(40, 512, generator=g) * torch.exp(torch.randn(40, 1, generator=g)),
        lambda g: torch.randn(40, 512, generator=g).bfloat16().float(),
        lambda g: 2.0 ** torch.arange(40.0)[:, None].sub(10).expand(40, 512),
    ],
    ids=["normal", "log-normal rows", "bfloat16", "powers of two"],
)
def test_activation_tiles_as_in_the_released_kernel(
    data: Callable[[torch.Generator], torch.Tensor], ue8m0: bool
) -> None:
    x = data(torch.Generator().manual_seed(0)).contiguous()
    q = quantize(x, group=TILE, power_of_two=ue8m0)
    codes, scales = activation_kernel(x.numpy(), ue8m0=ue8m0)
    np.testing.assert_array_equal(q.scale_inv.numpy(), scales)
    np.testing.assert_array_equal(q.data.float().numpy(), codes)


def test_a_released_weight_is_read_as_its_multiplier_says() -> None:
    """Zero-padded to whole blocks for the scale, dequantised as codes times scale."""
    generator = torch.Generator().manual_seed(0)
    w = (0.02 * torch.randn(576, 300, generator=generator)).numpy()
    padded = np.zeros((640, 384), np.float32)
    padded[:576, :300] = w
    scale = np.abs(padded.reshape(5, 128, 3, 128)).max(axis=(1, 3)) / np.float32(448)
    expanded = scale.repeat(128, 0).repeat(128, 1)[:576, :300]
    codes = np.clip(w / expanded, -448, 448).astype(ml_dtypes.float8_e4m3fn)
    stored = torch.tensor(codes.view(np.uint8)).view(torch.float8_e4m3fn)
    weight = dequantize(Quantized(stored, torch.tensor(scale), BLOCK))
    np.testing.assert_array_equal(weight.numpy(), codes.astype(np.float32) * expanded)
    ours = quantize(torch.tensor(w), group=BLOCK)
    np.testing.assert_array_equal(ours.scale_inv.numpy(), scale)
    np.testing.assert_array_equal(ours.data.view(torch.uint8).numpy(), codes.view(np.uint8))


def test_gemm_adds_scaled_partial_products_like_the_released_kernel() -> None:
    """acc += dot(a, b) * a_s[m] * b_s[n // 128] over blocks of 128 along K."""
    generator = torch.Generator().manual_seed(0)
    a = quantize(torch.randn(6, 384, generator=generator))
    b = quantize(torch.randn(200, 384, generator=generator), group=BLOCK)
    a_codes, b_codes = a.data.float().numpy(), b.data.float().numpy()
    a_scale, b_scale = a.scale_inv.numpy(), b.scale_inv.numpy()
    expected = np.zeros((6, 200), np.float64)
    for m in range(6):
        for n in range(200):
            for k in range(3):
                block = slice(128 * k, 128 * (k + 1))
                dot = float(a_codes[m, block].astype(np.float64) @ b_codes[n, block])
                expected[m, n] += dot * float(a_scale[m, k]) * float(b_scale[n // 128, k])
    np.testing.assert_allclose(gemm(a, b).numpy(), expected, rtol=0, atol=2e-5)


def test_per_tensor_product_against_the_matrix_product_of_torch() -> None:
    a, b = (quantize(torch.randn(64, 256), group=PER_TENSOR) for _ in range(2))
    theirs = torch.nn.functional.scaled_mm(
        a.data,
        b.data.T,
        a.scale_inv.flatten(),
        torch.nn.functional.ScalingType.TensorWise,
        b.scale_inv.flatten(),
        torch.nn.functional.ScalingType.TensorWise,
        output_dtype=torch.float32,
    )
    torch.testing.assert_close(gemm(a, b), theirs, rtol=1e-5, atol=1e-4)
