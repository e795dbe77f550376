"""Tables of papers: what is found, what is refused, what is drawn."""

import math
from pathlib import Path

import pytest

from dsnotes.tables import MARKERS, Table, dot_plot, read_table

SCORES = Table(
    "scores.csv",
    ("test", "metric", "A", "B"),
    (("LCB", "pass@1", "1.5", "2"), ("LCB", "CoT", "3", ""), ("MATH", "EM", "-4", "5.0")),
)


def test_reads_what_is_written(tmp_path: Path) -> None:
    file = tmp_path / "scores.csv"
    file.write_text(
        "test,metric,A,B\nLCB,pass@1,1.5,2\nLCB,CoT,3,\nMATH,EM,-4,5.0\n", encoding="utf8"
    )
    assert read_table(file) == SCORES
    file.write_text('模型,"分, 百分"\n甲,1\n', encoding="utf8")
    assert read_table(str(file)).number("甲", "分, 百分") == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [("", "expected a header line"), ("a,b\n1,2\n3\n", "1 cells in line 3; expected 2")],
)
def test_file_that_is_no_table(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "t.csv"
    file.write_text(text, encoding="utf8")
    with pytest.raises(ValueError, match=says):
        read_table(file)


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "gone.csv")


def test_cell_by_its_labels() -> None:
    assert SCORES.text("MATH", "B") == "5.0"
    assert SCORES.text("LCB & pass@1", "B") == "2"
    assert SCORES.text("pass@1&LCB", "A") == "1.5"
    assert SCORES.number("MATH", "A") == -4


def test_column_with_its_gaps() -> None:
    assert SCORES.labels("B") == ["2", "", "5.0"]
    a, gap, b = SCORES.values("B")
    assert (a, b) == (2, 5)
    assert math.isnan(gap)


@pytest.mark.parametrize(
    ("row", "column", "says"),
    [
        ("LCB", "A", "fits 2 rows of scores.csv"),
        ("GSM", "A", "fits 0 rows"),
        ("LCB & EM", "A", "fits 0 rows"),
        ("MATH", "C", r"'C' is not in scores.csv; expected one of \['test', 'metric', 'A', 'B'\]"),
        ("LCB & CoT", "B", "is empty: no value in the source"),
        ("MATH", "metric", "has 'EM'; expected a number"),
    ],
)
def test_cell_that_is_refused(row: str, column: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        SCORES.number(row, column)


def test_column_that_is_no_number() -> None:
    with pytest.raises(ValueError, match=r"column='test' of scores\.csv has 'LCB'"):
        SCORES.values("test")


@pytest.fixture
def ax():
    from matplotlib.figure import Figure

    return Figure().subplots()


def test_dots_stand_at_their_values(ax) -> None:
    dot_plot(ax, {"A": [1.0, 2.0], "B": [3.0, math.nan]}, labels=["x", "y"], highlight="B")
    marks = {line.get_label(): line for line in ax.lines if line.get_marker() != "None"}
    assert list(marks) == ["A", "B"]
    assert list(marks["A"].get_xdata()) == [1, 2]
    assert marks["B"].get_marker() == MARKERS[0]  # the highlighted one, filled and below
    assert marks["A"].get_markerfacecolor() == "none"
    assert marks["B"].get_zorder() < marks["A"].get_zorder()
    spans = [list(line.get_xdata()) for line in ax.lines if line.get_marker() == "None"]
    assert spans == [[1, 3], [2, 2]]
    bottom, top = ax.get_ylim()
    assert bottom > top  # the first label is on top
    assert [t.get_text() for t in ax.get_yticklabels()] == ["x", "y"]


def test_row_without_any_value_is_drawn_empty(ax) -> None:
    dot_plot(ax, {"A": [math.nan, 2.0]}, labels=["x", "y"])
    assert [list(li.get_ydata()) for li in ax.lines if li.get_marker() == "None"] == [[1, 1]]


@pytest.mark.parametrize(
    ("series", "highlight", "says"),
    [
        ({"A": [1.0]}, None, "1 values; expected 2"),
        ({"A": [1.0, 2.0]}, "B", r"expected \['A'\]"),
        ({str(i): [1.0, 2.0] for i in range(8)}, None, "8 names; expected at most 7"),
    ],
)
def test_plot_that_is_refused(ax, series, highlight, says) -> None:
    with pytest.raises(ValueError, match=says):
        dot_plot(ax, series, labels=["x", "y"], highlight=highlight)
