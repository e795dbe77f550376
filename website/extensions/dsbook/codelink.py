"""Links from the text of the book to the code.

``{code}`dsnotes.model.moe.Gate.forward``` leads to the description of the object in the reference
(see ``reference.py``), and the arrow behind it to its very line of the source, shown as a page of
this site; a private name leads to its line alone. The text can be changed as usual, ``{code}`打分
<dsnotes.model.moe.Gate>```. ``{source}`` makes the link to the line alone. The symbol is looked up
in ``src/`` by reading the syntax tree (nothing is imported). A symbol that no longer exists is a
warning, hence an error under ``-W``. With ``BOOK_REPO_URL`` set (see ``repo.py``) each source page
also links to the file in the repository.

Any dotted name below ``src/`` works: a module, a class, a function, a method, an assigned name of
module or class.
"""

from __future__ import annotations

import ast
from functools import lru_cache
from html import escape
from pathlib import Path

from docutils import nodes
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.docutils import ReferenceRole
from sphinx.util.nodes import make_refnode

log = logging.getLogger(__name__)
PAGES = "source"  # folder of the site that holds the source pages


@lru_cache(maxsize=256)
def _symbols(path: Path, mtime: float) -> dict[str, int]:
    """Dotted names inside one file, with their lines (a definition's ``def`` or ``class`` line)."""
    found: dict[str, int] = {}

    def walk(body: list[ast.stmt], prefix: str) -> None:
        for item in body:
            if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.setdefault(prefix + item.name, item.lineno)
                if isinstance(item, ast.ClassDef):
                    walk(item.body, f"{prefix}{item.name}.")
            elif isinstance(item, ast.Assign | ast.AnnAssign):
                targets = item.targets if isinstance(item, ast.Assign) else [item.target]
                for target in targets:
                    if isinstance(target, ast.Name):
                        found.setdefault(prefix + target.id, item.lineno)
            elif isinstance(item, ast.If):
                walk(item.body + item.orelse, prefix)

    walk(ast.parse(path.read_text("utf8")).body, "")
    return found


def symbols(path: Path) -> dict[str, int]:
    """Dotted names inside a file, with their lines."""
    return _symbols(path, path.stat().st_mtime)


def locate(src: Path, symbol: str) -> tuple[Path, int] | None:
    """File and line of a dotted name below ``src``; None when there is no such name."""
    parts = symbol.split(".")
    for cut in range(len(parts), 0, -1):
        base = src.joinpath(*parts[:cut])
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                rest = ".".join(parts[cut:])
                line = symbols(path).get(rest) if rest else 1
                return (path, line) if line else None
    return None


def short(src: Path, symbol: str) -> str:
    """A dotted name without the folders its module lies in."""
    parts = symbol.split(".")
    rooms = 0
    while src.joinpath(*parts[: rooms + 1]).is_dir() and rooms + 1 < len(parts):
        rooms += 1
    return ".".join(parts[rooms:])


class code_link(nodes.literal):
    """A reference to a symbol, resolved when the page is written."""


class CodeRole(ReferenceRole):
    line_only = False

    def run(self):
        src = Path(self.env.srcdir) / self.config.codelink_src
        found = locate(src, self.target)
        text = self.title if self.has_explicit_title else short(src, self.target)
        if not found:
            log.warning(
                "no such symbol in %s/: %s",
                self.config.codelink_src,
                self.target,
                location=self.get_location(),
                type="codelink",
                subtype="missing",
            )
            return [nodes.literal(text, text)], []
        path, line = found
        self.env.note_dependency(str(path))
        module = path.relative_to(src).with_suffix("").as_posix()
        node = code_link(
            text, text, module=module, line=line, symbol=self.target, line_only=self.line_only
        )
        self.set_source_info(node)
        return [node], []


class SourceRole(CodeRole):
    line_only = True


class ResolveCodeLinks(SphinxPostTransform):
    default_priority = 20

    def run(self, **kwargs):
        for node in list(self.document.findall(code_link)):
            node.replace_self(self.links(node))

    def links(self, node: code_link) -> list[nodes.Node]:
        builder, here, symbol = self.app.builder, self.env.docname, node["symbol"]
        text = (nodes.inline if node["line_only"] else nodes.literal)("", node.astext())
        if builder.format != "html" or builder.name == "singlehtml":
            return [text]
        page = f"{PAGES}/{node['module']}"
        line = nodes.reference(
            refuri=f"{builder.get_relative_uri(here, page)}#L-{node['line']}",
            reftitle=f"{symbol}，第 {node['line']} 行",
            internal=True,
            classes=["codelink"],
        )
        described = self.env.get_domain("py").objects.get(symbol)
        if node["line_only"] or not described:
            line += text
            return [line]
        # the arrow is CSS's: the line has no words of its own, for search and for copying
        return [make_refnode(builder, here, described[0], described[1], text, symbol), line]


def source_pages(app):
    """One highlighted page per Python file below the source folder."""
    if app.builder.name != "html":
        return
    src = Path(app.srcdir) / app.config.codelink_src
    for path in sorted(src.rglob("*.py")):
        relative = path.relative_to(src)
        if not any(part.endswith(".egg-info") for part in relative.parts):
            yield page(app, path, relative.as_posix())


def page(app, path: Path, title: str) -> tuple[str, dict[str, str], str]:
    """A Python file as a page of the site: name, content and template."""
    formatter = HtmlFormatter(linenos="inline", linespans="L", anchorlinenos=True)
    code = path.read_text("utf8")
    about = escape((ast.get_docstring(ast.parse(code)) or title).split("\n")[0])
    body = highlight(code, PythonLexer(), formatter)
    # Each number is a link to its line; out of the tab order, or a page has hundreds of stops.
    body = body.replace('<a href="#L-', '<a tabindex="-1" href="#L-')
    note = "本页由源文件生成，行号可以直接链接。"
    if app.config.book_repo_url:
        file = path.relative_to(app.srcdir).as_posix()
        url = f"{app.config.book_repo_url}/blob/{app.config.book_repo_branch}/{file}"
        note += f' <a href="{url}">在仓库中查看</a>'
    html = (
        f'<h1>{title}</h1>\n<p>{note}</p>\n<div class="source-page" tabindex="0" lang="en">'
        f"{body}</div>"
    )
    context = {
        "title": title,
        "body": html,
        "metatags": f'<meta name="description" content="{about}">',
    }
    return f"{PAGES}/{title.removesuffix('.py')}", context, "page.html"


def setup(app):
    app.setup_extension("dsbook.repo")
    app.add_config_value("codelink_src", "src", "env", [str])
    app.add_node(code_link)
    app.add_role("code", CodeRole(), override=True)
    app.add_role("source", SourceRole())
    app.add_post_transform(ResolveCodeLinks)
    app.connect("html-collect-pages", source_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
