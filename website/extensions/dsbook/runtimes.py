"""Say how long each notebook took to run: on the console after a build, and by ``{runtimes}`` on a
page.

The times are those of the run that produced the outputs shown; a notebook taken from the cache
keeps its own.
"""

from __future__ import annotations

from datetime import datetime

from docutils import nodes
from myst_nb.sphinx_ import NbMetadataCollector
from sphinx import addnodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

log = logging.getLogger(__name__)
HEAD = ("笔记本", "用时（秒）", "运行时间", "状态")


def records(env) -> list[tuple[str, float | None, str, bool]]:
    """(page, seconds, when, ok) of every executed notebook, in the order of their names."""
    rows = []
    for docname, data in sorted(NbMetadataCollector.get_doc_data(env).items()):
        run = data.get("exec_data")
        if run:
            when = datetime.fromtimestamp(run["mtime"]).strftime("%Y-%m-%d %H:%M")
            rows.append((docname, run["runtime"], when, bool(run["succeeded"])))
    return rows


class runtime_table(nodes.General, nodes.Element):
    """Stands for the table until all notebooks have run."""


class Runtimes(SphinxDirective):
    def run(self):
        return [runtime_table()]


def _row(cells: list[nodes.Node]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", cell)) for cell in cells))


def make_table(env, docname: str) -> nodes.Element:
    rows = records(env)
    if not rows:
        return nodes.paragraph("", "还没有运行过的笔记本。")
    group = nodes.tgroup(cols=len(HEAD))
    group += [nodes.colspec(colwidth=1) for _ in HEAD]
    group += nodes.thead("", _row([nodes.Text(h) for h in HEAD]))
    body = nodes.tbody()
    for page, seconds, when, ok in rows:
        xref = addnodes.pending_xref(
            "",
            refdomain="std",
            reftype="doc",
            reftarget=f"/{page}",
            refdoc=docname,
            refexplicit=False,
            refwarn=True,
        )
        xref += nodes.inline("", page)
        took = "" if seconds is None else f"{seconds:.1f}"
        body += _row([xref, *map(nodes.Text, (took, when, "通过" if ok else "出错"))])
    total = sum(row[1] or 0 for row in rows)
    body += _row([nodes.Text("合计"), nodes.Text(f"{total:.1f}"), nodes.Text(""), nodes.Text("")])
    group += body
    return nodes.table("", group, classes=["colwidths-auto", "runtimes"])


class FillRuntimeTable(SphinxPostTransform):
    default_priority = 8  # before references are resolved (10)

    def run(self, **kwargs):
        for node in list(self.document.findall(runtime_table)):
            node.replace_self(make_table(self.env, self.env.docname))


def pages_with_table(app, env):
    """A page that shows the table is written again whenever a notebook has run."""
    if not NbMetadataCollector.new_exec_data(env):
        return []
    return [d for d in env.found_docs if next(env.get_doctree(d).findall(runtime_table), None)]


def report(app, exception):
    if exception or app.builder.name != "html":
        return
    rows = records(app.env)
    if not rows:
        return
    width = max(len(row[0]) for row in rows)
    log.info("\nnotebook run times (seconds):")
    for page, seconds, when, _ in rows:
        log.info("  %-*s  %7s   run %s", width, page, f"{seconds or 0:.1f}", when)
    log.info("  %-*s  %7.1f\n", width, "total", sum(row[1] or 0 for row in rows))


def setup(app):
    app.add_node(runtime_table)
    app.add_directive("runtimes", Runtimes)
    app.add_post_transform(FillRuntimeTable)
    app.connect("env-updated", pages_with_table)
    app.connect("build-finished", report)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
