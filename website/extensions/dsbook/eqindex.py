"""The index of equations: which symbol of the code implements which equation of a paper.

``{equation-index}`` prints a table made from two sources, neither typed by hand: the docstrings
under ``src/``, which name the equations they implement ("V3 eq 13, 15"), and the formulas of the
book that carry the paper's own number (``\\tag``, see ``mathtags.py``). A number without a paper
belongs to the first paper named in the docstring of its module.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective

from dsbook.codelink import code_link

PAPERS = {  # as docstrings write it: as the table prints it
    "V3": "V3",
    "V2": "V2",
    "V1": "V1",
    "V4": "V4",
    "loss-free balancing": "LF",
    "Loss-free balancing": "LF",
    "DeepSeekMath": "DeepSeekMath",
    "R1 v2": "R1",
    "R1": "R1",
    "V3.2": "V3.2",
    "NSA": "NSA",
    "PPO": "PPO",
    "Dr. GRPO": "Dr. GRPO",
    "DAPO": "DAPO",
    "YaRN": "YaRN",
}
HEAD = ("论文的式", "本书", "代码")
_NUMBERS = r"\(?\d+\)?(?:-\(?\d+\)?)?"
_PAPER = "|".join(map(re.escape, sorted(PAPERS, key=len, reverse=True)))
CITED = re.compile(
    rf"(?:\b(?P<paper>{_PAPER})\s+)?\beqs?\.?\s+"
    rf"(?P<numbers>{_NUMBERS}(?:(?:,\s+and\s+|,\s+|\s+and\s+){_NUMBERS})*)"
)


def cited(docstring: str, default: str) -> list[tuple[str, int]]:
    """(paper, number) of every equation a docstring names.

    >>> cited("Scores (V3 eq. 13, 15-16), then eq 4 and 5.", "V2")
    [('V3', 13), ('V3', 15), ('V3', 16), ('V2', 4), ('V2', 5)]
    """
    found = []
    for match in CITED.finditer(docstring):
        paper = PAPERS[match["paper"]] if match["paper"] else default
        for part in re.split(r",\s+and\s+|,\s+|\s+and\s+", match["numbers"]):
            first, _, last = part.replace("(", "").replace(")", "").partition("-")
            found += [(paper, n) for n in range(int(first), int(last or first) + 1)]
    return found


def in_code(src: Path) -> dict[tuple[str, int], list[tuple[str, str, int]]]:
    """Equation → [(symbol, module path, line)], from all docstrings below ``src``."""
    index = defaultdict(list)
    for path in sorted(src.rglob("*.py")):
        module = path.relative_to(src).with_suffix("").as_posix()
        tree = ast.parse(path.read_text("utf8"))
        first = re.search(_PAPER, ast.get_docstring(tree) or "")
        default = PAPERS[first[0]] if first else "V3"

        def walk(body, prefix, module=module, default=default):
            for item in body:
                if not isinstance(item, ast.FunctionDef | ast.ClassDef):
                    continue
                name = f"{prefix}.{item.name}"
                for equation in dict.fromkeys(cited(ast.get_docstring(item) or "", default)):
                    index[equation].append((name, module, item.lineno))
                if isinstance(item, ast.ClassDef):
                    walk(item.body, name)

        walk(tree.body, module.replace("/", "."))
    return index


def in_book(env) -> dict[tuple[str, int], str]:
    """Equation → label of the formula of the book that carries its number."""
    found = {}
    for label, (_, tag) in env.get_domain("math").tags.items():
        match = re.fullmatch(r"(?:(.+)-)?(\d+)", tag)
        if match:
            found.setdefault((match[1] or "V3", int(match[2])), label)
    return found


class equation_index(nodes.General, nodes.Element):
    """Stands for the table until all pages are read."""


class EquationIndex(SphinxDirective):
    def run(self):
        return [equation_index()]


class FillEquationIndex(SphinxPostTransform):
    default_priority = 8  # before references are resolved (10)

    def run(self, **kwargs):
        marks = list(self.document.findall(equation_index))
        if marks:
            code = in_code(Path(self.app.srcdir) / self.config.codelink_src)
            book = in_book(self.env)
        for mark in marks:
            mark.replace_self(self.table(code, book))

    def table(self, code, book):
        papers = list(dict.fromkeys(PAPERS.values()))
        body = nodes.tbody()
        for equation in sorted(code, key=lambda e: (papers.index(e[0]), e[1])):
            symbols = nodes.paragraph()
            for name, module, line in code[equation]:
                if symbols.children:
                    symbols += nodes.Text("、")
                short = name.split(".", 1)[1]
                symbols += code_link(
                    short, short, module=module, line=line, symbol=name, line_only=False
                )
            here = nodes.paragraph()
            if equation in book:
                label = book[equation]
                xref = addnodes.pending_xref(
                    "",
                    refdomain="math",
                    reftype="eq",
                    reftarget=label,
                    refdoc=self.env.docname,
                    refwarn=True,
                )
                xref += nodes.literal("", label)
                here += xref
            paper, number = equation
            cells = (nodes.paragraph("", f"{paper} 式 {number}"), here, symbols)
            body += nodes.row("", *(nodes.entry("", cell) for cell in cells))
        head = nodes.row("", *(nodes.entry("", nodes.paragraph("", h)) for h in HEAD))
        group = nodes.tgroup(cols=len(HEAD))
        group += [nodes.colspec(colwidth=width) for width in (20, 20, 60)]
        group += [nodes.thead("", head), body]
        return nodes.table("", group, classes=["equation-index"])


def setup(app):
    app.setup_extension("dsbook.codelink")
    app.add_node(equation_index)
    app.add_directive("equation-index", EquationIndex)
    app.add_post_transform(FillEquationIndex)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "env_version": 1}
