"""What the pages say of their exercises, and the tables they read."""

import csv
import re
from pathlib import Path

BOOK = Path(__file__).parents[2] / "book"
EXERCISE = r"\{exercise\}[^\n]*\n(?::\w+:[^\n]*\n)*?:label:"


def page(section: str) -> str:
    """The text of a section, with that of the pages it was split into, such as `fp8-*`."""
    (first,) = BOOK.glob(f"*/{section}.md")
    return "\n".join(p.read_text("utf8") for p in [first, *sorted(BOOK.glob(f"*/{section}-*.md"))])


def labels() -> list[str]:
    """Of all exercises on pages, such as "moe-1"."""
    text = "\n".join(path.read_text("utf8") for path in sorted(BOOK.glob("*/*.md")))
    return re.findall(rf"{EXERCISE} ex-(\w+-\d+)$", text, re.MULTILINE)


def exercise(label: str) -> str:
    """The text of an exercise with its options, wherever it stands."""
    return _block(label, rf"{EXERCISE} ex-{label}\n")


def solution(label: str) -> str:
    """The text of its solution."""
    return _block(label, rf"\{{solution\}} ex-{label}\n")


def classes(label: str) -> set[str]:
    """Kind, stars and minutes of an exercise, such as {"hand", "stars-1", "minutes-5"}."""
    text = exercise(label)
    return set(" ".join(re.findall(r"^:class:(.*)$", text, re.MULTILINE)).split())


def _block(label: str, head: str) -> str:
    text = "\n".join(path.read_text("utf8") for path in BOOK.glob("*/*.md"))
    found = re.search(
        rf"^(?P<fence>`{{3,}}|:{{3,}})({head}.*?)\n(?P=fence)$", text, re.DOTALL | re.MULTILINE
    )
    assert found, label
    return found[2]


def rows(name: str) -> list[dict[str, str]]:
    """The lines of a table in `book/data/`, by its column heads."""
    with (BOOK / "data" / name).open(encoding="utf8") as file:
        return list(csv.DictReader(file))
