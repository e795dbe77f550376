"""What the page on exercises says of them: how to do them, and where the answers are."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "book" / "appendix" / "solutions.md").read_text("utf8")


@pytest.mark.parametrize("said", ["还没有写", "不对", "对。"])
def test_the_page_quotes_what_a_check_says(said: str) -> None:
    assert said in PAGE
    assert said in (ROOT / "src/dsnotes/practice/cells.py").read_text("utf8")


@pytest.mark.parametrize("folder", ["notebooks/solutions", "tests/exercises"])
def test_the_page_says_where_answers_and_their_tests_are(folder: str) -> None:
    assert f"`{folder}`" in PAGE
    assert (ROOT / folder).is_dir()
