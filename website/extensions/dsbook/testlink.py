"""A small link from a sentence to the test that fails when it is not true.

``{test}`model/test_moe.py::test_trap_1_gate_uses_unbiased_score``` is a link of two characters to
the line of the test, in a page of its file like those of the source; its name stands in the title.
Every file of the folder ``tests`` has such a page. A test that does not exist is a warning, hence
an error under ``-W``.
"""

from __future__ import annotations

from pathlib import Path

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.docutils import ReferenceRole

from dsbook import codelink

log = logging.getLogger(__name__)
TESTS = "tests"


def files(root: Path) -> list[Path]:
    """The test files that have a page."""
    return sorted(Path(root, TESTS).rglob("test_*.py"))


def locate(root: Path, target: str) -> int | None:
    """The line of ``file::name``, or of a file alone; None when there is no such test."""
    file, _, name = target.partition("::")
    path = Path(root, TESTS, file)
    if not path.is_file():
        return None
    return codelink.symbols(path).get(name.replace("::", ".")) if name else 1


class test_link(nodes.inline):
    """Resolved when the page is written."""


class TestRole(ReferenceRole):
    def run(self):
        root = Path(self.env.srcdir)
        line = locate(root, self.target)
        file = self.target.partition("::")[0]
        text = self.title if self.has_explicit_title else "测试"
        if line is None:
            log.warning(
                "no such test in %s/: %s", TESTS, self.target,
                location=self.get_location(), type="testlink",
            )  # fmt: skip
            return [nodes.literal(text, text)], []
        self.env.note_dependency(str(root / TESTS / file))
        node = test_link(text, text, target=self.target, line=line)
        self.set_source_info(node)
        return [node], []


class ResolveTestLinks(SphinxPostTransform):
    default_priority = 20

    def run(self, **kwargs):
        for node in list(self.document.findall(test_link)):
            text = nodes.inline("", node.astext())
            if self.app.builder.format != "html":
                node.replace_self(text)
                continue
            page = f"{codelink.PAGES}/{TESTS}/{node['target'].partition('.py')[0]}"
            address = self.app.builder.get_relative_uri(self.env.docname, page)
            link = nodes.reference(
                "", "", text, refuri=f"{address}#L-{node['line']}",
                reftitle=f"{TESTS}/{node['target']}", internal=True, classes=["testlink"],
            )  # fmt: skip
            node.replace_self(link)


def pages(app):
    if app.builder.name != "html":
        return
    root = Path(app.srcdir)
    for path in files(root):
        yield codelink.page(app, path, path.relative_to(root).as_posix())


def setup(app):
    app.setup_extension("dsbook.codelink")
    app.add_node(test_link)
    app.add_role("test", TestRole())
    app.add_post_transform(ResolveTestLinks)
    app.connect("html-collect-pages", pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
