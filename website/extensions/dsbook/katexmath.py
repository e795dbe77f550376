"""Render every formula with KaTeX while the book is built.

Readers get plain HTML + MathML and one style sheet: no script, no outside request. The vendored
``katex.min.js`` runs inside Python (package ``mini-racer``, an embedded V8), so that building
needs no Node.js. A formula that KaTeX cannot parse is a Sphinx warning with file and line, hence
an error under ``-W``.

Numbers: a labelled display formula is numbered by Sphinx, ``(1.3)``. A formula that carries the
paper's own number, ``\\tag{12}``, keeps that number instead, does not use one of ours up, and
``{eq}`label``` prints it.

Setting ``katex_macros``: a dict of LaTeX macros available in every formula.
"""

from __future__ import annotations

import html
import os
import re
from functools import cache
from pathlib import Path

from docutils import nodes
from py_mini_racer import JSEvalException, MiniRacer
from sphinx.domains.math import MathDomain
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number
from sphinx.util.nodes import make_refnode

TEX = re.compile(r'(<annotation encoding="application/x-tex">)(.*?)(</annotation>)', re.DOTALL)
KATEX = Path(__file__).parents[2] / "assets" / "katex" / "katex.min.js"
TAG = re.compile(r"\\tag\*?\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
ENVIRONMENT = re.compile(r"\\begin\{(\w+\*?)\}(?:(?!\\begin\{).)*?\\end\{\1\}", re.DOTALL)
log = logging.getLogger(__name__)


@cache
def _engine(pid: int) -> MiniRacer:
    """One V8 context per process: a forked builder process must not share its parent's."""
    engine = MiniRacer()
    engine.eval(KATEX.read_text("utf8"))
    return engine


class KatexError(ValueError):
    """KaTeX could not parse a formula; the message says what and where."""


@cache
def _render(tex: str, display: bool, macros: tuple[tuple[str, str], ...]) -> str:
    options = {
        "displayMode": display,
        "throwOnError": True,
        "strict": "ignore",  # CJK inside \text is meant
        "macros": dict(macros),
    }
    try:
        page = _engine(os.getpid()).call("katex.renderToString", tex, options)
        # what a reader copies must mean something elsewhere, where our macros are not known
        plain = html.escape(expand(tex, dict(macros)), quote=False)
        page = TEX.sub(lambda match: match[1] + plain + match[3], page)
        return page.replace(' columnspacing=""', "")  # of a table of one column; not valid
    except JSEvalException as error:
        found = re.search(r"KaTeX parse error: (.*)", str(error))
        text = found[1] if found else str(error).splitlines()[0]
        # KaTeX underlines the culprit with combining characters, which a terminal garbles
        raise KatexError(text.replace("\u0332", "")) from error


def expand(tex: str, macros: dict[str, str]) -> str:
    r"""The formula without the macros of the book.

    >>> expand(r"\E\vect{x}", {r"\E": r"\mathbb{E}", r"\vect": r"\mathbf{#1}"})
    '\\mathbb{E}\\mathbf{x}'
    """
    for name, meaning in macros.items():
        argument = r"\s*(\{(?:[^{}]|\{[^{}]*\})*\}|\\[a-zA-Z]+|\S)" if "#1" in meaning else ""

        def filled(match: re.Match[str], meaning: str = meaning) -> str:
            given = match[1] if match.re.groups else ""
            if given.startswith("{"):
                given = given[1:-1]
            return meaning.replace("#1", given)

        pattern = re.compile(re.escape(name) + r"(?![a-zA-Z])" + argument)
        while (new := pattern.sub(filled, tex)) != tex:
            tex = new
    return tex


def render(tex: str, *, display: bool = False, macros: dict[str, str] | None = None) -> str:
    """Return the HTML of one formula; raises KatexError.

    >>> "katex" in render("x^2")
    True
    """
    return _render(tex, display, tuple(sorted((macros or {}).items())))


def _outside(tex: str) -> str:
    """What stands outside every ``\\begin … \\end``."""
    while (inner := ENVIRONMENT.sub("", tex)) != tex:
        tex = inner
    return tex


def prepare(tex: str) -> tuple[str, str | None]:
    """Make a display formula fit for KaTeX: returns (formula, the paper's number or None).

    Sphinx numbers and labels equations, KaTeX must not; several lines need an ``aligned`` around
    them. A single ``\\tag`` is taken out, to stand beside the scrolling box instead of inside it.
    """
    tex = re.sub(r"\\label\s*\{[^}]*\}", "", tex).strip()
    tags = TAG.findall(tex)
    if len(tags) == 1:
        tex = TAG.sub("", tex).strip()
    if re.search(r"(?<!\\)&|\\\\", _outside(tex)):
        tex = "\\begin{aligned}" + tex + "\\end{aligned}"
    tex = re.sub(r"\\(begin|end)\{(align|equation|gather)\}", r"\\\1{\2*}", tex)
    return tex, tags[0].strip() if len(tags) == 1 else None


def paper_number(node: nodes.math_block) -> str | None:
    return prepare(node.astext())[1]


class TaggedMathDomain(MathDomain):
    """Sphinx's equations, plus the papers' own numbers given by ``\\tag``."""

    initial_data = {**MathDomain.initial_data, "tags": {}}  # noqa: RUF012
    data_version = 1

    @property
    def tags(self) -> dict[str, tuple[str, str]]:
        return self.data.setdefault("tags", {})  # label -> (docname, number)

    def process_doc(self, env, docname, document):
        super().process_doc(env, docname, document)
        for node in document.findall(nodes.math_block):
            number = paper_number(node)
            if number and node.get("label"):
                self.tags[node["label"]] = docname, number

    def clear_doc(self, docname):
        super().clear_doc(docname)
        for label in [k for k, v in self.tags.items() if v[0] == docname]:
            del self.tags[label]

    def merge_domaindata(self, docnames, otherdata):
        super().merge_domaindata(docnames, otherdata)
        self.tags.update({k: v for k, v in otherdata["tags"].items() if v[0] in docnames})

    def get_enumerable_node_type(self, node):
        if isinstance(node, nodes.math_block) and paper_number(node):
            return None
        return super().get_enumerable_node_type(node)

    def resolve_xref(self, env, fromdocname, builder, typ, target, node, contnode):
        if target in self.tags and builder.format == "html":
            docname, number = self.tags[target]
            form = env.config.math_eqref_format or "({number})"
            text = nodes.Text(form.format(number=number))
            return make_refnode(
                builder, fromdocname, docname, nodes.make_id(f"equation-{target}"), text
            )
        return super().resolve_xref(env, fromdocname, builder, typ, target, node, contnode)


def _html(translator, node, tex: str, display: bool) -> str:
    try:
        return render(tex, display=display, macros=translator.config.katex_macros)
    except KatexError as error:
        log.warning("KaTeX: %s in %r", error, tex, location=node, type="katex", subtype="parse")
        return f"<code>{translator.encode(tex)}</code>"


def visit_inline(self, node):
    formula = _html(self, node, node.astext(), False)
    self.body.append(
        self.starttag(node, "span", "", CLASS="math notranslate") + formula + "</span>"
    )
    raise nodes.SkipNode


def visit_block(self, node):
    tex, number = prepare(node.astext())
    if not number and node["number"]:
        number = get_node_equation_number(self, node)
    self.body.append(self.starttag(node, "div", CLASS="math notranslate"))
    if number:
        self.body.append(f'<span class="eqno">({self.encode(number)})')
        if node["ids"]:
            self.add_permalink_ref(node, "本式的链接")
        self.body.append("</span>")
    # the box scrolls sideways on a narrow screen, so the keyboard must be able to reach it
    self.body.append(_html(self, node, tex, True) + "</div>")
    raise nodes.SkipNode


def add_stylesheet(app, pagename, templatename, context, doctree):
    if doctree and next(
        doctree.findall(lambda n: isinstance(n, nodes.math | nodes.math_block)), None
    ):
        app.add_css_file("katex/katex.min.css")


def setup(app):
    app.add_config_value("katex_macros", {}, "html", [dict])
    app.add_domain(TaggedMathDomain, override=True)
    app.add_html_math_renderer(
        "katexmath", inline_renderers=(visit_inline, None), block_renderers=(visit_block, None)
    )
    app.connect("html-page-context", add_stylesheet)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
