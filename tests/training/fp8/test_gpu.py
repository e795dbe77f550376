"""FP8 layers on the tensor cores: the numbers of the plain code, and no copy of them that is stale.

These tests need a Hopper GPU and Triton. `experiments/fp8_gpu.py` measures how fast they are.
"""

import itertools
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from dsnotes.training.fp8 import formats, fused
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
    Group,
    Quantized,
    quantize,
)
from dsnotes.training.fp8.fused import quantized_once
from dsnotes.training.fp8.gemm import gemm
from dsnotes.training.fp8.hardware import kernels_for, multiplies_blocks
from dsnotes.training.fp8.linear import Fp8Linear, Recipe, _Fp8Linear

from .cases import CHANGES, RECIPES, both_ways
from .measure import gradient_like, relative_error

hopper = torch.cuda.is_available() and multiplies_blocks(torch.device("cuda", 0))
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not hopper, reason="needs a GPU: a Hopper one, and CUDA 12.9"),
]


def matrices(rows: int, cols: int) -> Iterator[tuple[str, Tensor]]:
    x = torch.randn(rows, cols)
    yield "normal", x
    yield "rows of all sizes", gradient_like(rows, cols)
    yield "subnormal", x * 1e-41
    yield "smallest scale", x * 1e-36
    yield "huge", x * 8e37
    holes = x.clone()
    holes[::3], holes[:, ::5] = 0.0, -0.0
    yield "zeros", holes
    yield "nothing", torch.zeros(rows, cols)
    spoilt = x.clone()
    places = torch.randint(x.numel(), (3,))
    spoilt.view(-1)[places] = torch.tensor([torch.inf, -torch.inf, torch.nan])
    yield "infinity and NaN", spoilt
    ties = torch.randint(-7168, 7169, (rows, cols)) / 16
    ties[:, ::64] = 448
    yield "ties", ties * 2.0**-20
    yield "powers of two", torch.exp2(torch.randint(-30, 30, (rows, cols)).float())


def assert_same(ours: Quantized, plain: Quantized) -> None:
    """Bit for bit, except that a NaN has no sign."""
    for x, y in zip(ours[:2], plain[:2], strict=True):
        x, y = x.cpu().contiguous(), y.contiguous()
        bits = torch.uint8 if x.itemsize == 1 else torch.int16 if x.itemsize == 2 else torch.int32
        nan = x.float().isnan() & y.float().isnan()
        assert ((x.view(bits) == y.view(bits)) | nan).all()
    assert ours.group == plain.group


@pytest.mark.parametrize("shape", [(1, 1), (5, 300), (128, 128), (300, 512), (1000, 576)], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_codes_and_scales_are_those_of_the_plain_code(
    shape: tuple[int, int], dtype: torch.dtype
) -> None:
    casts: list[tuple[Format, bool]] = [(E4M3, False), (E4M3, True), (E5M2, False), (E5M6, True)]
    for (_, x), (fmt, power_of_two) in itertools.product(matrices(*shape), casts):
        x = x.to(dtype)
        for group in (TILE, TOKEN_TILE, BLOCK, PER_TENSOR):
            how: dict = {"group": group, "fmt": fmt, "power_of_two": power_of_two}
            assert_same(quantize(x.cuda(), **how), quantize(x, **how))


@pytest.mark.parametrize(
    ("along", "across"), [(TILE, TOKEN_TILE), (BLOCK, BLOCK), (BLOCK, TOKEN_TILE)]
)
def test_both_ways_at_once(along: Group, across: Group) -> None:
    for shape in ((5, 300), (1000, 576)):
        for _, x in matrices(*shape):
            how: dict = {"along": along, "across": across}
            ours = kernels_for(x.cuda()).quantize(x.cuda(), **how)
            for q, plain in zip(ours, both_ways(x, **how), strict=True):
                assert_same(q, plain)


@pytest.mark.parametrize("fmt", [E4M3, E5M6], ids=lambda f: f.name)
def test_cached_codes_are_turned(fmt: Format) -> None:
    """What Wgrad needs of the input: codes of its 1x128 codes, in 128x1 tiles."""
    for _, x in matrices(1000, 576):
        cached, _ = both_ways(x, along=TILE, fmt=fmt, power_of_two=fmt is E5M6)
        columns = cached.scale_inv.T.contiguous().T  # as the kernel lays them
        gpu = kernels_for(x.cuda()).quantize(cached.data.cuda(), columns.cuda(), across=TOKEN_TILE)
        assert_same(gpu[1], both_ways(cached.data, cached.scale_inv, across=TOKEN_TILE)[1])


def test_many_numbers_none_of_which_is_off() -> None:
    """A division that is only nearly right gets one code in ten million wrong."""
    for _ in range(10):
        x = torch.randn(4096, 4096) * torch.rand(4096, 1)
        for group in (TILE, TOKEN_TILE):
            assert_same(quantize(x.cuda(), group=group), quantize(x, group=group))


def test_what_has_no_kernel_has_the_same_numbers_too() -> None:
    x = gradient_like(300, 200)
    assert_same(quantize(x.double().cuda()), quantize(x.double()))
    assert_same(quantize(x.cuda(), fmt=INT8), quantize(x, fmt=INT8))
    assert_same(quantize(x.cuda(), group=(7, None)), quantize(x, group=(7, None)))
    assert_same(quantize(x.cuda()[:, ::2]), quantize(x[:, ::2]))
    assert quantize(x.cuda()[:0]).data.shape == (0, 200)


@pytest.mark.parametrize("a_group", [TILE, BLOCK, PER_TENSOR, (1, None)], ids=str)
@pytest.mark.parametrize("b_group", [TILE, BLOCK, PER_TENSOR, (1, None)], ids=str)
def test_products_of_all_groups_are_those_of_the_emulation(a_group: Group, b_group: Group) -> None:
    for m, n, k in ((128, 256, 512), (301, 140, 1100)):
        a = quantize(gradient_like(m, k), group=a_group)
        b = quantize(torch.randn(n, k), group=b_group)
        ours = gemm(*(Quantized(q.data.cuda(), q.scale_inv.cuda(), q.group) for q in (a, b)))
        assert relative_error(ours.cpu(), gemm(a, b)) < 1e-3


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_the_layer_has_the_numbers_of_the_plain_layer(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tokens, n, k in ((300, 512, 512), (1, 140, 300), (1000, 576, 1408)):
        x = torch.randn(tokens, k, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        w = torch.randn(n, k, device="cuda", requires_grad=True)
        dy = gradient_like(tokens, n).cuda().bfloat16()
        results = []
        for function in (fused.linear, _Fp8Linear.apply):
            y = function(x, w, recipe)
            results.append((y, *torch.autograd.grad(y, (x, w), dy)))
            monkeypatch.setattr(formats, "kernels_for", lambda x: None)  # the second one is plain
        monkeypatch.undo()
        for ours, plain in zip(*results, strict=True):
            assert ours.equal(plain)


def test_the_layer_is_close_to_that_of_a_cpu() -> None:
    plain, layer = Fp8Linear(300, 140), Fp8Linear(300, 140, device="cuda")
    layer.load_state_dict(plain.state_dict())
    x, dy = torch.randn(200, 300), gradient_like(200, 140)
    results = []
    for one in (plain, layer):
        device = one.weight.device
        z = x.detach().to(device).requires_grad_()
        y = one(z)
        y.backward(dy.to(device))
        results.append((y, z.grad, one.weight.grad))
    for expected, ours in zip(*results, strict=True):
        assert relative_error(ours.cpu(), expected) < 2e-3


def test_no_tokens_and_odd_strides() -> None:
    layer = Fp8Linear(256, 128, device="cuda")
    assert layer(torch.randn(0, 256, device="cuda")).shape == (0, 128)
    x = torch.randn(256, 40, device="cuda")
    assert layer(x.T).equal(layer(x.T.contiguous()))
    layer(x.T).sum().backward()  # a gradient without strides
    assert layer.weight.grad.isfinite().all()


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_weight_that_changes_is_quantised_again(change) -> None:
    layer, x = Fp8Linear(300, 140, device="cuda"), torch.randn(20, 300, device="cuda")
    with quantized_once(layer):
        layer(x)
        change(layer)
        now = layer(x)
    assert now.equal(layer(x))


def test_micro_batches_have_the_gradient_of_weights_quantised_for_each() -> None:
    model = nn.Sequential(Fp8Linear(512, 256), nn.SiLU(), Fp8Linear(256, 512)).cuda()
    batches = torch.randn(4, 100, 512, device="cuda").unbind()
    gradients = []
    for once in (False, True):
        model.zero_grad()
        with quantized_once(model) if once else nullcontext():
            for x in batches:
                model(x).square().mean().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert all(a.equal(b) for a, b in zip(*gradients, strict=True))
