"""The map of the papers as a table: date, title, link, what it brought, which sections use it.

``{papers} ../data/papers.yml`` (path relative to the page); ``:only: post`` shows the papers of
the post's list, ``:only: extra`` the others. The YAML is a list in the order of the table, with
these fields:

    key       entry of the bibliography: title, number and link come from there
    name      what the table calls it; the whole title is shown on hover
    brought   one sentence: what it brought
    used_in   sections that use it (file names without folder and suffix; empty: none)
    post      true: in the post's list
    date      year-month, only where there is no arXiv number to tell it

An unknown key, a missing field or a missing page is a warning.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import yaml
from docutils import nodes
from pybtex.database import parse_file
from sphinx import addnodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from dsbook.gbt7714 import plain

log = logging.getLogger(__name__)
HEAD = ("时间", "论文", "带来了什么", "用在哪里")
WIDTHS = (11, 27, 42, 20)
SECTION = {
    "balance": "均衡",
    "dualpipe": "DualPipe",
    "moe": "MoE",
    "reward": "奖励",
    "whole": "从头到尾",
}  # else capitals


@lru_cache(maxsize=8)
def _entries(path: Path, mtime: float):
    return parse_file(str(path), bib_format="bibtex").entries


def month(row, entry) -> str:
    """Year and month of a paper; an arXiv number begins with them (2412.19437: 2024-12)."""
    number = entry.fields.get("eprint", "")
    return str(row["date"]) if "date" in row else f"20{number[:2]}-{number[2:4]}"


class Papers(SphinxDirective):
    required_arguments = 1
    final_argument_whitespace = True
    option_spec = {"only": lambda arg: {"post": True, "extra": False}[arg.strip()]}  # noqa: RUF012

    def run(self):
        _, file = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(file)
        entries = {}
        for bib in self.config.bibtex_bibfiles:
            path = Path(self.env.srcdir) / bib
            self.env.note_dependency(str(path))
            entries |= _entries(path, path.stat().st_mtime)

        body = nodes.tbody()
        for row in yaml.safe_load(Path(file).read_text("utf8")):
            missing = {"key", "name", "post", "brought", "used_in"} - row.keys()
            if missing or row["key"] not in entries:
                what = f"lacks {sorted(missing)}" if missing else "key not in the bibliography"
                self._warn(f"{what}: {row}")
            elif row["post"] == self.options.get("only", row["post"]):
                body += self._row(row, entries[row["key"]])
        group = nodes.tgroup("", cols=len(HEAD))
        group += [nodes.colspec(colwidth=w) for w in WIDTHS]
        group += nodes.thead("", self._cells([nodes.paragraph("", h) for h in HEAD]))
        group += body
        table = nodes.table("", group, classes=["papers", "colwidths-given"])
        self.set_source_info(table)
        return [table]

    def _warn(self, text: str) -> None:
        log.warning("papers: %s", text, location=self.get_location(), type="papers", subtype="row")

    @staticmethod
    def _cells(cells: list[nodes.Element]) -> nodes.row:
        return nodes.row("", *(nodes.entry("", cell) for cell in cells))

    def _row(self, row, entry) -> nodes.row:
        full = plain(entry.fields["title"])
        name = nodes.abbreviation("", row["name"], explanation=full, classes=["title"])
        title = nodes.paragraph("", "", name)
        number, url = entry.fields.get("eprint"), entry.fields.get("url")
        if url:
            text = f"arXiv:{number}" if number else "链接"
            title += [nodes.Text(" "), nodes.reference("", text, refuri=url, internal=False)]
        uses = nodes.paragraph()
        for name in row["used_in"]:
            pages = [
                d for d in self.env.found_docs if d.startswith("book/") and d.endswith(f"/{name}")
            ]
            if len(pages) != 1:
                self._warn(f"{row['key']}: used_in names {name!r}, pages found: {pages}")
                continue
            xref = addnodes.pending_xref(
                "",
                nodes.inline("", SECTION.get(name, name.upper())),
                refdomain="std",
                reftype="doc",
                reftarget=f"/{pages[0]}",
                refdoc=self.env.docname,
                refexplicit=True,
                refwarn=True,
            )
            uses += [nodes.Text("、"), xref] if len(uses) else xref
        if not len(uses):
            uses += nodes.Text("—")
        when = nodes.paragraph("", month(row, entry))
        return self._cells([when, title, nodes.paragraph("", row["brought"]), uses])


def setup(app):
    app.add_directive("papers", Papers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
