"""The accumulator computes what dsnotes.training.fp8.gemm computes, exactly."""

import itertools

import pytest
import torch

from dsnotes.training.fp8.formats import cast
from dsnotes.training.fp8.gemm import _exponent, errors, tensor_core_matmul

KINDS = ("uniform", "half", "rectified", "normal", "big")
LONGEST = 8192


@pytest.fixture
def accumulation(lab):
    return lab("fp8-accumulation")


@pytest.fixture
def operands(accumulation):
    def of(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
        sides = accumulation.call("Fp8AccumulationLab.operands", kind)
        return torch.tensor([sides["a"]]).float(), torch.tensor(sides["b"]).float()

    return of


@pytest.mark.parametrize("kind", KINDS)
def test_the_data_are_numbers_of_e4m3_and_as_said(operands, kind: str) -> None:
    a, b = operands(kind)
    assert a.shape == (1, LONGEST)
    assert b.shape == (8, LONGEST)
    assert cast(a).float().equal(a)
    assert cast(b).float().equal(b)
    if kind == "big":
        assert (a * b)[0].tolist() == [2**14] + [1] * (LONGEST - 1)
        return
    mean, std = b.mean().item(), b.std().item()
    expected = {"uniform": (0.5, 0.289), "half": (0.798, 0.603), "rectified": (0.399, 0.584),
                "normal": (0, 1)}[kind]  # fmt: skip
    assert (mean, std) == pytest.approx(expected, abs=0.02)


def settings(kind: str):
    """Every interval once, with other numbers of bits and the other rounding in turn."""
    for number, n in enumerate(range(5, 14)):
        yield 2**n, 10 + (number + len(kind)) % 7, number % 3 == 0
    yield from ((2**n, 13, False) for n in (5, 7, 13))


@pytest.mark.parametrize("kind", KINDS)
def test_every_running_result_equals_the_library(accumulation, operands, kind: str) -> None:
    a, b = operands(kind)
    for promote, bits, nearest in settings(kind):
        found = accumulation.call("Fp8AccumulationLab.errors", kind, promote, bits, nearest)
        for k in (32, 64, 96, 1024, 4096, LONGEST):
            c = tensor_core_matmul(
                a[:, :k], b[:, :k], promote_every=promote, fraction_bits=bits,
                rounding="nearest" if nearest else "truncate",
            )  # fmt: skip
            exact = a[:, :k].double() @ b[:, :k].double().T
            at = k // 32 - 1
            assert found["found"][at] == c[0, 0].item()
            assert found["exact"][at] == exact[0, 0].item()
            expected = errors(c.double(), exact)["relative_norm"]
            assert found["error"][at] == pytest.approx(expected, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("kind", KINDS)
def test_the_register_and_the_product_that_comes_in(accumulation, operands, kind: str) -> None:
    a, b = (side[0] for side in operands(kind))
    for k, n, bits in itertools.product((5, 6, 9, 12, 13), (5, 7, 10, 13), (10, 13, 16)):
        length, promote = 2**k, 2**n
        start, last = (length - 1) // promote * promote, length - 32
        before = torch.zeros(1)
        if last > start:
            segment = slice(start, last)
            before = tensor_core_matmul(
                a[None, segment], b[None, segment], promote_every=None, fraction_bits=bits
            )[0]
        now = slice(last, length)
        exponent = sum(_exponent(x[now]).clamp(min=-6) for x in (a, b))
        products = (a * b)[now]
        top = max(exponent[products != 0].max().item(), _exponent(before).item())
        product = products[products != 0][-1]
        unit = 2.0 ** (top - bits)
        found = accumulation.call("Fp8AccumulationLab.moment", kind, length, promote, bits, False)
        after = tensor_core_matmul(
            a[None, start:length], b[None, start:length], promote_every=None, fraction_bits=bits
        ).item()
        kept = (torch.trunc(product / unit) * unit).item()
        assert found == {"register": after, "top": top, "product": product.item(), "kept": kept}


def test_the_figure_proves_what_it_says(accumulation) -> None:
    def error(kind: str, n: int, k: int) -> float:
        found = accumulation.call("Fp8AccumulationLab.errors", kind, 2**n, 13, False)
        return found["error"][2**k // 32 - 1]

    for kind in ("uniform", "half", "rectified"):
        for k in (10, 11, 12):  # K doubled: the error as well
            assert error(kind, 13, k + 1) == pytest.approx(2 * error(kind, 13, k), rel=0.4)
        assert error(kind, 7, 13) < 1.5 * error(kind, 7, 7)  # promotion bounds it
    assert error("uniform", 8, 12) < 0.002 < error("uniform", 9, 12)  # goal 3
    assert error("normal", 13, 12) < error("rectified", 13, 12) < 0.02 < error("uniform", 13, 12)
    found = accumulation.call("Fp8AccumulationLab.errors", "big", LONGEST, 13, False)
    assert (found["found"][1], found["exact"][1]) == (16384, 16447)  # the page's example, trap 10
    promoted = accumulation.call("Fp8AccumulationLab.errors", "big", 32, 13, False)
    assert promoted["found"][1] == 16416


def test_goals_are_reached_by_playing(accumulation) -> None:
    def reached(**fields: object) -> list[bool]:
        return [accumulation.goal(i, accumulation.state(**fields)) for i in range(3)]

    assert reached() == [False, False, False]
    assert reached(k=11) == [True, False, False]
    assert reached(kind="normal") == [False, True, False]
    assert reached(n=8) == [False, False, True]


def test_what_it_says_of_the_example_of_the_page(accumulation) -> None:
    said = accumulation.say(accumulation.state(kind="big", k=6, n=5))
    assert "应是 16447，得到 16384" in said
