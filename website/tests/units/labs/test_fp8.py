"""The FP8 microscope computes what dsnotes.training.fp8.formats computes, bit for bit."""

import json
import math
import re

import pytest
import torch

from dsnotes.training.fp8 import formats
from dsnotes.training.fp8.formats import E4M3, E5M2, INT8, Format, cast, dequantize, quantize

FORMATS = {"E4M3": E4M3, "E5M2": E5M2, "INT8": INT8}
GROUPS = {"tensor": formats.PER_TENSOR, "block": (8, 8), "tile": (1, 8)}  # drawn 16 times smaller
FLOATS = pytest.mark.parametrize("fmt", [E4M3, E5M2], ids=lambda f: f.name)


@pytest.fixture
def fp8(lab):
    return lab("fp8")


def numbers(fmt: Format) -> list[float]:
    """All kinds: random sizes, the numbers of the format, the middles, and next to the middles."""
    generator = torch.Generator().manual_seed(0)
    size = torch.rand(300, generator=generator, dtype=torch.float64) * 40 - 22
    random = torch.exp2(size) * torch.randn(300, generator=generator, dtype=torch.float64).sign()
    own = formats.decode(torch.arange(128), fmt).double()
    own = own[own.isfinite()]
    middle = (own[1:] + own[:-1]) / 2
    beside = [torch.nextafter(middle, torch.tensor(to).double()) for to in (0.0, math.inf)]
    far = torch.tensor([fmt.max * 1.001, 61440, 1e6, 1e30]).double()
    return torch.cat([random, own, middle, -middle, *beside, far]).tolist()


@FLOATS
def test_every_code_means_the_same(fp8, fmt: Format) -> None:
    for code, value in enumerate(formats.decode(torch.arange(256), fmt).tolist()):
        found = fp8.call("Fp8Lab.decode", code, fmt.name)
        assert found == value or (math.isnan(found) and math.isnan(value))
        if value and not math.isnan(value):  # JSON does not know −0
            assert fp8.call("Fp8Lab.encode", value, fmt.name) == code


@FLOATS
def test_rounding_bits_and_neighbours(fp8, fmt: Format) -> None:
    own = formats.decode(torch.arange(128), fmt).double()
    own = own[own.isfinite()]
    for x in numbers(fmt):
        near = cast(torch.tensor([x], dtype=torch.float64), fmt)
        assert fp8.call("Fp8Lab.cast", x, fmt.name) == near.float().item()
        code = formats.codes(torch.tensor([abs(x)], dtype=torch.float64), fmt).item()
        assert fp8.call("Fp8Lab.encode", abs(near.float().item()), fmt.name) == code
        above = own[own >= abs(x)].tolist()
        expected = [own[own <= abs(x)].max().item(), above[0] if above else math.inf]
        assert fp8.call("Fp8Lab.neighbours", x, fmt.name) == expected


def test_whole_numbers_round_as_int8(fp8) -> None:
    x = torch.cat([torch.arange(-130, 130) / 2, torch.linspace(-200, 200, 333)]).double()
    assert [fp8.call("Fp8Lab.cast", v, "INT8") for v in x.tolist()] == cast(x, INT8).tolist()


def test_trap_3_without_a_clamp(fp8) -> None:
    """E5M2 as torch converts it; E4M3, which torch saturates, as the definition's NaN."""
    for x in numbers(E5M2):
        theirs = torch.tensor(x).to(torch.float8_e5m2).float().item()
        found = fp8.call("Fp8Lab.cast", float(torch.tensor(x)), "E5M2", False)
        assert found == theirs
    assert fp8.call("Fp8Lab.cast", 464.0, "E4M3", False) == 448  # a tie: 448 is even
    assert math.isnan(fp8.call("Fp8Lab.cast", 465.0, "E4M3", False))
    ml_dtypes = pytest.importorskip("ml_dtypes")
    import numpy

    for x in (448.0, 463.9, 464.0, 464.1, 1e6):
        theirs = float(numpy.float32(x).astype(ml_dtypes.float8_e4m3fn))
        found = fp8.call("Fp8Lab.cast", x, "E4M3", False)
        assert found == theirs or (math.isnan(found) and math.isnan(theirs))


def test_the_matrix_is_normal_and_its_outlier_grows(fp8) -> None:
    base = torch.randn(8, 16, generator=torch.Generator().manual_seed(55))
    x = (100 * base).round() / 100
    found = torch.tensor(fp8.call("Fp8Lab.matrix", "cell", 1)).view(8, 16)
    torch.testing.assert_close(found, x, rtol=0, atol=1e-6)
    for kind, where in (("cell", (2, 6)), ("row", (2,)), ("column", (slice(None), 6))):
        grown = found.clone()
        grown[where] *= 1e4
        assert torch.tensor(fp8.call("Fp8Lab.matrix", kind, 1e4)).view(8, 16).equal(grown)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("name", FORMATS)
def test_quantising_a_matrix(fp8, name: str, group: str) -> None:
    generator = torch.Generator().manual_seed(1)
    sides = fp8.eval(f"Fp8Lab.GROUPS.{group}")
    for number in range(20):
        x = torch.randn(8, 16, generator=generator)
        x *= torch.exp(3 * torch.randn(8, 16, generator=generator))
        if number % 3 == 0:
            x[:, :8] = 0  # a tile of zeros
        if number % 5 == 0:
            x *= 1e-38
        q = quantize(x, group=GROUPS[group], fmt=FORMATS[name])
        found = fp8.call("Fp8Lab.quantize", x.flatten().tolist(), 16, sides, name)
        assert found["scale"] == q.scale_inv.flatten().tolist()
        assert found["q"] == q.data.float().flatten().tolist()
        assert found["values"] == dequantize(q).flatten().tolist()


@pytest.mark.parametrize("kind", ["cell", "row", "column"])
@pytest.mark.parametrize("name", FORMATS)
def test_the_damage_to_all_other_numbers(fp8, name: str, kind: str) -> None:
    powers = (6 * torch.rand(20, generator=torch.Generator().manual_seed(2))).tolist()
    clean = torch.tensor(fp8.call("Fp8Lab.matrix", kind, 1)).view(8, 16)
    for group, power in ((g, p) for g in GROUPS for p in (0, 2, 5, *powers)):
        x = torch.tensor(fp8.call("Fp8Lab.matrix", kind, 10**power)).view(8, 16)
        others = x == clean if power else torch.arange(128).view(8, 16) < 0
        y = dequantize(quantize(x, group=GROUPS[group], fmt=FORMATS[name]))
        found = fp8.call("Fp8Lab.damage", kind, 10**power, group, name)
        assert found["values"] == y.flatten().tolist()
        if not power:
            continue
        x, y = x[others].double(), y[others].double()
        assert found["others"] == len(x)
        assert found["zeros"] == (y == 0).sum()
        assert found["coarse"] == ((y != 0) & ((y - x).abs() > x.abs() / 4)).sum()
        assert found["error"] == pytest.approx(((y - x).norm() / x.norm()).item(), rel=1e-9)


def test_trap_1_rounding_to_whole_numbers_is_int8(fp8) -> None:
    x = torch.tensor(fp8.call("Fp8Lab.matrix", "cell", 100))
    scale = x.abs().max() / 127
    wrong = torch.round(x / scale) * scale
    assert fp8.call("Fp8Lab.damage", "cell", 100, "tensor", "INT8")["values"] == wrong.tolist()


def test_the_figure_proves_what_it_says(fp8) -> None:
    def damage(*state) -> dict:
        return fp8.call("Fp8Lab.damage", *state)

    clean = damage("cell", 1, "tensor", "E4M3")["error"]
    assert damage("cell", 100, "tensor", "E4M3")["error"] < 1.2 * clean  # trap 2
    assert damage("cell", 100, "tensor", "E4M3")["zeros"] == 0
    assert damage("cell", 100, "tensor", "INT8")["zeros"] > 40
    lost = [damage("cell", 1e6, group, "E4M3")["zeros"] for group in ("tensor", "block", "tile")]
    assert lost == [127, 63, 7]
    rows = [damage("row", 10**5.5, group, "E4M3")["zeros"] for group in ("tensor", "block", "tile")]
    assert rows[0] >= rows[1] > 50  # trap 5: a block mixes tokens of different size
    assert rows[2] == 0


def test_goals_are_reached_by_playing(fp8) -> None:
    def reached(**fields: object) -> list[bool]:
        return [fp8.goal(i, fp8.state(**fields)) for i in range(3)]

    assert reached() == [False, False, False]
    assert reached(x=3e-4) == [True, False, False]
    assert reached(x=448) == [False, True, False]
    for group, there in (("tensor", False), ("block", False), ("tile", True)):
        assert reached(tab="matrix", power=5.5, group=group) == [False, False, there]


def test_what_the_first_tab_says(fp8) -> None:
    def said(**fields: object) -> str:
        return fp8.say(fp8.state(**fields))

    assert "夹在 16 与 18 之间，正好在中点，取尾数是偶数的 16" in said()
    assert "E4M3 正好有这个数" in said(x=448)
    assert "不到 E4M3 最小正数 2⁻⁹ 的一半，归零" in said(x=2**-10)
    assert "次正规数" in said(x=0.0045)
    assert "截到它" in said(x=600)
    assert "成了 ∞" in said(x=61440, clamp=False)


def test_it_draws_every_kind_of_number(fp8) -> None:
    """Nothing undefined, whatever is typed; and no place that is not a number."""
    for x in (0, 1e-9, 2**-17, 2**-10, 2**-9, 0.0045, 1, 13.4, 448, 460, 600, 57344, 61440, 131072):
        for clamp in (True, False):
            for width in (320, 700):
                state = fp8.state(x=x, clamp=clamp, minus=x == 1)
                drawn = fp8.eval(f"Fp8Lab.draw({json.dumps(state)}, null, {width})")
                assert "undefined" not in drawn
                assert not re.search(r'="[^"]*(NaN|Infinity)[^"]*"', drawn.split(">", 1)[1])
