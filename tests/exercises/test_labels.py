"""Every exercise of a section has its test, a kind, stars and minutes."""

import ast
import re
from pathlib import Path

import pytest

from .page import classes, labels

HERE = Path(__file__).parent
SECTIONS = sorted({label.rpartition("-")[0] for label in labels()})


@pytest.mark.parametrize("section", SECTIONS)
def test_every_exercise_has_a_test(section: str) -> None:
    wanted = {label for label in labels() if label.rpartition("-")[0] == section}
    code = ast.parse((HERE / f"test_{section}.py").read_text("utf8"))
    tests = {item.name for item in code.body if isinstance(item, ast.FunctionDef)}
    assert wanted
    assert sorted({f"test_{label.replace('-', '_')}" for label in wanted} - tests) == []


@pytest.mark.parametrize("label", labels())
def test_every_exercise_has_a_kind_stars_and_minutes(label: str) -> None:
    found = classes(label)
    assert len(found & {"hand", "predict", "implement", "bug", "open"}) == 1
    assert len([c for c in found if re.fullmatch(r"stars-[123]", c)]) == 1
    assert len([c for c in found if re.fullmatch(r"minutes-\d+", c)]) == 1
