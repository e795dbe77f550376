"""FP8: what quantising costs per element, a layer in FP8, and on Hopper the real tensor cores.

The peer of a quantisation is the cast to BF16, that of a layer `nn.Linear` in FP32 (on a GPU
BF16). Without FP8 tensor cores a layer in FP8 is an emulation, slower than what it emulates.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks._measure import medians, row
from dsnotes.training.fp8.formats import (
    BLOCK,
    E4M3,
    E5M6,
    TILE,
    TOKEN_TILE,
    Quantized,
    dequantize,
    quantize,
)
from dsnotes.training.fp8.gemm import gemm, tensor_core_matmul
from dsnotes.training.fp8.linear import Fp8Linear

SIZE = 1024  # of the square matrices that are quantised


def rows() -> list[dict[str, Any]]:
    """Rows for the table of `benchmarks.run`; about ten seconds."""
    return [*quantisation("cpu"), linear("cpu", tokens=512, size=512), accumulation()]


def gpu_rows() -> list[dict[str, Any]]:
    """Rows of a Hopper GPU, none of another; about ten seconds."""
    if torch.cuda.get_device_capability()[0] != 9:
        return []
    return [*quantisation("cuda"), *hopper_gemms(), linear("cuda", tokens=8192, size=4096)]


def quantisation(device: str) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    x = torch.randn(SIZE, SIZE, device=device)
    q = quantize(x)
    ways = {
        "to E4M3, 1x128": lambda: quantize(x),
        "to E4M3, 128x1": lambda: quantize(x, group=TOKEN_TILE),
        "to E4M3, 128x128": lambda: quantize(x, group=BLOCK),
        "to E4M3, 1x128, scales 2^k": lambda: quantize(x, power_of_two=True),
        "to E5M6, 1x128, scales 2^k": lambda: quantize(x, fmt=E5M6, power_of_two=True),
        "back from 1x128": lambda: dequantize(q),
    }
    timed = medians(ways | {"peer": x.bfloat16})
    each = {way: [1e6 * ms / x.numel() for ms in timed[way]] for way in timed}
    note = f"{SIZE}x{SIZE} on {device}; peer: cast to BF16"
    return [
        row(f"FP8 quantise {way}", each[way], each["peer"], unit="ns/element", note=note)
        for way in ways
    ]


def linear(device: str, *, tokens: int, size: int) -> dict[str, Any]:
    """Forward and backward of one layer."""
    torch.manual_seed(0)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    x = torch.randn(tokens, size, device=device, dtype=dtype, requires_grad=True)
    dy = torch.randn_like(x)
    ours = Fp8Linear(size, size, device=device)
    peer = nn.Linear(size, size, bias=False, device=device, dtype=dtype)
    timed = medians({"ours": lambda: ours(x).backward(dy), "peer": lambda: peer(x).backward(dy)})
    how = "emulated" if device == "cpu" else "tensor cores"
    note = f"{tokens} tokens, {size}x{size}, {how}; peer: nn.Linear in {dtype}"
    return row("FP8 linear, forward and backward", **timed, note=note)


def accumulation() -> dict[str, Any]:
    a, b = (quantize(torch.randn(64, 4096)).data.float() for _ in range(2))
    timed = medians({"ours": lambda: tensor_core_matmul(a, b)})
    return row("FP8 accumulation model", **timed, note="64x64x4096, promotion every 128")


def hopper_gemms() -> list[dict[str, Any]]:
    """cuBLAS against our FP32 emulation of the same codes, and against BF16 in speed."""
    measured = []
    shapes = {"fprop": (TILE, BLOCK), "wgrad": (TILE, TILE)}
    for m, n, k in ((4096, 7168, 2048), (4096, 4096, 7168), (1000, 576, 7168)):
        a, b = (torch.randn(size, k, device="cuda") for size in (m, n))
        a16, b16 = a.bfloat16(), b.bfloat16()
        for name, (a_group, b_group) in shapes.items():
            a_q, b_q = quantize(a, group=a_group), quantize(b, group=b_group)
            out = gemm(a_q, b_q)
            emulated = gemm(
                *(Quantized(q.data.cpu(), q.scale_inv.cpu(), q.group) for q in (a_q, b_q))
            )
            difference = ((out.cpu() - emulated).abs().max() / emulated.abs().max()).item()
            timed = medians({
                "ours": lambda a_q=a_q, b_q=b_q: gemm(a_q, b_q, out_dtype=torch.bfloat16),
                "peer": lambda a16=a16, b16=b16: F.linear(a16, b16),
            })  # fmt: skip
            tera = 2 * m * n * k / 1e9  # per ms, in 1e12 operations a second
            note = f"{m}x{n}x{k}; off the emulation by {difference:.1e} of the largest; peer: BF16"
            speeds = {way: [tera / ms for ms in timed[way]] for way in timed}
            what = f"FP8 {E4M3.name} product, {name}"
            measured.append(row(what, **speeds, unit="TFLOPS", note=note))
    return measured
