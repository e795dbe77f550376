"""The FP8 tensor cores of a Hopper GPU beside `dsnotes.training.fp8.gemm`: bits, errors and speed.

Three parts. Accumulation: cuBLAS on E4M3 matrices, with the sums left in the tensor cores
(`use_fast_accum`) and promoted, against the model `tensor_core_matmul`, entry by entry, and
against FP64. Which model: the same with other bits, instructions and roundings. Sample: small
matrices of all kinds of codes with what the GPU made of them, for tests without a GPU. Speed:
products and a layer against BF16.

Writes book/data/runs/fp8_gpu.json, in about a minute; without a Hopper GPU it says so and stops.
"""

import torch
import torch.nn.functional as F
from _record import parser, spread, write
from torch import Tensor, nn
from torch.utils.benchmark import Timer

from dsnotes.training.fp8.formats import BLOCK, PER_TENSOR, TILE, Quantized, quantize
from dsnotes.training.fp8.gemm import (
    DISTRIBUTIONS,
    errors,
    gemm,
    random_operands,
    tensor_core_matmul,
)
from dsnotes.training.fp8.linear import Fp8Linear

KS = (512, 1024, 4096, 16384)
SEEDS = range(3)
# With few rows cuBLAS may cut a long sum into parts that several multiprocessors add up, which is
# another sum. The same 64 rows over and over make a product large enough to need no cutting.
ROWS = 2048
MODELS: dict[str, dict] = {
    "as in the book": {},
    "12 fraction bits": {"fraction_bits": 12},
    "14 fraction bits": {"fraction_bits": 14},
    "16 products": {"instruction_k": 16},
    "64 products": {"instruction_k": 64},
    "to nearest": {"rounding": "nearest"},
}
SHAPES = ((4096, 7168, 2048), (4096, 4096, 7168), (4096, 7168, 16384))  # of V3's layers


def on_gpu(a: Tensor, b: Tensor, *, promote: bool) -> Tensor:
    """A B^T of E4M3 numbers, on the CPU again; ValueError where equal rows gave unequal results."""
    one = torch.ones((), device="cuda")
    copies = ROWS // len(a)
    a8, b8 = (x.to("cuda", torch.float8_e4m3fn).repeat(copies, 1) for x in (a, b))
    c = torch._scaled_mm(
        a8, b8.T, one, one, out_dtype=torch.float32, use_fast_accum=not promote
    ).unflatten(0, (copies, -1)).unflatten(2, (copies, -1))  # fmt: skip
    if not c.equal(c[:1, :, :1].expand_as(c)):
        raise ValueError(f"equal rows of K = {a.shape[1]} must give equal results, they did not")
    return c[0, :, 0].cpu()


def in_blocks(a: Tensor, b: Tensor) -> Tensor:
    """The same with scales of 1 by the block-scaled product that V3's layers call."""
    a_q, b_q = (x.to("cuda", torch.float8_e4m3fn) for x in (a, b))
    ones = torch.ones(1, a.shape[1] // 128, device="cuda")
    return gemm(
        Quantized(a_q, ones.expand(len(a), -1), TILE), Quantized(b_q, ones, BLOCK)
    ).cpu()  # fmt: skip


def agreement(c: Tensor, d: Tensor) -> float:
    """Share of the entries that are equal bit for bit."""
    return c.eq(d).double().mean().item()


def accumulation() -> list[dict[str, object]]:
    rows = []
    for name in DISTRIBUTIONS:
        for k in KS:
            for n_c in (None, 128):
                measured, equal, equal_in_blocks = [], [], []
                for seed in SEEDS:
                    a, b = random_operands(name, k, seed=seed)
                    c = on_gpu(a, b, promote=n_c is not None)
                    model = tensor_core_matmul(a.cuda(), b.cuda(), promote_every=n_c).cpu()
                    equal.append(agreement(c, model))
                    equal_in_blocks.append(agreement(in_blocks(a, b), model))
                    measured.append(errors(c, a.double() @ b.double().T))
                row: dict[str, object] = {"distribution": name, "K": k, "N_C": n_c}
                row |= {"equal": min(equal)}
                if n_c is not None:
                    row |= {"equal_in_blocks": min(equal_in_blocks)}
                rows.append(row | {m: spread([e[m] for e in measured]) for m in measured[0]})
    return rows


def codes_of_all_kinds(*, rows: int = 16, k: int = 256) -> tuple[Tensor, Tensor]:
    """Any finite codes, subnormal ones too; the first rows nearly empty, the last ones full."""
    generator = torch.Generator().manual_seed(0)
    finite = torch.tensor([c for c in range(256) if c & 0x7F != 0x7F], dtype=torch.uint8)
    kept = torch.linspace(0.02, 1.0, rows)[:, None]
    codes = [finite[torch.randint(len(finite), (rows, k), generator=generator)] for _ in range(2)]
    for x in codes:
        x[torch.rand(rows, k, generator=generator) >= kept] = 0
        x[1::4] &= 0x9F  # only small ones, below 2^-3
    a, b = (x.view(torch.float8_e4m3fn).float() for x in codes)
    return a, b


def sample() -> dict[str, object]:
    """Codes as hexadecimal digits, and the results of the GPU; 22 bits are exact in JSON."""
    a, b = codes_of_all_kinds()
    padded = (F.pad(x, (0, 0, 0, 64 - len(x))) for x in (a, b))
    a64, b64 = padded
    n = len(a)
    return {
        name: [bytes(row).hex() for row in x.to(torch.float8_e4m3fn).view(torch.uint8).tolist()]
        for name, x in (("a", a), ("b", b))
    } | {
        name: on_gpu(a64, b64, promote=promote)[:n, :n].tolist()
        for name, promote in (("unpromoted", False), ("promoted", True))
    }


def models() -> list[dict[str, object]]:
    """How often other models give the bits of the GPU, without promotion at K = 512."""
    cases = [random_operands(name, 512) for name in DISTRIBUTIONS]
    found = [on_gpu(a, b, promote=False) for a, b in cases]
    return [
        {"model": name}
        | {
            d: round(agreement(c, tensor_core_matmul(a, b, promote_every=None, **options)), 4)
            for d, (a, b), c in zip(DISTRIBUTIONS, cases, found, strict=True)
        }
        for name, options in MODELS.items()
    ]


def milliseconds(call) -> float:
    timer = Timer("call()", globals={"call": call})
    timer.timeit(5)
    return 1e3 * timer.blocked_autorange(min_run_time=0.5).median


def speed() -> list[dict[str, object]]:
    """10^12 operations a second of products, without and with quantising; a layer in ms."""
    torch.manual_seed(0)
    rows: list[dict[str, object]] = []
    for m, n, k in SHAPES:
        a, b = (torch.randn(size, k, device="cuda", dtype=torch.bfloat16) for size in (m, n))
        a_q, b_q = quantize(a), quantize(b, group=BLOCK)
        b_t = quantize(b)
        whole_a, whole_b = (quantize(x, group=PER_TENSOR) for x in (a, b))
        scales = whole_a.scale_inv.flatten()[0], whole_b.scale_inv.flatten()[0]
        ways = {
            "bf16": lambda a=a, b=b: F.linear(a, b),
            "per tensor, not promoted": lambda a=whole_a.data, b=whole_b.data, s=scales: (
                torch._scaled_mm(a, b.T, *s, out_dtype=torch.bfloat16, use_fast_accum=True)
            ),
            "1x128 by 128x128": lambda a=a_q, b=b_q: gemm(a, b, out_dtype=torch.bfloat16),
            "1x128 by 1x128": lambda a=a_q, b=b_t: gemm(a, b),
            "with casts": lambda a=a, b=b: gemm(
                quantize(a), quantize(b, group=BLOCK), out_dtype=torch.bfloat16
            ),
        }
        tera = 2 * m * n * k / 1e9
        rows.append(
            {"shape": [m, n, k]}
            | {name: round(tera / milliseconds(call)) for name, call in ways.items()}
        )
    x = torch.randn(8192, 4096, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    dy = torch.randn_like(x)
    bf16 = nn.Linear(4096, 4096, bias=False, device="cuda", dtype=torch.bfloat16)
    layers = {"fp8": Fp8Linear(4096, 4096, device="cuda"), "bf16": bf16}
    timed = {
        name: round(milliseconds(lambda layer=layer: layer(x).backward(dy)), 3)
        for name, layer in layers.items()
    }
    return [*rows, {"layer": "8192 tokens, 4096x4096, forward and backward, ms"} | timed]


def main() -> None:
    arguments = parser(__file__, __doc__).parse_args()
    if not torch.cuda.is_available() or torch.cuda.get_device_capability()[0] != 9:
        print("experiments/fp8_gpu.py needs a Hopper GPU (H100, H200 …); nothing was measured.")
        return
    tables = {
        "speed": speed(),
        "accumulation": accumulation(),
        "models": models(),
        "sample": sample(),
    }
    settings = {"rows": ROWS}
    write(
        arguments.out,
        script=__file__,
        settings=settings,
        tables=tables,
        seeds=SEEDS,
        device="cuda",
    )


if __name__ == "__main__":
    main()
