"""Every blank cell: blank it says so, wrong it says why, solved it is right."""

import re
from pathlib import Path

import pytest

from .notebook import NOTEBOOKS, answers, cells, judge
from .page import classes, exercise, labels

EXAMPLE = Path(__file__).parent / "example" / "example.ipynb"
PATHS = [EXAMPLE, *(p for p in sorted(NOTEBOOKS.glob("*.ipynb")) if cells(p, "exercise"))]
EXERCISES = [pytest.param(p, label, id=label) for p in PATHS for label in cells(p, "exercise")]
WRONG = [
    pytest.param(path, label, code, id=f"{label} {name}".rstrip())
    for path in PATHS
    for label, given in answers(path).items()
    for name, code in given.wrong.items()
]


@pytest.mark.parametrize(("path", "label"), EXERCISES)
def test_blank(path: Path, label: str) -> None:
    """A cell to mend starts wrong, any other blank."""
    mend = path != EXAMPLE and label in labels() and "bug" in classes(label)
    assert judge(path, label).state == ("wrong" if mend else "blank")


@pytest.mark.parametrize(("path", "label"), EXERCISES)
def test_solution(path: Path, label: str) -> None:
    assert judge(path, label, answers(path)[label].right) == ("right", "")


@pytest.mark.parametrize(("path", "label", "code"), WRONG)
def test_wrong(path: Path, label: str, code: str) -> None:
    """The message is one of the check, in Chinese, and not a bare assertion."""
    state, message = judge(path, label, code)
    assert state == "wrong", message
    assert re.search(r"[\u4e00-\u9fff]{4}", message)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_each_blank_has_a_check_a_solution_and_a_wrong_answer(path: Path) -> None:
    blanks = cells(path, "exercise").keys()
    assert cells(path, "check").keys() == blanks
    assert answers(path).keys() == blanks
    assert [label for label, given in answers(path).items() if not given.wrong] == []


@pytest.mark.parametrize("label", labels())
def test_every_exercise_can_be_failed(label: str) -> None:
    """By a cell of the notebook or by a command; an open one need not."""
    path = NOTEBOOKS / f"{label.rpartition('-')[0]}.ipynb"
    by_cell = label in cells(path, "exercise")
    by_command = "python -m dsnotes.practice" in exercise(label)
    assert by_cell or by_command or "open" in classes(label)
