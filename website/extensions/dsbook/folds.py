"""What a reader looks up, not reads, is folded at the end of a page: how to cite it, and its list
of references. The two headings become a fold (``details``), which is no entry of 本页目录 and has
no number; its anchor stays. ``page.js`` unfolds it for who follows a link into it.
"""

from __future__ import annotations

from docutils import nodes

TITLES = ("引用本节", "参考文献")


class fold(nodes.General, nodes.Element):
    """Holds what is folded; `title` is its name."""


def replace(app, doctree):
    # a page may also have folded it itself, as a box
    kinds = nodes.section | nodes.admonition
    for section in list(doctree.findall(lambda node: isinstance(node, kinds))):
        title = section.next_node(nodes.title)
        if title is None or title.parent is not section or title.astext() not in TITLES:
            continue
        made = fold("", *section.children[1:], title=title.astext())
        made["ids"] = section["ids"]
        made.source, made.line = section.source, section.line
        section.parent.replace(section, made)  # without its classes


def visit_html(self, node):
    self.body.append(self.starttag(node, "details", CLASS="fold"))
    self.body.append(f"<summary>{node['title']}</summary>\n")


def depart_html(self, node):
    self.body.append("</details>\n")


def visit_plain(self, node):
    """Other formats show what is inside."""


def setup(app):
    plain = (visit_plain, visit_plain)
    app.add_node(fold, html=(visit_html, depart_html), latex=plain, text=plain)
    app.connect("doctree-read", replace, priority=400)  # before the contents are collected
    return {"parallel_read_safe": True, "parallel_write_safe": True, "env_version": 1}
