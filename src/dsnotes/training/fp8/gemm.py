"""Matrix products of FP8 matrices, and a model of how precisely a tensor core adds them up.

The tensor cores of the H800 keep about 14 bits of a sum of FP8 products. V3 therefore moves the
partial sum of every N_C = 128 terms to FP32 registers, applies the two scales there, and goes on.

Sources
    V3 (arXiv 2412.19437) section 3.3.2, figure 7   scales along K, "Increasing Accumulation
        Precision": N_C = 128, nearly 2 % of error at K = 4096 without it
    section 3.5.2   products aligned to the largest exponent, 14 bits kept, the rest truncated
    Insights into DeepSeek-V3 (arXiv 2505.09343) section 3.1.1   13 fraction bits, 32 products at a
        time, FP22 registers (1 sign, 8 exponent, 13 fraction bits)

Departures
    - `gemm` without an FP8 tensor core computes in FP32, in which products of E4M3 numbers are
      exact; on Hopper it calls cuBLAS, which promotes as well.
    - `tensor_core_matmul` settles what these sentences leave open so that it gives the results of
      an H100 bit for bit (`experiments/fp8_gpu.py`): the running sum is aligned together with the
      32 products, truncation is towards zero, and the exponent of a product is the sum of the
      exponents of its factors, whether or not their mantissas multiply to 2 or more.
"""

from collections.abc import Callable, Iterable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor

from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least
from dsnotes.training.fp8.formats import BLOCK, E4M3, TILE, Quantized, cast, check_scales
from dsnotes.training.fp8.hardware import multiplies_blocks

PROMOTION = 128  # N_C, terms per partial sum and per scale
_OF_ZERO = -100  # an exponent below that of any product: a product of 0 aligns nothing


@checked
def gemm(
    a: Quantized, b: Quantized, *, out_dtype: torch.dtype = torch.float32
) -> Float[Tensor, "m n"]:
    """A B^T of A (M, K) and B (N, K), both scaled in groups along K (V3 section 3.3.2, figure 7).

    C_mn = sum over blocks k of a_scale[m, k] * b_scale[n, k] * (A_k B_k^T)_mn in FP32. A GPU with
    block-scaled FP8 tensor cores does this in one call. Raises ValueError when a scale is not
    constant along 128 columns, and when A and B differ in K.

        >>> from dsnotes.training.fp8.formats import quantize
        >>> gemm(quantize(torch.ones(2, 300)), quantize(torch.ones(1, 300), group=BLOCK)).round()
        tensor([[300.], [300.]])
    """
    for name, q in (("a", a), ("b", b)):
        check_scales(q, name)
        if q.group[1] not in (PROMOTION, None):
            raise ValueError(
                f"{name} must share a scale along {PROMOTION} columns, the axis that is summed, "
                f"or along all of them, got groups of {q.group}"
            )
    if a.data.shape[1] != b.data.shape[1]:
        raise ValueError(
            f"a and b must have the same number of columns, got {a.data.shape[1]} and "
            f"{b.data.shape[1]}"
        )
    if on_tensor_cores(a, b):
        return tensor_core_gemm(a, b, out_dtype=out_dtype)
    a_scale, b_scale = _scale_of_each_row(a), _scale_of_each_row(b)
    out = a_scale.new_zeros(len(a.data), len(b.data))
    for k in range(a_scale.shape[1]):
        block = slice(k * PROMOTION, (k + 1) * PROMOTION)
        partial = a.data[:, block].float() @ b.data[:, block].float().T
        out += partial * a_scale[:, k, None] * b_scale[None, :, k]
    return out.to(out_dtype)


@checked
def tensor_core_matmul(
    a: Float[Tensor, "m k"],
    b: Float[Tensor, "n k"],
    *,
    promote_every: int | None = PROMOTION,
    fraction_bits: int = 13,
    instruction_k: int = 32,
    rounding: Literal["truncate", "nearest"] = "truncate",
) -> Float32[Tensor, "m n"]:
    """A B^T of E4M3 numbers as the tensor cores of an H100 give it (V3 section 3.3.2, 3.5.2).

    One instruction aligns `instruction_k` products and the running sum to the largest exponent
    among them and cuts them to `fraction_bits`; the new sum is cut again to fit its register.
    Every `promote_every` terms the sum moves to FP32 (None: never). The exponent of a product is
    the sum of the exponents of its factors; a subnormal factor has exponent -6. Raises ValueError
    when `promote_every` is not a multiple of `instruction_k`.

        >>> a = b = torch.tensor([[128.0] + [1.0] * 63])  # the exact product is 16447
        >>> [tensor_core_matmul(a, b, promote_every=n).item() for n in (None, 32)]
        [16384.0, 16416.0]
    """
    at_least(1, instruction_k=instruction_k, promote_every=promote_every)
    if not 0 <= fraction_bits <= 23:
        raise ValueError(f"fraction_bits must lie in 0 .. 23, those of FP32, got {fraction_bits}")
    if promote_every is not None and promote_every % instruction_k:
        raise ValueError(
            f"promote_every must be a multiple of instruction_k ({instruction_k}) or None, "
            f"got {promote_every}"
        )

    def cut(terms: Tensor, top: Tensor) -> Tensor:
        """Keep `fraction_bits` below the bit of 2^top."""
        unit = torch.ldexp(torch.ones_like(terms[..., :1]), top - fraction_bits)
        return _ROUNDINGS[rounding](terms / unit) * unit

    k = a.shape[1]
    a, b = a.float()[:, None], b.float()[None]  # (m, 1, k) and (1, n, k)
    a_exponent, b_exponent = (_exponent(x).clamp(min=1 - E4M3.bias) for x in (a, b))
    total = torch.zeros(a.shape[0], b.shape[1], device=a.device)
    register = torch.zeros_like(total)[..., None]  # (m, n, 1)
    for start in range(0, k, instruction_k):
        now, stop = slice(start, start + instruction_k), start + instruction_k
        products = a[..., now] * b[..., now]  # (m, n, instruction_k)
        exponents = a_exponent[..., now] + b_exponent[..., now]
        exponents = exponents.masked_fill(products == 0, _OF_ZERO)
        top = exponents.amax(dim=-1, keepdim=True).maximum(_exponent(register))
        terms = cut(torch.cat([products, register], dim=-1), top)
        register = terms.sum(dim=-1, keepdim=True)
        register = cut(register, _exponent(register))
        if stop >= k or (promote_every is not None and stop % promote_every == 0):
            total += register[..., 0]
            register = torch.zeros_like(register)
    return total


def _exponent(x: Tensor) -> Tensor:
    """floor(log2 |x|); for 0 a number below the exponent of any product."""
    return (torch.frexp(x).exponent - 1).masked_fill(x == 0, _OF_ZERO)


_ROUNDINGS = {"truncate": torch.trunc, "nearest": torch.round}

# |z| and max(0, z) of a normal z never cancel in a sum, and uniform numbers never do.
Distribution = Literal["normal", "half-normal", "rectified", "uniform"]
DISTRIBUTIONS: dict[Distribution, Callable[..., Tensor]] = {
    "normal": torch.randn,
    "half-normal": lambda *size, generator: torch.randn(*size, generator=generator).abs(),
    "rectified": lambda *size, generator: torch.randn(*size, generator=generator).relu(),
    "uniform": torch.rand,  # [0, 1)
}


@checked
def accumulation_errors(
    *,
    ks: Iterable[int],
    promote_every: Iterable[int | None] = (None, 512, 256, 128, 64, 32),
    distributions: Iterable[Distribution] = get_args(Distribution),
    fraction_bits: int = 13,
    share: float = 0.5,
    size: int = 64,
    seed: int = 0,
) -> list[dict[str, str | int | float | None]]:
    """Errors of `tensor_core_matmul` against float64, for every K, N_C and distribution.

    The paper does not define its error, so each row holds three measures. `relative_max` is the
    largest error relative to its own reference, over the `share` of the entries with the largest
    references (near a reference of 0 it has no bound). `to_largest` is the largest error relative
    to the largest reference. `relative_norm` is the error of the whole matrix in the Frobenius
    norm. Both matrices are (size, K), random, and cast to E4M3 without scales.

        >>> rows = accumulation_errors(ks=[4096], distributions=["uniform"])
        >>> [f"{row['relative_max']:.2%}" for row in rows if row["N_C"] in (None, 128)]
        ['6.87%', '0.06%']
    """
    rows: list[dict[str, str | int | float | None]] = []
    for name in distributions:
        for k in ks:
            a, b = random_operands(name, k, size=size, seed=seed)
            for n_c in promote_every:
                if n_c is not None and n_c > k:
                    continue
                c = tensor_core_matmul(a, b, promote_every=n_c, fraction_bits=fraction_bits)
                measured = errors(c, a.double() @ b.double().T, share=share)
                rows.append({"distribution": name, "K": k, "N_C": n_c, **measured})
    return rows


@checked
def random_operands(
    distribution: Distribution, k: int, *, size: int = 64, seed: int = 0
) -> tuple[Float32[Tensor, "size k"], Float32[Tensor, "size k"]]:
    """The matrices A and B of `accumulation_errors`, in E4M3 numbers."""
    at_least(1, k=k, size=size)
    generator = torch.Generator().manual_seed(seed)
    a, b = (DISTRIBUTIONS[distribution](size, k, generator=generator) for _ in range(2))
    return cast(a).float(), cast(b).float()


@checked
def errors(
    c: Float[Tensor, "m n"], reference: Float[Tensor, "m n"], *, share: float = 0.5
) -> dict[str, float]:
    """The three measures of `accumulation_errors`; ValueError when the reference is all 0."""
    if not 0 <= share <= 1 or not reference.any():
        raise ValueError(f"share must lie in 0 .. 1 and reference not be 0, got {share} of it")
    error = (c - reference).abs()
    large = reference.abs() >= reference.abs().quantile(1 - share)
    return {
        "relative_max": (error / reference.abs())[large].max().item(),
        "to_largest": (error.max() / reference.abs().max()).item(),
        "relative_norm": (error.norm() / reference.norm()).item(),
    }


def _scale_of_each_row(q: Quantized) -> Tensor:
    """Scales as (rows, blocks of 128 columns), whatever the groups are."""
    (rows, cols), (r, c) = q.data.shape, q.group
    scale = q.scale_inv.repeat_interleave(r or max(rows, 1), dim=0)[:rows]  # (rows, col groups)
    return scale if c else scale.expand(-1, -(-cols // PROMOTION))


def on_tensor_cores(a: Quantized, b: Quantized) -> bool:
    """Whether cuBLAS has A B^T of A (M, K) and B (N, K): Hopper, CUDA 12.9, both in E4M3."""
    e4m3 = a.data.dtype == b.data.dtype == E4M3.dtype
    return e4m3 and a.data.numel() * b.data.numel() > 0 and multiplies_blocks(a.data.device)


def tensor_core_gemm(a: Quantized, b: Quantized, *, out_dtype: torch.dtype) -> Tensor:
    """`gemm` by cuBLAS without its checks, A (M, K) and B (N, K) to (M, N) of `out_dtype`."""
    if a.group not in (TILE, BLOCK) or a.group == b.group == BLOCK:
        a = Quantized(a.data, _scale_of_each_row(a), TILE)
    if b.group not in (TILE, BLOCK):
        b = Quantized(b.data, _scale_of_each_row(b), TILE)
    recipes = {TILE: F.ScalingType.BlockWise1x128, BLOCK: F.ScalingType.BlockWise128x128}
    (a_data, a_scale), (b_data, b_scale) = _whole_blocks(a), _whole_blocks(b)
    out = F.scaled_mm(
        a_data, b_data.T, a_scale, recipes[a.group], b_scale, recipes[b.group],
        output_dtype=out_dtype,
    )  # fmt: skip
    return out[: len(a.data), : len(b.data)]


def _whole_blocks(q: Quantized) -> tuple[Tensor, Tensor]:
    """Codes and scales padded to whole blocks, the scales column-major, as cuBLAS needs them."""
    rows, cols = (-size % PROMOTION for size in q.data.shape)
    data, scale = q.data.contiguous(), q.scale_inv
    if rows or cols:
        data = F.pad(data.view(torch.uint8), (0, cols, 0, rows)).view(q.data.dtype)
    if q.group == TILE:
        return data, (F.pad(scale, (0, 0, 0, rows)) if rows else scale).T.contiguous().T
    # One column of scales per block of rows, its length a multiple of 4
    scale = F.pad(scale, (0, -scale.shape[1] % 4)) if scale.shape[1] % 4 else scale
    return data, scale.contiguous().T
