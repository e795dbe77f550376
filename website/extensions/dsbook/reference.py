"""The reference: every module below ``src/`` is a page of the book, read as it stands.

For Sphinx a ``.py`` file is a document. Its syntax tree is read (nothing is imported) and turned
into Markdown: the docstring of the module, then each public class, method and function in the
order of the source, with its signature as it is written there, its line, and its docstring.
``_toc.yml`` names the modules like other pages. The objects join Sphinx's domain of Python, so that
``{py:obj}`` finds them and ``objects.inv`` lists them.

Docstrings are plain text. What this module makes of it: a line with an indented block under it is a
heading with its points, an indented block by itself is code, words in `backquotes` are code, and a
link where they are the full name of something (``dsnotes.model.moe``).
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from docutils import nodes
from myst_parser.parsers.sphinx_ import MystParser

WIDTH = 100  # of the source: a line is wrapped where the next word did not fit
SHOWN = ("property", "classmethod", "staticmethod", "contextmanager", "dataclass")
CONSTANTS = "常量与类型"


@dataclass(frozen=True)
class Entry:
    """A section of a page: what stands in it, and the names of the objects that it is about."""

    title: str
    level: int
    signature: str
    docstring: str
    line: int
    objects: dict[str, str]  # name within the module: its type in the domain of Python


def entries(source: str) -> Iterator[Entry]:
    """The public objects of a module, constants first."""
    lines = source.splitlines()
    body = ast.parse(source).body
    constants = {name: item for item in body for name in _names(item)}
    if constants:
        items = dict.fromkeys(constants.values())
        code = "\n".join(_lines(lines, item.lineno, item.end_lineno) for item in items)
        line = min(item.lineno for item in items)
        yield Entry(CONSTANTS, 2, code, "", line, dict.fromkeys(constants, "data"))
    for item in body:
        if isinstance(item, ast.FunctionDef) and _public(item):
            yield _entry(lines, item, item.name, 2, "function")
        elif isinstance(item, ast.ClassDef) and _public(item):
            yield _entry(lines, item, item.name, 2, "class")
            for part in item.body:
                if isinstance(part, ast.FunctionDef) and _public(part):
                    yield _entry(lines, part, f"{item.name}.{part.name}", 3, "method")


def _entry(lines: list[str], item, name: str, level: int, kind: str) -> Entry:
    decorators = [d for d in item.decorator_list if any(s in ast.unparse(d) for s in SHOWN)]
    code = [f"@{ast.unparse(d)}" for d in decorators] + [_head(lines, item)]
    if isinstance(item, ast.ClassDef):
        for part in item.body:
            if _names(part) or (isinstance(part, ast.FunctionDef) and part.name == "__init__"):
                whole = not isinstance(part, ast.FunctionDef)
                text = _lines(lines, part.lineno, part.end_lineno) if whole else _head(lines, part)
                code.append(textwrap.indent(text, " " * 4))
    signature = "\n".join(code)
    return Entry(name, level, signature, ast.get_docstring(item) or "", item.lineno, {name: kind})


def _head(lines: list[str], item) -> str:
    """A definition up to its colon."""
    return _lines(lines, item.lineno, max(item.lineno, item.body[0].lineno - 1))


def _lines(lines: list[str], first: int, last: int) -> str:
    return textwrap.dedent("\n".join(lines[first - 1 : last])).rstrip()


def _names(item: ast.stmt) -> list[str]:
    """The public names that a statement assigns to."""
    targets = item.targets if isinstance(item, ast.Assign) else [getattr(item, "target", None)]
    if not isinstance(item, ast.Assign | ast.AnnAssign):
        return []
    return [t.id for t in targets if isinstance(t, ast.Name) and not t.id.startswith("_")]


def _public(item) -> bool:
    return not item.name.startswith("_")


def markdown(docstring: str, package: str = "", offset: int = 0) -> str:
    r"""A docstring as Markdown; `offset` is how far it is indented in the source.

    >>> print(markdown("Departures\n    - None, of x_1.\n\n    1 + 1\n").replace("`", "'"))
    **Departures**
    <BLANKLINE>
    - None, of x\_1.
    <BLANKLINE>
    '''text
    1 + 1
    '''
    """
    found = []
    for paragraph in re.split(r"\n\s*\n", docstring.rstrip()):
        block = paragraph.split("\n")
        points = next((i for i, line in enumerate(block) if line.startswith(" ")), len(block))
        rows = [re.fullmatch(r"(\w+) {2,}(\S.*)", line) for line in block]
        if block[0].startswith((" ", ">>>")):
            language = "pycon" if block[0].lstrip().startswith(">>>") else "text"
            found.append(f"```{language}\n{textwrap.dedent(paragraph)}\n```")
        elif all(rows):
            found.append("\n".join(f"- {_module(package, r[1])}: {_inline(r[2])}" for r in rows))
        elif block[0].startswith("- "):
            found.append(_points(block, offset))
        elif points < len(block):
            found += [f"**{_inline(' '.join(block[:points]))}**", _points(block[points:], offset)]
        else:
            found.append(_inline(" ".join(block)))
    return "\n\n".join(found)


def _points(block: list[str], offset: int) -> str:
    """The points of a heading: one a line, unless the line goes on with the point before."""
    indent = min(len(line) - len(line.lstrip()) for line in block)
    points: list[str] = []
    before = ""
    for line in block:
        text = line.strip()
        hangs = len(line) - len(line.lstrip()) > indent
        full = len(before) + 1 + len(text.split()[0]) > WIDTH - offset
        if points and not text.startswith("- ") and (hangs or (full and before[-1] != ".")):
            points[-1] += f" {text}"
        else:
            points.append(text.removeprefix("- "))
        before = line
    return "\n".join(f"- {_inline(re.sub(r' {2,}', ': ', point))}" for point in points)


def _module(package: str, name: str) -> str:
    return f"{{py:obj}}`{name} <{package}.{name}>`" if package else f"`{name}`"


def _inline(text: str) -> str:
    """Text whose only markup is `code`."""
    parts = re.split(r"(`[^`]+`)", text)
    for i, part in enumerate(parts):
        if i % 2 and re.fullmatch(r"`dsnotes(\.\w+)+`", part):
            parts[i] = f"{{py:obj}}{part}"
        elif not i % 2:
            parts[i] = re.sub(r"([\\*_$<>\[\]{}|~#])", r"\\\1", part)
    return "".join(parts)


def page(source: str, module: str, package: str = "") -> str:
    """A module as a page of Markdown."""

    def english(text: str, offset: int) -> str:
        body = markdown(text, package, offset)
        return f"::::{{container}} language-en docstring\n{body}\n::::\n" if body else ""

    parts = [f"# {module}", english(ast.get_docstring(ast.parse(source)) or "", 0)]
    parts.append(f"{{source}}`源代码 <{module}>`")
    for entry in entries(source):
        title = entry.title if entry.title == CONSTANTS else f"`{entry.title}`"
        name = f"{module}.{next(iter(entry.objects))}"
        parts += [
            f"{'#' * entry.level} {title}",
            f"```python\n{entry.signature}\n```",
            f"{{source}}`源代码，第 {entry.line} 行 <{name}>`",
            english(entry.docstring, 4 * (entry.level - 1)),
        ]
    return "\n\n".join(parts)


class ModuleParser(MystParser):
    supported = ("python-module",)

    def parse(self, inputstring, document):
        env = document.settings.env
        src = Path(env.srcdir) / env.config.codelink_src
        path = Path(env.doc2path(env.docname)).relative_to(src).with_suffix("")
        is_package = path.name == "__init__"
        module = ".".join(path.parts[:-1] if is_package else path.parts)
        document.settings.smart_quotes = False  # of Chinese text: a full-width ’ in English
        super().parse(page(inputstring, module, module if is_package else ""), document)

        domain = env.get_domain("py")
        domain.note_module(module, module, synopsis="", platform="", deprecated=False)
        sections = list(document.findall(nodes.section))
        of_section = [{"": "module"}, *(entry.objects for entry in entries(inputstring))]
        for section, objects in zip(sections, of_section, strict=True):
            names = {".".join(filter(None, (module, n))): kind for n, kind in objects.items()}
            anchor = next(iter(names))
            section["ids"] = [anchor]
            for name, kind in names.items():
                domain.note_object(name, kind, anchor, location=section)


def setup(app):
    app.setup_extension("dsbook.codelink")
    app.add_source_suffix(".py", "python-module")
    app.add_source_parser(ModuleParser)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "env_version": 1}
