"""The reproduction table holds no typed result: what is ours is glued, and "0" is seen to be 0."""

import re
from pathlib import Path

SOURCE = Path(__file__).parents[3] / "book" / "appendix" / "reproduction.md"
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
GLUED = re.compile(r"\{(?:glue:text|csv|ref|numref|cite:p)\}`[^`]*`")
# of the other side or of the rule, not of a result
GIVEN = re.compile(r"\$[^$]*\$|`[^`]*`|\d[\d,]* 次的抽样误差|\d[\d,]* 个 token 的抽样误差|\d+ 倍$")


def _tables():
    """[(columns, rows)] of the source, cells as they are typed."""
    tables: list[tuple[list[str], list[list[str]]]] = []
    lines = SOURCE.read_text("utf8").splitlines()
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        cells = [cell.strip() for cell in line.strip("|").split(" | ")] if "|" in line else []
        if cells and below.startswith("|-"):
            tables.append((cells, []))
        elif cells and not set(cells[0]) <= set("-|"):
            tables[-1][1].append(cells)
    return tables


def test_nothing_of_ours_is_typed():
    tables = _tables()
    assert len(tables) > 6
    typed = []
    for columns, rows in tables:
        for row in rows:
            cells = dict(zip(columns, row, strict=True))
            for name in ("本书", "差", "损失的差", "梯度的差"):
                cell = cells.get(name, "")
                rest = GIVEN.sub("", GLUED.sub("", cell))
                known = cell == "0" or "（测试）" in cell
                if NUMBER.search(rest) and not known:
                    typed.append((row[0], name, cell))
    assert typed == []


def test_a_difference_of_0_is_one(soup):
    page = soup("book/appendix/reproduction")
    for hidden in page.select(".katex-html"):
        hidden.decompose()
    seen = 0
    for row in page.select("table tbody tr"):
        cells = [cell.get_text(" ", strip=True) for cell in row.select("td")]
        if cells[-1] != "0":
            continue
        theirs, ours = _numbers(" ".join(cells[1:-2])), _numbers(cells[-2])
        assert theirs, cells
        assert all(any(_same(a, b) for b in theirs) for a in ours), cells
        seen += 1
    assert seen >= 6


def _numbers(cell):
    """Numbers of a cell; KB and K are thousands."""
    return [
        float(found[1].replace(",", "")) * (1000 if found[2] else 1)
        for found in re.finditer(rf"({NUMBER.pattern})\s*(K?)B?", cell)
    ]


def _same(a, b):
    return abs(a - b) < 1e-9 * max(a, b)
