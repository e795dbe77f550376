"""Tables of papers, read without changes and drawn as dots.

A table is a CSV file with one header line; an empty cell means that the source gives no value. In a
column such a cell is NaN, which is not drawn; asking for the cell itself is an error.

No equations: the numbers are those of the papers. Torch is not needed, so that the extensions of
the site can look up cells in the same way.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dsnotes.figures.style import COLORS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The order of the colours; neighbours also differ in shape, for readers of a grey print.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


@dataclass(frozen=True)
class Table:
    """Cells as text: `rows[i][j]` belongs to `columns[j]`.

    Rows are found by their labels (see `text`), not by number: a page still cites the same row
    after another row is added above it.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def _index(self, column: str) -> int:
        if column not in self.columns:
            raise ValueError(
                f"column={column!r} is not in {self.name}; expected one of {list(self.columns)}"
            )
        return self.columns.index(column)

    def labels(self, column: str) -> list[str]:
        """The cells of one column, as text.

        >>> from dsnotes.figures.tables import Table
        >>> Table("t", ("model", "score"), (("A", "1"), ("B", ""))).labels("model")
        ['A', 'B']
        """
        j = self._index(column)
        return [row[j] for row in self.rows]

    def values(self, column: str) -> list[float]:
        """The cells of one column as numbers; an empty cell is NaN.

        Raises ValueError where a cell is neither empty nor a number.

        >>> from dsnotes.figures.tables import Table
        >>> Table("t", ("model", "score"), (("A", "1"), ("B", ""))).values("score")
        [1.0, nan]
        """
        return [self._number(cell, column) if cell else math.nan for cell in self.labels(column)]

    def text(self, row: str, column: str) -> str:
        """One cell. `row` is the text of a cell of that row, or the texts of several cells, joined
        by `&`, that no other row has: `"LiveCodeBench & Pass@1-COT"`.

        Raises ValueError when `row` fits no row or several rows, and when the cell is empty.

        >>> from dsnotes.figures.tables import Table
        >>> Table("t", ("model", "score"), (("A", "1"), ("B", ""))).text("A", "score")
        '1'
        """
        j = self._index(column)
        parts = {part.strip() for part in row.split("&")}
        found = [cells for cells in self.rows if parts <= set(cells)]
        if len(found) != 1:
            raise ValueError(f"row={row!r} fits {len(found)} rows of {self.name}; expected one")
        if not found[0][j]:
            raise ValueError(
                f"row={row!r}, column={column!r} of {self.name} is empty: no value in the source"
            )
        return found[0][j]

    def number(self, row: str, column: str) -> float:
        """One cell as a number; `row` and errors as in `text`.

        >>> from dsnotes.figures.tables import Table
        >>> Table("t", ("model", "score"), (("A", "1"), ("B", ""))).number("A", "score")
        1.0
        """
        return self._number(self.text(row, column), column)

    def _number(self, cell: str, column: str) -> float:
        if (value := number_in(cell)) is None:
            raise ValueError(f"column={column!r} of {self.name} has {cell!r}; expected a number")
        return value


def number_in(cell: str) -> float | None:
    """The number in a cell, or None when it is a text; "1_000", "nan" and "inf" are texts.

    >>> from dsnotes.figures.tables import number_in
    >>> number_in("-4.5"), number_in("1_000")
    (-4.5, None)
    """
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in cell else None


def read_table(path: str | Path) -> Table:
    """Read a CSV file in UTF-8 whose first line is the header, as spreadsheets save it.

    A byte order mark and empty lines at the end are ignored. Raises ValueError when the file is in
    another encoding or is not CSV, when an empty line is not at the end, when a line and the header
    differ in the number of cells, and when two columns have one name; FileNotFoundError when there
    is no file.

    >>> _ = Path("scores.csv").write_text("model,score\\nA,71.0\\n", "utf8")
    >>> read_table("scores.csv").number("A", "score")
    71.0
    """
    path = Path(path)
    what, lines = f"path={path.name!r}", []
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        for cells in reader:
            lines.append((reader.line_num, tuple(cells)))
    except csv.Error as error:
        raise ValueError(f"{what} is no CSV in line {reader.line_num}: {error}") from None
    while lines and not any(lines[-1][1]):
        lines.pop()
    if not lines or not any(lines[0][1]):
        raise ValueError(f"{what} begins with an empty line; expected a header line")
    (_, header), *rows = lines
    if len(set(header)) < len(header):
        raise ValueError(f"{what} has two columns of one name: {list(header)}")
    for number, row in rows:
        if not any(row):
            raise ValueError(f"{what} has no cells in line {number}; expected {len(header)}")
        if len(row) != len(header):
            raise ValueError(
                f"{what} has {len(row)} cells in line {number}; "
                f"expected {len(header)} as in the header"
            )
    return Table(path.name, header, tuple(row for _, row in rows))


def _text(path: Path) -> str:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        guess = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "perhaps GBK"
        raise ValueError(
            f"path={path.name!r} is not in UTF-8 ({guess}): {error}; save it as CSV UTF-8"
        ) from None
    if "\0" in text:
        raise ValueError(f"path={path.name!r} is not in UTF-8 (UTF-16, or no text at all)")
    return text


def dot_plot(
    ax: "Axes",
    series: Mapping[str, Sequence[float]],
    *,
    labels: Sequence[str],
    highlight: str | None = None,
) -> None:
    """Draw one line per row and one mark per series; a grey bar spans the marks of a row.

    `series` maps a name to its values, one for each of `labels`, from top to bottom; NaN is not
    drawn. `highlight` names the series that is drawn as full blue circles. The other marks are
    hollow and are drawn on top, so that no mark hides another.

    Raises ValueError when there are more series than marks, when a series and `labels` differ in
    length, and when `highlight` is not the name of a series.

    >>> import matplotlib.pyplot as plt
    >>> dot_plot(plt.figure().subplots(), {"A": [1.0, 2.0]}, labels=["x", "y"], highlight="A")
    """
    if len(series) > len(MARKERS):
        raise ValueError(f"series has {len(series)} names; expected at most {len(MARKERS)}")
    if highlight is not None and highlight not in series:
        raise ValueError(f"highlight={highlight!r} is not in series; expected {list(series)}")
    for name, values in series.items():
        if len(values) != len(labels):
            raise ValueError(
                f"series[{name!r}] has {len(values)} values; expected {len(labels)}, one per label"
            )
    for y, row in enumerate(zip(*series.values(), strict=True)):
        given = [value for value in row if not math.isnan(value)]
        if given:
            ax.plot([min(given), max(given)], [y, y], color="#B0B0B0", lw=1, ls="-", zorder=1)
    looks = list(zip(MARKERS, COLORS.values(), strict=True))
    hollow = iter(looks if highlight is None else looks[1:])
    for name, values in series.items():
        full = name == highlight
        marker, color = looks[0] if full else next(hollow)
        ax.plot(
            values,
            range(len(labels)),
            marker,
            color=color,
            label=name,
            markersize=8 if full else 6,
            markerfacecolor=color if full else "none",
            markeredgewidth=1.4,
            zorder=2 if full else 3,
        )
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(False, axis="y")
    ax.spines["left"].set_visible(False)
