"""The exercises of the placement, against the module, and by trying all."""

import itertools

import torch

from dsnotes.after.eplb import replicate_experts

from .notebook import NOTEBOOKS, answers, cells
from .page import exercise

RIGHT = {label: answer.right for label, answer in answers(NOTEBOOKS / "eplb.ipynb").items()}


def run(label: str) -> dict:
    names: dict = {}
    exec(RIGHT[label], names)
    return names


def test_eplb_1() -> None:
    """No other way to spread six copies makes the heaviest one lighter."""
    copies, loads = run("eplb-1")["copies"], (60, 10, 30)
    ways = [c for c in itertools.product(range(1, 5), repeat=3) if sum(c) == 6]
    heaviest = {c: max(w / n for w, n in zip(loads, c, strict=True)) for c in ways}
    assert heaviest[tuple(copies)] == min(heaviest.values())
    assert all(str(load) in exercise("eplb-1") for load in loads)


def test_eplb_2() -> None:
    """The example of the page: 7 and 5, where 6 and 6 is possible."""
    loads = [3.0, 3, 2, 2, 2, 0]
    chosen = run("eplb-2")["pack"](loads, 2)
    total = [sum(w for w, p in zip(loads, chosen, strict=True) if p == pack) for pack in (0, 1)]
    assert sorted(total) == [5, 7]


def test_eplb_3() -> None:
    """The given code is trap 1; mended, it is that of the module."""
    given: dict = {}
    exec(cells(NOTEBOOKS / "eplb.ipynb", "exercise")["eplb-3"], given)
    loads = [60.0, 10.0, 30.0, 25.0]
    expected = replicate_experts(torch.tensor([loads]), 9)[2][0].tolist()
    assert given["replicate"](loads, 9) != expected
    assert run("eplb-3")["replicate"](loads, 9) == expected
