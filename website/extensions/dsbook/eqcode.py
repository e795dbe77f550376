r"""An equation beside the lines of code that compute it, the same thing in the same colour. ::

    ::::{eqcode} dsnotes.model.moe.Gate.forward
    :from: scores =
    :to: weights =
    :sa: scores
    $$
    \sa{s_{i,t}}=\sigmoid(\vect u_t^\top\vect e_i) \tag{15}
    $$ (eq-moe-score)
    ::::

``:from:`` is text of the first line shown, found once in the function's body (its docstring does
not count); ``:to:`` is text of the last one, the first line at or after it. Without ``:to:`` it is
one line, without both the whole body. A statement over several lines is shown whole; lines that are
only a comment are left out. ``\sa{…}`` to ``\sd{…}`` colour a symbol (see `katexmath`); ``:sa:`` to
``:sd:`` name what has that colour in the code, separated by spaces. The link above the code goes to
the first line shown. What is not found is a warning, hence an error under ``-W``.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from html import escape
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from pygments.lexers import PythonLexer
from pygments.token import STANDARD_TYPES, Comment, String, _TokenType
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from dsbook.codelink import code_link, locate, short

log = logging.getLogger(__name__)
COLOURS = ("sa", "sb", "sc", "sd")


def body(source: str, line: int) -> tuple[int, int]:
    """First and last line of the body of what is defined on a line, without its docstring."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    found = [n for n in ast.walk(ast.parse(source)) if isinstance(n, kinds) and n.lineno == line]
    if not found:
        raise ValueError("is not a function or a class")
    inside = found[0].body[1:] if ast.get_docstring(found[0]) is not None else found[0].body
    return (inside[0].lineno, inside[-1].end_lineno) if inside else (line, line)


def _statement(source: str, line: int) -> tuple[int, int]:
    """Lines of the innermost statement around a line; of a compound one, its head."""
    around = [(line, line)]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt):
            last = node.body[0].lineno - 1 if getattr(node, "body", None) else node.end_lineno
            if node.lineno <= line <= max(last, node.lineno):
                around.append((node.lineno, max(last, node.lineno)))
    return max(around[1:], default=around[0])


def select(source: str, line: int, start: str, end: str) -> list[tuple[int, str]]:
    """The lines to show, numbered and without their common indentation; raises ValueError."""
    first, last = body(source, line)
    lines = source.splitlines()
    if start:
        hits = [n for n in range(first, last + 1) if start in lines[n - 1]]
        if len(hits) != 1:
            raise ValueError(f"has {len(hits)} lines with {start!r}, expected one")
        first, ends = hits[0], [hits[0]]
        if end:
            ends = [n for n in range(first, last + 1) if end in lines[n - 1]]
            if not ends:
                raise ValueError(f"has no line with {end!r} from {start!r} on")
        first, last = _statement(source, first)[0], _statement(source, ends[0])[1]
    numbered = [(n, lines[n - 1]) for n in range(first, last + 1)]
    kept = [(n, text) for n, text in numbered if text.strip() and not text.strip().startswith("#")]
    code = textwrap.dedent("\n".join(text for _, text in kept)).splitlines()
    return [(n, text) for (n, _), text in zip(kept, code, strict=True)]


def _tokens(code: str, colours: dict[str, str]) -> Iterator[tuple[_TokenType, str, str]]:
    """Kind, text and colour ("" for none) of what the code is made of."""
    names = sorted(colours, key=len, reverse=True)
    coloured = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, names))})(?!\w)")
    tokens = list(PythonLexer().get_tokens(code))
    quoted, at = set(), 0
    for kind, text in tokens:
        if kind in Comment or kind in String:
            quoted.update(range(at, at + len(text)))
        at += len(text)
    hits = [m for m in coloured.finditer(code) if m.start() not in quoted] if names else []
    at = 0
    for kind, text in tokens:
        while text:
            hit = next((m for m in hits if m.end() > at), None)
            inside = hit is not None and hit.start() <= at
            until = len(text) if hit is None else (hit.end() if inside else hit.start()) - at
            piece, text = text[:until], text[until:]
            yield kind, piece, colours[hit[0]] if inside else ""
            at += len(piece)


def highlighted(code: str, colours: dict[str, str]) -> str:
    """The code as HTML; `colours`: identifier → class.

    >>> highlighted("s", {"s": "sa"})
    '<span class="line"><span class="sym sym-a">s</span>\\n</span>'
    """
    out = []
    for kind, text, colour in _tokens(code, colours):
        name = f"sym sym-{colour[1:]}" if colour else STANDARD_TYPES.get(kind, "")
        for part in text.splitlines(keepends=True):  # a string may go over several
            plain = part.isspace() or not name
            out.append(escape(part) if plain else f'<span class="{name}">{escape(part)}</span>')
    # a line that is too long goes on under its own beginning (the style sheet knows its depth)
    lines = []
    for line in "".join(out).splitlines(keepends=True):
        depth = len(line) - len(line.lstrip(" "))
        style = f' style="--depth:{depth}ch"' if depth else ""
        lines.append(f'<span class="line"{style}>{line}</span>')
    return "".join(lines)


class eq_code(nodes.literal_block):
    """The lines; `colours` is identifier → class."""


class EqCode(SphinxDirective):
    required_arguments = 1
    has_content = True
    option_spec = {  # noqa: RUF012
        **dict.fromkeys(("from", "to", *COLOURS), directives.unchanged_required),
        "class": directives.class_option,
    }

    def run(self):
        self.assert_has_content()
        pair = nodes.container(classes=["eqcode", *self.options.get("class", [])])
        self.set_source_info(pair)
        equation = nodes.container(classes=["eqcode-math"])
        self.state.nested_parse(self.content, self.content_offset, equation)
        pair += equation
        try:
            pair += self.code(equation)
        except ValueError as error:
            self.warn(f"{self.arguments[0]} {error}")
        return [pair]

    def warn(self, text: str) -> None:
        log.warning("eqcode: %s", text, location=self.get_location(), type="eqcode")

    def code(self, equation: nodes.Element) -> nodes.container:
        symbol, src = self.arguments[0], Path(self.env.srcdir) / self.config.codelink_src
        found = locate(src, symbol)
        if not found:
            raise ValueError(f"is not in {self.config.codelink_src}/")
        path, line = found
        self.env.note_dependency(str(path))
        start, end = self.options.get("from", ""), self.options.get("to", "")
        shown = select(path.read_text("utf8"), line, start, end)
        code = "\n".join(text for _, text in shown)
        formulas = "".join(
            node.astext()
            for node in equation.findall(lambda n: isinstance(n, nodes.math | nodes.math_block))
        )
        colours = {}
        for colour in COLOURS:
            names = self.options.get(colour, "").split()
            if bool(names) != (f"\\{colour}{{" in formulas):
                self.warn(f"\\{colour}{{…}} and :{colour}: come together")
            colours |= dict.fromkeys(names, colour)
        present = {text for _, text, colour in _tokens(code, colours) if colour}
        missing = [name for name in colours if not {name, name.split(".")[-1]} & present]
        if missing:
            self.warn(f"no {', '.join(missing)} in the lines of {symbol}")
        module = path.relative_to(src).with_suffix("").as_posix()
        text = f"{short(src, symbol)}，第 {shown[0][0]} 行"
        link = code_link(text, text, module=module, line=shown[0][0], symbol=symbol, line_only=True)
        block = eq_code(code, code, language="python", colours=colours)
        self.set_source_info(block)
        head = nodes.paragraph("", "", link, classes=["eqcode-where"])
        return nodes.container("", head, block, classes=["eqcode-code"])


def visit_html(self, node):
    code = highlighted(node.astext(), node["colours"])
    self.body.append(
        '<div class="highlight-python notranslate"><div class="highlight">'
        f"<pre><span></span>{code}</pre></div></div>\n"
    )
    raise nodes.SkipNode


def visit_plain(self, node):
    self.visit_literal_block(node)


def depart_plain(self, node):
    self.depart_literal_block(node)


def setup(app):
    app.setup_extension("dsbook.codelink")
    plain = (visit_plain, depart_plain)
    app.add_node(eq_code, html=(visit_html, None), latex=plain, text=plain)
    app.add_directive("eqcode", EqCode)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
