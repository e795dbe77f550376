"""Tables of papers: what is found, what is refused, what is drawn."""

import math
from pathlib import Path

import pytest

from dsnotes.figures.tables import MARKERS, Table, dot_plot, read_table

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
    "text",
    [
        "\ufeff模型,分数\nA,1\n", "模型,分数\nA,1\n\n", "模型,分数\r\nA,1\r\n\r\n\r\n",
        "模型,分数\nA,1", "模型,分数\nA,1\n,\n,\n", '\ufeff"模型","分数"\r\n"A","1"\r\n',
        "模型,分数\rA,1\r",
    ],
    ids=["mark", "empty line", "CRLF", "no end", "empty cells", "mark and quotes", "CR"],
)  # fmt: skip
def test_files_as_spreadsheets_save_them(tmp_path: Path, text: str) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(text.encode())
    assert read_table(file) == Table("t.csv", ("模型", "分数"), (("A", "1"),))


def test_quoted_cells_hold_anything(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes('模型,说明\nA,"一, ""二""\n三"\nB,\n'.encode())
    assert read_table(file).rows == (("A", '一, "二"\n三'), ("B", ""))
    file.write_bytes('模型,说明\nA,"一\n二"\nB\n'.encode())
    with pytest.raises(ValueError, match="1 cells in line 4"):  # of the file, not of the table
        read_table(file)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "expected a header line"),
        (b"\n\n", "expected a header line"),
        (b"\na,b\n1,2\n", "begins with an empty line"),
        (b"a,b\n1,2\n3\n", "1 cells in line 3; expected 2"),
        (b"a,b\n1,2\n\n3,4\n", "no cells in line 3; expected 2"),
        (b"a,b\n1,2\n,\n3,4\n", "no cells in line 3; expected 2"),
        (b"a,a\n1,2\n", r"two columns of one name: \['a', 'a'\]"),
        (b'a,b\n1,"2\n3,4\n', "is no CSV in line 3"),
        ("模型,分数\nA,1\n".encode("utf-16"), r"not in UTF-8 \(UTF-16\)"),
        ("模型,分数\nA,1\n".encode("gbk"), r"not in UTF-8 \(perhaps GBK\)"),
        ("a,b\nA,1\n".encode("utf-16-le"), r"not in UTF-8 \(UTF-16"),
    ],
)
def test_file_that_is_no_table(tmp_path: Path, data: bytes, says: str) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(data)
    with pytest.raises(ValueError, match=rf"path='t\.csv'.*{says}"):
        read_table(file)


@pytest.mark.parametrize("cell", ["1_000", "nan", "inf", "1,000", "x", "1e999"])
def test_text_that_is_no_number(cell: str) -> None:
    with pytest.raises(ValueError, match=f"has '{cell}'; expected a number"):
        Table("t", ("a",), ((cell,),)).values("a")


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
