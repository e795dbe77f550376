"""What a figure shows, in words, for who cannot see it: a fold under its caption.

All of it stands in one file, ``book/data/figures.yml``: the label of a figure, and a few
sentences: what is drawn, how it is read, what is seen. A line is a paragraph; formulas stand in
dollars, code in backquotes. `MAP` is the drawing of the whole model (block.py), which has no label.

The fold is closed, opens by keyboard, and is not printed. The search does not have it: the caption
already says what the figure is about.
"""

from __future__ import annotations

from pathlib import Path

import yaml
from docutils import nodes

from dsbook import block
from dsbook.english import inline

DATA = "book/data/figures.yml"
SUMMARY = "图的文字说明"
MAP = "block"


class figuretext(nodes.General, nodes.Element):
    """The fold; not a `fold`, which other formats show."""


def made_of(text: str) -> figuretext:
    return figuretext("", *(nodes.paragraph("", "", *inline(line)) for line in text.splitlines()))


def add(app, doctree) -> None:
    path = Path(app.srcdir) / DATA
    if not path.is_file():
        return
    texts = getattr(app, "figure_texts", None)
    if texts is None:
        texts = app.figure_texts = yaml.safe_load(path.read_text("utf8"))
    for node in list(doctree.findall(nodes.Element)):
        if isinstance(node, nodes.figure):
            # behind caption and legend: within the figcaption
            for text in filter(None, map(texts.get, node["names"])):
                app.env.note_dependency(str(path))
                node += made_of(text)
        elif isinstance(node, block.block) and not node["part"] and MAP in texts:
            app.env.note_dependency(str(path))
            node.parent.insert(node.parent.index(node) + 1, made_of(texts[MAP]))


def visit_html(self, node):
    self.body.append(f'<details class="figure-text"><summary>{SUMMARY}</summary>\n')


def depart_html(self, node):
    self.body.append("</details>\n")


def skip(self, node):
    raise nodes.SkipNode


def setup(app):
    app.add_node(figuretext, html=(visit_html, depart_html), latex=(skip, None), text=(skip, None))
    app.connect("doctree-read", add)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "env_version": 1}
