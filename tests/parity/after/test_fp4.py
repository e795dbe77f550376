"""FP4 and UE8M0 against the MX tensors of torchao: scales, packed bytes and numbers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from dsnotes.after.fp4 import (
    E2M1,
    codes,
    encode_scale,
    pack,
    quantize_fp4,
    round_trip,
    scale_for,
)
from dsnotes.training.fp8.formats import E4M3, Format

# torchao's dtype of each format; of float4, two to a byte
DTYPES = {"E2M1": torch.float4_e2m1fn_x2, "E4M3": torch.float8_e4m3fn}


@pytest.fixture
def to_mx(peer: Callable) -> Callable[..., Any]:
    peer("torchao")
    from torchao.prototype.mx_formats.config import ScaleCalculationMode
    from torchao.prototype.mx_formats.mx_tensor import MXTensor

    def call(x: torch.Tensor, fmt: Format, rule: str) -> Any:
        return MXTensor.to_mx(x, DTYPES[fmt.name], 32, ScaleCalculationMode(rule))

    return call


def data() -> torch.Tensor:
    """Blocks of very different sizes, exact powers of two, sixes, and a block of zeros."""
    x = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    x *= torch.logspace(-8, 8, 64, base=2)[:, None]
    x[0, :32] = 0
    x[1] = x[1].sign() * 2.0 ** x[1].abs().log2().round()
    x[2, ::32] = 6.0
    x[2, 1:32] /= 64
    return x


@pytest.mark.parametrize("fmt", [E2M1, E4M3], ids=lambda f: f.name)
@pytest.mark.parametrize("rule", ["rceil", "floor", "even"])
def test_numbers_and_scales_are_equal(to_mx: Callable, fmt: Format, rule: str) -> None:
    x = data()
    theirs = to_mx(x, fmt, rule)
    assert torch.equal(round_trip(x, fmt, rule), theirs.dequantize(torch.float32))
    amax = x.unflatten(1, (-1, 32)).abs().amax(2)
    full = amax > 0
    ours = encode_scale(scale_for(amax[full], fmt, rule))
    assert torch.equal(ours, theirs.scale.view(torch.uint8)[full])


def test_the_packed_bytes_are_equal(to_mx: Callable) -> None:
    x = data()
    q = quantize_fp4(x)
    assert torch.equal(pack(codes(q.data.float())), to_mx(x, E2M1, "rceil").qdata)


def test_only_one_rule_is_that_of_deepseek(to_mx: Callable) -> None:
    x = data()
    ours = round_trip(x)
    for rule in ("floor", "ceil", "even"):
        assert not torch.equal(ours, to_mx(x, E2M1, rule).dequantize(torch.float32))
