"""Every exercise of a section has its test."""

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
BOOK = HERE.parents[1] / "book"
SECTIONS = sorted(
    {
        section
        for page in BOOK.glob("*/*.md")
        for section in re.findall(r":label: ex-(\w+)-\d+", page.read_text("utf8"))
    }
)


@pytest.mark.parametrize("section", SECTIONS)
def test_every_exercise_has_a_test(section: str) -> None:
    (page,) = BOOK.glob(f"*/{section}.md")
    labels = re.findall(rf":label: ex-{section}-(\d+)", page.read_text("utf8"))
    code = ast.parse((HERE / f"test_{section}.py").read_text("utf8"))
    tests = {item.name for item in code.body if isinstance(item, ast.FunctionDef)}
    assert labels
    assert sorted({f"test_{section}_{number}" for number in labels} - tests) == []
