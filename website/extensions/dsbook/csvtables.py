"""Numbers and tables of the papers, read from ``book/data/*.csv`` and never typed.

The role ``{csv}`` brings one cell into a sentence::

    {csv}`r1_table2_r1zero.csv::DeepSeek-R1-Zero::aime2024_pass1`
    {csv}`v3_table6_chat_eval.csv::LiveCodeBench & Pass@1-COT::DeepSeek-V3`
    {csv}`v3_table1_training_cost.csv::Total::h800_kgpu_hours::,.0f`

that is file, row, column and, where the number is to be written otherwise than in the file, a
format. A row is named by the text of one of its cells, or of several joined by ``&`` so that they
fit one row only (``dsnotes.figures.tables.Table.text``). A file, row or column that is not there,
and an empty cell, is a warning, hence an error under ``-W``.

The directive ``{datatable}`` shows a whole file as a numbered table::

    ```{datatable} r1_table4_main.csv
    :name: tab-r1-main
    :hide: category
    :header: 测试, 度量, Claude 3.5, GPT-4o, V3, o1-mini, o1-1217, R1

    表题，可以有引用。
    ```

``:hide:`` leaves out columns; ``:header:`` replaces the header of the file (as many names as
columns are shown, separated by commas). A cell that the source leaves empty is shown as a dash.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

from dsnotes.figures.tables import Table, number_in, read_table

log = logging.getLogger(__name__)
EMPTY = "—"


def find(env, config, file: str) -> Table:
    """The table in a file of the data folder, of which the page depends from now on."""
    path = Path(env.srcdir) / config.csvtables_folder / file
    if not path.is_file():
        raise ValueError(f"no file {config.csvtables_folder}/{file}")
    env.note_dependency(str(path))
    return read_table(path)


class CsvRole(SphinxRole):
    def run(self):
        try:
            file, row, column, *spec = self.text.split("::")
            table = find(self.env, self.config, file)
            text = format(table.number(row, column), spec[0]) if spec else table.text(row, column)
        except ValueError as error:
            log.warning(
                "%s, in {csv}`%s`",
                error,
                self.text,
                location=self.get_location(),
                type="csvtables",
                subtype="cell",
            )
            text = "?"
        return [nodes.Text(text.replace("-", "−") if text.startswith("-") else text)], []


def names(option: str) -> list[str]:
    """The names in an option, separated by commas; one with a comma in it stands in quotes."""
    return next(csv.reader([option], skipinitialspace=True), [])


class DataTable(SphinxDirective):
    required_arguments = 1
    has_content = True
    option_spec = {  # noqa: RUF012
        "name": directives.unchanged_required,
        "header": directives.unchanged_required,
        "hide": directives.unchanged_required,
    }

    def run(self):
        try:
            table = find(self.env, self.config, self.arguments[0])
        except ValueError as error:
            raise self.error(str(error)) from None
        hidden, header = (names(self.options.get(key, "")) for key in ("hide", "header"))
        shown = [c for c in table.columns if c not in hidden]
        header = header or shown
        if not set(hidden) <= set(table.columns) or len(header) != len(shown) or not self.content:
            raise self.error(
                f"datatable needs a caption, in :hide: columns of {', '.join(table.columns)}, "
                f"and {len(shown)} names in :header:, for {', '.join(shown)}"
            )
        text = nodes.Element()
        self.state.nested_parse(self.content, self.content_offset, text)
        # mb-4 is the theme's own class for space below: several may follow one another
        node = nodes.table(
            "", nodes.title("", "", *text[0].children), classes=["colwidths-auto", "mb-4"]
        )
        group = nodes.tgroup(cols=len(header))
        group += [nodes.colspec(colwidth=1) for _ in header]
        columns = [table.labels(name) for name in shown]
        numeric = [
            all(number_in(cell) is not None for cell in column if cell) for column in columns
        ]
        rows = zip(*columns, strict=True)
        group += nodes.thead("", self.line(header, numeric))
        group += nodes.tbody("", *(self.line(row, numeric) for row in rows))
        node += group
        self.set_source_info(node)
        self.add_name(node)
        return [node]

    def line(self, cells: Sequence[str], numeric: Sequence[bool]) -> nodes.row:
        return nodes.row(
            "",
            *(
                nodes.entry(
                    "", nodes.paragraph("", cell or EMPTY), classes=["text-right"] if right else []
                )
                for cell, right in zip(cells, numeric, strict=True)
            ),
        )


def setup(app):
    app.add_config_value("csvtables_folder", "book/data", "env", [str])
    app.add_role("csv", CsvRole())
    app.add_directive("datatable", DataTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
