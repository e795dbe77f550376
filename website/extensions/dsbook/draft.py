"""Mark a page that is not written yet, in one way.

``{draft}`` prints a note 「撰写中」 and remembers the page; its content, if there is any, says
what is missing. ``{drafts}`` lists all such pages (used by the status page).
"""

from __future__ import annotations

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective

DEFAULT = "本页给出问题和提纲，正文还没有写完。"


def drafts(env) -> set[str]:
    if not hasattr(env, "book_drafts"):
        env.book_drafts = set()
    return env.book_drafts


class Draft(SphinxDirective):
    has_content = True

    def run(self):
        drafts(self.env).add(self.env.docname)
        note = nodes.admonition(classes=["draft"])
        self.set_source_info(note)
        note += nodes.title("", "撰写中")
        if any(line.strip() for line in self.content):
            self.state.nested_parse(self.content, self.content_offset, note)
        else:
            note += nodes.paragraph("", DEFAULT)
        return [note]


class draft_list(nodes.General, nodes.Element):
    """Stands for the list of drafts until all pages are read."""


class Drafts(SphinxDirective):
    def run(self):
        return [draft_list()]


class FillDraftList(SphinxPostTransform):
    default_priority = 8  # before references are resolved (10)

    def run(self, **kwargs):
        for node in list(self.document.findall(draft_list)):
            pages = sorted(drafts(self.env))
            if not pages:
                node.replace_self(nodes.paragraph("", "没有撰写中的页面。"))
                continue
            items = nodes.bullet_list()
            for page in pages:
                xref = addnodes.pending_xref(
                    "",
                    refdomain="std",
                    reftype="doc",
                    reftarget=f"/{page}",
                    refdoc=self.env.docname,
                    refexplicit=False,
                    refwarn=True,
                )
                xref += nodes.inline("", page)
                items += nodes.list_item("", nodes.paragraph("", "", xref))
            node.replace_self(items)


def purge(app, env, docname):
    drafts(env).discard(docname)


def merge(app, env, docnames, other):
    drafts(env).update(drafts(other) & set(docnames))


def setup(app):
    app.add_node(draft_list)
    app.add_directive("draft", Draft)
    app.add_directive("drafts", Drafts)
    app.add_post_transform(FillDraftList)
    app.connect("env-purge-doc", purge)
    app.connect("env-merge-info", merge)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "env_version": 1}
