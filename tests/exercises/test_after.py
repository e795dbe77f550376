"""The exercises on the results of V3.2 and V4, solved from the tables of the reports."""

from .notebook import NOTEBOOKS, answers, cells
from .page import exercise, rows

RIGHT = {label: answer.right for label, answer in answers(NOTEBOOKS / "after.ipynb").items()}
EXP, BASE = rows("v32_table1_exp.csv"), rows("v4_table1_base.csv")


class Column:
    """What the notebook's tables offer: `values(column)`, the cells as numbers."""

    def __init__(self, table: list[dict[str, str]]) -> None:
        self.table = table

    def values(self, column: str) -> list[float]:
        return [float(row[column]) for row in self.table]


GIVEN = {
    "exp": Column(EXP),
    "base": Column(BASE),
    "names": [row["benchmark"] for row in EXP],
    "OLD": "DeepSeek-V3.1-Terminus",
    "NEW": "DeepSeek-V3.2-Exp",
    "V32": "DeepSeek-V3.2-Base",
}


def run(label: str) -> dict:
    names: dict = dict(GIVEN)
    exec(RIGHT[label], names)
    return names


def test_after_1() -> None:
    """2.5 points of 30 problems are three quarters of one."""
    answer = run("after-1")
    assert round(answer["points"], 2) == 3.33
    assert round(answer["problems"], 2) == 0.75
    assert "三十题" in exercise("after-1")


def test_after_2() -> None:
    """Counted in tenths of a point, with whole numbers."""
    lower_rows = run("after-2")["lower_rows"]
    for model in ("DeepSeek-V4-Flash-Base", "DeepSeek-V4-Pro-Base"):
        gaps = [round(10 * float(r[GIVEN["V32"]])) - round(10 * float(r[model])) for r in BASE]
        for tie in (0, 3, 10):
            assert lower_rows(model, tie / 10) == sum(gap > tie for gap in gaps)


def test_after_3() -> None:
    """The rating drags the mean to five points; without it there is next to nothing."""
    given = dict(GIVEN)
    exec(cells(NOTEBOOKS / "after.ipynb", "exercise")["after-3"], given)
    assert round(given["mean_gap"]) == 5
    assert abs(run("after-3")["mean_gap"]) < 0.5
    assert "五分" in exercise("after-3")
