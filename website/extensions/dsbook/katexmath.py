"""Render every formula with KaTeX while the book is built.

Readers get plain HTML + MathML and one style sheet: no script, no outside request. KaTeX's script
runs inside Python (package ``mini-racer``, an embedded V8), so that building needs no Node.js; it
is read from the archive that npm publishes, as are the style sheet and the fonts. A formula that
KaTeX cannot parse is a Sphinx warning with file and line, hence an error under ``-W``. Numbers of
formulas: `mathtags`.

Setting ``katex_macros``: a dict of LaTeX macros available in every formula. ``\\sa{…}`` to
``\\sd{…}`` give what is inside one of four colours (see `eqcode`); a formula is copied and searched
without them.
"""

from __future__ import annotations

import base64
import hashlib
import html
import os
import re
import tarfile
from functools import cache
from pathlib import Path

from docutils import nodes
from py_mini_racer import JSEvalException, MiniRacer
from sphinx.errors import ExtensionError
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

from dsbook import mathtags

TEX = re.compile(r'(<annotation encoding="application/x-tex">)(.*?)(</annotation>)', re.DOTALL)
KATEX = Path(__file__).parents[2] / "vendor" / "katex-0.19.1.tgz"
INTEGRITY = (  # of npm: npm view katex@0.19.1 dist.integrity
    "sha512-jG8uKntjSEcm2EpQOh0XturpPuuC9r3Sq5HLHdsFdWZT27E672SF19QEi+of0/YeOy15lDgRhKvr5614uRrEfA=="
)
NEEDED = re.compile(r"package/(?:dist/)?(LICENSE|katex\.min\.js|katex\.min\.css|fonts/.*\.woff2)")
OLD_FONTS = re.compile(
    r",url\([^)]+\) format\(\"(?:woff|truetype)\"\)"
)  # every browser reads WOFF2
ENVIRONMENT = re.compile(r"\\begin\{(\w+\*?)\}(?:(?!\\begin\{).)*?\\end\{\1\}", re.DOTALL)
SYMBOLS = {rf"\s{c}": rf"\htmlClass{{sym sym-{c}}}{{#1}}" for c in "abcd"}
PLAIN = dict.fromkeys(SYMBOLS, "{#1}")
GROUP = r"\{[^{}]*\}"
for _ in range(4):  # braces in braces
    GROUP = rf"\{{(?:[^{{}}]|{GROUP})*\}}"
log = logging.getLogger(__name__)


@cache
def files() -> dict[str, bytes]:
    """Name → content of what is needed from the archive: script, style sheet, fonts, licence."""
    digest = base64.b64encode(hashlib.sha512(KATEX.read_bytes()).digest()).decode()
    if f"sha512-{digest}" != INTEGRITY:
        raise ExtensionError(f"{KATEX} is not the published one: sha512-{digest}, not {INTEGRITY}")
    with tarfile.open(KATEX) as archive:
        found = {
            name[1]: archive.extractfile(member).read()
            for member in archive
            if (name := NEEDED.fullmatch(member.name))
        }
    sheet = found["katex.min.css"].decode()
    return found | {"katex.min.css": OLD_FONTS.sub("", sheet).encode()}


@cache
def _engine(pid: int) -> MiniRacer:
    """One V8 context per process: a forked builder process must not share its parent's."""
    engine = MiniRacer()
    engine.eval(files()["katex.min.js"].decode())
    return engine


class KatexError(ValueError):
    """KaTeX could not parse a formula; the message says what and where."""


@cache
def _render(tex: str, display: bool, macros: tuple[tuple[str, str], ...]) -> str:
    options = {
        "displayMode": display,
        "throwOnError": True,
        "strict": "ignore",  # CJK inside \text is meant
        "trust": True,  # for \htmlClass; the formulas are our own
        "macros": dict(macros) | SYMBOLS,
    }
    try:
        page = _engine(os.getpid()).call("katex.renderToString", tex, options)
        # what a reader copies must mean something elsewhere, where our macros are not known
        plain = html.escape(expand(tex, dict(macros) | PLAIN), quote=False)
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
        argument = rf"\s*({GROUP}|\\[a-zA-Z]+|\S)" if "#1" in meaning else ""

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
    tex, number = mathtags.split(re.sub(r"\\label\s*\{[^}]*\}", "", tex).strip())
    if re.search(r"(?<!\\)&|\\\\", _outside(tex)):
        tex = "\\begin{aligned}" + tex + "\\end{aligned}"
    tex = re.sub(r"\\(begin|end)\{(align|equation|gather)\}", r"\\\1{\2*}", tex)
    return tex, number


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


def write_files(app):
    if app.builder.format != "html":
        return
    for name, content in files().items():
        if name != "katex.min.js":
            path = Path(app.outdir, "_static", "katex", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def add_stylesheet(app, pagename, templatename, context, doctree):
    if doctree and next(
        doctree.findall(lambda n: isinstance(n, nodes.math | nodes.math_block)), None
    ):
        app.add_css_file("katex/katex.min.css")


def setup(app):
    app.add_config_value("katex_macros", {}, "html", [dict])
    app.setup_extension("dsbook.mathtags")
    app.add_html_math_renderer(
        "katexmath", inline_renderers=(visit_inline, None), block_renderers=(visit_block, None)
    )
    app.connect("builder-inited", write_files)
    app.connect("html-page-context", add_stylesheet)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
