"""The exercises of DSpark, by enumeration and against the module."""

import itertools

import torch

from dsnotes.after.dspark import schedule

from .notebook import NOTEBOOKS, answers
from .page import exercise

RIGHT = {label: answer.right for label, answer in answers(NOTEBOOKS / "dspark.ipynb").items()}


def run(label: str) -> dict:
    names: dict = {}
    exec(RIGHT[label], names)
    return names


def test_dspark_1() -> None:
    """Accept with min(1, p / q), by enumeration of the drafts."""
    q, p = (0.5, 0.5), (0.7, 0.3)
    accepted = sum(b * min(1, a / b) for a, b in zip(p, q, strict=True))
    assert run("dspark-1")["overlap"] == accepted
    assert str(q) in exercise("dspark-1")


def test_dspark_2() -> None:
    """For one request it is the module's scheduler, on all kinds of confidences and speeds."""
    admit = run("dspark-2")["admit"]
    for c in itertools.product((0.1, 0.5, 0.9), repeat=3):
        survival = torch.tensor(c, dtype=torch.float64).cumprod(0).tolist()
        for slow in (0.05, 0.2, 0.6):
            speed = {n: 1 / (1 + slow * n) for n in range(1, 5)}
            assert [admit(survival, speed)] == schedule([c], speed.__getitem__)


def test_dspark_3() -> None:
    """Appendix A: A is drafted half of the time and then always accepted, else the model draws."""
    assert run("dspark-3")["guess"] == 0.6 * 1 + 0.4 * 0.7
