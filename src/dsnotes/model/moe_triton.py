"""Kernels of `dsnotes.model.experts` in Triton: each reads its input once and writes its output.

PyTorch would run an operation at a time, and each would go through memory. `experts.Plain` says
what they compute. Sums and products are in float32.

Shapes: T tokens, K rows of each, S = T*K rows, H hidden, N inner.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor


def swiglu(both: Tensor, g: Tensor) -> Tensor:
    """g * silu(gate) * up: (S, 2N) and (S,) to (S, N)."""
    n_rows, n = len(both), both.shape[1] // 2
    hidden = both.new_empty(n_rows, n)
    _swiglu[n_rows, triton.cdiv(n, 1024)](both, g, hidden, n, 1024)
    return hidden


def swiglu_backward(d: Tensor, both: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of both (S, 2N) and, last, of g (S,); between them the output once more."""
    n_rows, n = d.shape
    d_both, hidden, d_g = torch.empty_like(both), torch.empty_like(d), torch.empty_like(g)
    width = triton.next_power_of_2(n)
    _swiglu_backward[n_rows,](d, both, g, d_both, hidden, d_g, n, width, num_warps=8)
    return d_both, hidden, d_g


def gather_sum(rows: Tensor, place: Tensor, dtype: torch.dtype) -> Tensor:
    """Of each token the sum of its K rows, in float32: (S, H) and (T, K) to (T, H)."""
    (n_tokens, k), h = place.shape, rows.shape[1]
    y = rows.new_empty(n_tokens, h, dtype=dtype)
    _gather_sum[n_tokens, triton.cdiv(h, 1024)](rows, place, y, h, k, 1024)
    return y


@triton.jit
@no_type_check
def _swiglu(both, g, hidden, n: tl.constexpr, width: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * width + tl.arange(0, width)
    gate = tl.load(both + row * 2 * n + at, mask=at < n).to(tl.float32)
    up = tl.load(both + row * 2 * n + n + at, mask=at < n).to(tl.float32)
    tl.store(hidden + row * n + at, gate * tl.sigmoid(gate) * up * tl.load(g + row), mask=at < n)


@triton.jit
@no_type_check
def _swiglu_backward(d, both, g, d_both, hidden, d_g, n: tl.constexpr, width: tl.constexpr):
    row, at = tl.program_id(0).to(tl.int64), tl.arange(0, width)
    gate = tl.load(both + row * 2 * n + at, mask=at < n, other=0.0).to(tl.float32)
    up = tl.load(both + row * 2 * n + n + at, mask=at < n, other=0.0).to(tl.float32)
    upstream = tl.load(d + row * n + at, mask=at < n, other=0.0).to(tl.float32)
    weight, sigma = tl.load(g + row), tl.sigmoid(gate)
    silu = gate * sigma
    d_gate = upstream * weight * up * (sigma + silu * (1 - sigma))
    tl.store(d_both + row * 2 * n + at, d_gate, mask=at < n)
    tl.store(d_both + row * 2 * n + n + at, upstream * weight * silu, mask=at < n)
    tl.store(hidden + row * n + at, silu * up * weight, mask=at < n)
    tl.store(d_g + row, tl.sum(upstream * silu * up))


@triton.jit
@no_type_check
def _gather_sum(rows, place, y, h: tl.constexpr, k: tl.constexpr, width: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * width + tl.arange(0, width)
    total = tl.zeros([width], tl.float32)
    for i in tl.static_range(k):
        row = tl.load(place + token * k + i)
        total += tl.load(rows + row * h + at, mask=at < h).to(tl.float32)
    tl.store(y + token * h + at, total, mask=at < h)
