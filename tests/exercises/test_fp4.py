"""The exercises of FP4, against the module and against ml_dtypes."""

import ml_dtypes
import numpy as np
import torch

from dsnotes.after.fp4 import pack, scale_for

from .notebook import NOTEBOOKS, answers, cells
from .page import exercise

RIGHT = {label: answer.right for label, answer in answers(NOTEBOOKS / "fp4.ipynb").items()}


def run(label: str) -> dict:
    names: dict = {"torch": torch}
    exec(RIGHT[label], names)
    return names


def test_fp4_1() -> None:
    """The least power of two that keeps the largest below 6, and the casts of ml_dtypes."""
    block, found = np.float32([5, 0.6, -1.8]), run("fp4-1")
    assert found["scale"] == min(2.0**k for k in range(-9, 9) if 5 / 2.0**k <= 6)
    q = (block / found["scale"]).astype(ml_dtypes.float4_e2m1fn).astype(np.float32)
    assert (q * found["scale"]).tolist() == found["back"]
    assert all(number in exercise("fp4-1") for number in ("5", "0.6", "1.8"))


def test_fp4_2() -> None:
    codes = list(range(16))
    assert run("fp4-2")["pack"](codes) == pack(torch.tensor(codes, dtype=torch.uint8)).tolist()


def test_fp4_3() -> None:
    """The given code is trap 1; mended, it is the rule of the module."""
    given: dict = {"torch": torch}
    exec(cells(NOTEBOOKS / "fp4.ipynb", "exercise")["fp4-3"], given)
    amax = torch.tensor([0.1, 6.0, 8.0, 13.0])
    expected = scale_for(amax).tolist()
    assert [given["power_of_two"](a) for a in amax.tolist()] != expected
    assert [run("fp4-3")["power_of_two"](a) for a in amax.tolist()] == expected
