"""What a page says of its exercises, and the tables it reads."""

import csv
import re
from pathlib import Path

BOOK = Path(__file__).parents[2] / "book"


def page(section: str) -> str:
    (path,) = BOOK.glob(f"*/{section}.md")
    return path.read_text("utf8")


def exercise(label: str) -> str:
    """The text of an exercise, such as "moe-1"."""
    return _block(label, r"\{exercise\}[^\n]*\n:label:")


def solution(label: str) -> str:
    """The text of its solution."""
    return _block(label, r"\{solution\}")


def _block(label: str, head: str) -> str:
    text = page(label.rpartition("-")[0])
    found = re.search(rf"^(`{{3,}}){head} ex-{label}\n(.*?)\n\1$", text, re.DOTALL | re.MULTILINE)
    assert found, label
    return found[2]


def rows(name: str) -> list[dict[str, str]]:
    """The lines of a table in `book/data/`, by its column heads."""
    with (BOOK / "data" / name).open(encoding="utf8") as file:
        return list(csv.DictReader(file))
