"""The four sides of a section, 讲解 · 笔记本 · 代码 · 测试, under the title of each of them; and
the way to the next section beside the way to the next page, which is the section's notebook.

What belongs together has the same name: ``book/model/moe``, ``notebooks/moe``,
``src/dsnotes/model/moe.py`` and ``tests/model/test_moe.py``. A package is shown by its page of the
reference, its tests by the file of its traps. What a section was split into, ``fp8-accumulation``,
shares the rest with ``fp8``.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from dsbook import codelink, testlink

EXPLAINED, NOTEBOOK, CODE, TESTS = "讲解", "笔记本", "代码", "测试"


def _code(src: Path, room: str, name: str) -> tuple[str, list[str]]:
    """The page of the code of a section, and all pages that stand for its code."""
    library = src / "dsnotes"
    rooms = [library / room, *sorted(library.glob("*/")), library]  # a room may be the section
    for folder in rooms:
        module = (folder / name).relative_to(src).as_posix()
        if (folder / f"{name}.py").is_file():
            page = f"{codelink.PAGES}/{module}"
            return page, [page]
        if (folder / name / "__init__.py").is_file():
            files = sorted((folder / name).glob("*.py"))
            page = f"src/{module}/__init__"
            return page, [page, *(f"{codelink.PAGES}/{module}/{f.stem}" for f in files)]
    return "", []


def _tests(root: Path, name: str) -> tuple[str, list[str]]:
    """The same of its tests."""
    shown = testlink.files(root)
    own = [f for f in shown if f.stem == f"test_{name}" and f.parent.parent.name == testlink.TESTS]
    own = [f for f in own if Path(root, "src/dsnotes", f.parent.name).is_dir()]
    own += [f for f in shown if f.parent.name == name]
    own.sort(key=lambda f: f.stem != "test_traps")
    pages = [f"{codelink.PAGES}/{f.relative_to(root).with_suffix('').as_posix()}" for f in own]
    return (pages[0] if pages else ""), pages


def sides(root: Path, src: Path, docs: set[str]) -> dict[str, list[tuple[str, str, bool]]]:
    """Page → its tabs: label, page it leads to, is it the page itself."""
    found = {}
    sections: dict[str, list[str]] = {}
    for doc in sorted(docs):
        place, _, name = doc.rpartition("/")
        base = name.partition("-")[0]
        if place.startswith("book/") and f"notebooks/{base}" in docs:
            sections.setdefault(base, []).append(doc)
    for name, explained in sections.items():
        explained.sort(key=lambda doc: not doc.endswith(f"/{name}"))
        code, codes = _code(src, explained[0].split("/")[1], name)
        test, tests = _tests(root, name)
        kinds = [
            (EXPLAINED, explained[0], explained),
            (NOTEBOOK, f"notebooks/{name}", [f"notebooks/{name}"]),
            (CODE, code, codes),
            (TESTS, test, tests),
        ]
        kinds = [kind for kind in kinds if kind[1]]
        for _, _, pages in kinds:
            for page in pages:
                found[page] = [(label, first, page in own) for label, first, own in kinds]
    return found


def tabs(builder, page: str, entries: list[tuple[str, str, bool]]) -> str:
    links = []
    for label, target, here in entries:
        current = ' aria-current="page"' if here else ""
        address = builder.get_relative_uri(page, page if here else target)
        links.append(f'<a href="{escape(address or "#")}"{current}>{label}</a>')
    return f'\n<nav class="sides" aria-label="本节的四面">{" ".join(links)}</nav>'


def add(app, pagename, templatename, context, doctree):
    if app.builder.name != "html" or "body" not in context:
        return
    if not hasattr(app.builder, "book_sides"):
        src = Path(app.srcdir, app.config.codelink_src)
        app.builder.book_sides = sides(Path(app.srcdir), src, app.env.found_docs)
    if pagename in app.builder.book_sides:
        nav = tabs(app.builder, pagename, app.builder.book_sides[pagename])
        context["body"] = context["body"].replace("</h1>", f"</h1>{nav}", 1)
    following = app.builder.relations.get(pagename, [None] * 3)[2]
    if not (pagename.startswith("book/") and following and following.startswith("notebooks/")):
        return
    while following and following.startswith("notebooks/"):
        following = app.builder.relations[following][2]
    if following:
        context["next_section"] = {
            "link": app.builder.get_relative_uri(pagename, following),
            "title": app.builder.render_partial(app.env.titles[following])["title"],
        }


def setup(app):
    app.setup_extension("dsbook.testlink")
    app.connect("html-page-context", add)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
