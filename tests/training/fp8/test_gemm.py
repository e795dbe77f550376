"""Products of quantised matrices, and the limited accumulation of tensor cores."""

import json
import math
import subprocess
import sys

import pytest
import torch

from dsnotes.data import find
from dsnotes.training.fp8 import formats, gemm
from dsnotes.training.fp8.formats import (
    BLOCK,
    PER_TENSOR,
    TILE,
    TOKEN_TILE,
    Quantized,
    dequantize,
    quantize,
)

from .measure import assert_product, gradient_like, relative_error

# --- products ---


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
    out = gemm.tensor_core_gemm(a, b, out_dtype=torch.bfloat16)
    assert out.shape == (m, n)
    turned = on_meta(quantize(torch.randn(k, m), group=(groups[0][1], groups[0][0]))).T
    assert gemm.tensor_core_gemm(turned, b, out_dtype=torch.float32).shape == (m, n)


def test_whole_blocks_pads_with_zeros() -> None:
    data, scale = gemm._whole_blocks(quantize(torch.randn(5, 300)))
    assert data.shape == (128, 384)
    assert scale.shape == (128, 3)
    assert not data[5:].float().any()
    assert not data[:, 300:].float().any()
    assert not scale[5:].any()


# --- limited accumulation ---


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


GPU = json.loads(find("runs/fp8_gpu.json").read_text("utf-8"))["tables"]


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


# --- traps: the wrong variant on concrete numbers, and what ours does ---


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


def test_trap_10_a_float32_result_does_not_tell_how_it_was_summed() -> None:
    a = torch.tensor([[128.0] + [1.0] * 63])  # the exact sum of squares is 16,447
    kept = gemm.tensor_core_matmul(a, a, promote_every=None)
    assert kept.dtype == torch.float32
    assert kept.item() == 16384
    q = quantize(a, group=PER_TENSOR, power_of_two=True)
    assert gemm.gemm(q, q).item() == 16447  # simulated in FP32: no error of accumulation


# --- bad input ---


def test_bad_input_is_named() -> None:
    x = torch.randn(4, 8)
    with pytest.raises(ValueError, match="the same number of columns, got 8 and 9"):
        gemm.gemm(quantize(x), quantize(torch.ones(3, 9)))
    with pytest.raises(ValueError, match=r"promote_every must be a multiple .* got 48"):
        gemm.tensor_core_matmul(x, x, promote_every=48)


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


def test_a_bad_rounding_is_named_without_run_time_annotations() -> None:
    """The annotations that tests switch on refuse it first; a reader runs without them."""
    code = (
        "import torch; from dsnotes.training.fp8 import gemm\n"
        "x = torch.ones(2, 3)\n"
        "try: gemm.tensor_core_matmul(x, x, rounding='up')\n"
        "except ValueError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "rounding must be one of ('truncate', 'nearest'), got 'up'\n", done.stderr
