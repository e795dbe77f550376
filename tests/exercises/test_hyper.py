"""The exercises on hyper-connections, solved another way: by iteration, by search, by counting."""

import math

import pytest
import torch

from dsnotes.after.hyper import gains, sinkhorn
from dsnotes.practice.mechanisms import load

from .notebook import NOTEBOOKS, answers
from .page import exercise, solution


def solved(label: str) -> dict:
    """The names that the solution of an exercise defines."""
    names: dict = {}
    exec(answers(NOTEBOOKS / "hyper.ipynb")[label].right, names)
    return names


def test_hyper_1() -> None:
    """Rows and columns divided by hand, without the library, until nothing changes."""
    rows = [[1.0, 1.0], [math.exp(-20), math.exp(-24)]]
    for _ in range(500):
        rows = [[row[j] / sum(r[j] for r in rows) for j in range(2)] for row in rows]
        rows = [[x / sum(row) for x in row] for row in rows]
    answer = solved("hyper-1")
    assert answer["first_entry"] == pytest.approx(rows[0][0], abs=1e-6)
    logits = torch.tensor([[0.0, 0.0], [-20.0, -24.0]], dtype=torch.float64)
    floored = sinkhorn(logits, eps=1e-6)[0, 0].item()
    assert answer["with_eps"] == pytest.approx(floored, abs=1e-3)
    assert r"e^{0-24+20-0}=e^{-4}" in solution("hyper-1")


def test_hyper_2() -> None:
    """Other draws than those of the notebook; deeper stacks do not go beyond 4."""
    torch.manual_seed(1)
    noise = torch.randn(300, 200, 4, 4, dtype=torch.float64)
    found = gains(sinkhorn(noise, iters=1))[:, 1]
    assert solved("hyper-2")["guess"] == pytest.approx(found[121].median().item(), abs=0.05)
    assert found.max() < 4
    assert abs(found[121].median() - found[299].median()) < 0.05


def test_hyper_3() -> None:
    answer = solved("hyper-3")
    matrix = torch.tensor(answer["rows_only"], dtype=torch.float64)
    assert matrix.sum(1).tolist() == [1, 1]
    assert torch.linalg.matrix_norm(matrix, ord=2) == pytest.approx(math.sqrt(2))
    assert matrix @ torch.tensor([1.0, 0.0]).double() == pytest.approx([1, 1])
    assert r"\sqrt2" in solution("hyper-3")


def test_hyper_4() -> None:
    """Graded by the tests of the section (`tests/practice`)."""
    assert "`python -m dsnotes.practice hyper`" in exercise("hyper-4")


def test_hyper_5() -> None:
    """The two that the page means, by their common mistakes."""
    assert "`python -m dsnotes.practice --bug hyper-1`" in exercise("hyper-5")
    assert "`--bug hyper-2`" in exercise("hyper-5")
    assert [bug.trap for bug in load("hyper").bugs[:2]] == [1, 2]


def test_hyper_6() -> None:
    """Operator by operator: what each reads and writes, added up (mHC table 2)."""
    n, width = 4, 7168
    coefficients = n * n + 2 * n
    reads = [
        n * width,  # the three mappings
        n * width + n,  # A X
        n * width + n * n,  # B X
        width + n,  # C F(A X)
        2 * n * width,  # the sum of both
    ]
    writes = [coefficients, width, n * width, n * width, n * width]
    assert sum(reads) == (5 * n + 1) * width + coefficients
    assert sum(writes) == (3 * n + 1) * width + coefficients
    answer = solved("hyper-6")
    assert answer["more_traffic"] == pytest.approx((sum(reads) + sum(writes)) / (3 * width))
    assert answer["kept_streams"] == torch.empty(n, width, dtype=torch.bfloat16).nbytes
