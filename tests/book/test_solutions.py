"""What the page on exercises says of them: checked in the notebooks, solved again in tests."""

import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "book" / "appendix" / "solutions.md").read_text("utf8")
SECTIONS = sorted(
    path.stem
    for path in (ROOT / "book").glob("*/*.md")
    if "```{exercise}" in path.read_text("utf8")
)


@pytest.mark.parametrize("section", SECTIONS)
def test_every_exercise_is_checked_in_the_notebook(section: str) -> None:
    (page,) = (ROOT / "book").glob(f"*/{section}.md")
    labels = set(re.findall(rf":label: ex-{section}-(\d+)", page.read_text("utf8")))
    notebook = nbformat.read(ROOT / "notebooks" / f"{section}.ipynb", as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells)
    assert sorted(labels - set(re.findall(r"练习 (\d+)", text))) == []


def test_the_page_says_that_solutions_are_filled_in_and_where_tests_are() -> None:
    assert "解答已经填好" in PAGE
    assert "`tests/exercises`" in PAGE
    assert (ROOT / "tests" / "exercises").is_dir()
    assert "留了一格" not in PAGE  # no blank cell is left for the reader
