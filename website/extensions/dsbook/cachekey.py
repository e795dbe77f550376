"""Run a notebook again when the code or the data it uses has changed.

The execution cache of Jupyter Book looks only at a notebook's own cells and its kernel. Here every
notebook is given, in memory, a hash of what else it reads, as an extra entry of the kernel's
metadata, so that the cache takes it into account:

* the modules of ``src/`` it names, and those they import in turn (found in the syntax trees,
  nothing is imported), with all data files of the package;
* the files of ``book/data/`` and the bibliography whose names occur in it;
* the pinned versions, ``constraints.txt``.

So a change in one module runs the notebooks that use it, and no others.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

SKIP = {".pyc", ".pyo"}


def _files(folder: Path) -> list[Path]:
    """All files below a folder that have a say, in a fixed order."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path.suffix not in SKIP
        and not any(part.endswith(".egg-info") for part in path.parts)
    )


def _resolve(src: Path, dotted: str) -> list[Path]:
    """The file of the longest prefix that is a module; of a package what its name alone runs."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        base = src.joinpath(*parts[:cut])
        if base.with_suffix(".py").is_file():
            return [base.with_suffix(".py")]
        if (base / "__init__.py").is_file():
            return [p for p in (base / "__init__.py", base / "__main__.py") if p.is_file()]
    return []


def _imports(path: Path) -> Iterator[str]:
    """Dotted names that a module imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text("utf8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules(src: Path, code: str) -> list[Path]:
    """The modules below ``src`` that a piece of code uses, directly or through others."""
    packages = [p.name for p in src.iterdir() if (p / "__init__.py").is_file()]
    names = {m for p in packages for m in re.findall(rf"\b{p}(?:\.\w+)*", code)}
    for line in re.findall(r"from ([\w.]+) import \(?([\w, \n]+)", code):
        names |= {f"{line[0]}.{name.strip()}" for name in line[1].split(",")}
    todo, found = [f for name in names for f in _resolve(src, name)], set()
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo += [p / "__init__.py" for p in path.parents if (p / "__init__.py").is_file()]
            todo += [f for name in _imports(path) for f in _resolve(src, name)]
    return sorted(found)


def dependencies(root: Path, code: str) -> list[Path]:
    """Everything a notebook's results depend on, beside itself."""
    src = root / "src"
    used = modules(src, code)
    package_data = [p for p in _files(src) if p.suffix != ".py"] if used else []
    read = [p for p in _files(root / "book" / "data") if p.name in code or p.stem in code]
    bibliographies = [p for p in root.glob("book/*.bib") if p.name in code]
    pins = [p for p in [root / "constraints.txt"] if p.is_file()]
    return [*used, *package_data, *read, *bibliographies, *pins]


def content_hash(root: Path, code: str) -> str:
    digest = hashlib.sha256()
    for path in dependencies(root, code):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def marked(root: Path, text: str) -> tuple[str, list[Path]]:
    """The text of a notebook with the hash in it, and the files that the hash depends on."""
    notebook = json.loads(text)
    code = "\n".join(
        "".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"
    )
    kernel = notebook["metadata"].setdefault("kernelspec", {})
    kernel["depends_on"] = content_hash(root, code)
    return json.dumps(notebook), dependencies(root, code)


def mark(app, docname, source):
    """Write the hash into the notebook's text as it is read; the file is left alone."""
    if not str(app.env.doc2path(docname)).endswith(".ipynb"):
        return
    source[0], files = marked(Path(app.srcdir), source[0])
    for path in files:
        app.env.note_dependency(str(path))  # so that a build of changed pages sees it too


def setup(app):
    app.connect("source-read", mark)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
