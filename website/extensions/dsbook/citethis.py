"""Every page says how it is cited: GB/T 7714 of 2025 and of 2015, BibTeX, APA and RIS.

``{cite-this}`` puts the citations of its page where it stands: the standard in force in sight, the
others folded; ``{cite-this} book`` puts those of the whole book. A page without the directive gets
all of them, folded, at its end. Title and date come from the page and from ``CITATION.cff``, the
link from ``book/permalinks.yml``; each text has the copy button of every code
block. Where the address is not known at build time (no ``BOOK_URL``), and for the day of reading, a
placeholder stands, which ``citethis.js`` fills in.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml
from docutils import nodes
from pybtex.database import Person
from sphinx.util.docutils import SphinxDirective

from dsbook.gbt7714 import fullwidth, people

ADDRESS, TODAY = "网址", "访问日期"


@dataclass(frozen=True)
class Work:
    """A page of the book, or (title equal to book) the book itself."""

    title: str
    book: str
    authors: tuple[Person, ...]
    version: str
    date: str  # ISO
    id: str
    url: str = ADDRESS

    @property
    def is_book(self) -> bool:
        return self.title == self.book


def gbt7714(work: Work, edition: int = 2025) -> str:
    """Numbered style; the 2025 edition sets a Chinese entry with full-width punctuation."""
    title = f"{work.title}[EB/OL]" + ("" if work.is_book else f"//{work.book}")
    when = f". 版本 {work.version}. ({work.date})"
    if edition >= 2025:
        when = fullwidth(when)
    return f"{people(work.authors, True)}. {title}{when}[{TODAY}]. {work.url}."


def _name(person: Person) -> tuple[str, str]:
    """(family or corporate name, given names), without the braces of BibTeX."""
    given = " ".join(person.first_names + person.middle_names)
    return " ".join(person.prelast_names + person.last_names).strip("{}"), given


def bibtex(work: Work) -> str:
    authors = " and ".join(
        f"{last}, {given}" if given else "{" + last + "}"
        for last, given in map(_name, work.authors)
    )
    key, kind = ("dsnotes", "misc") if work.is_book else (f"dsnotes-{work.id}", "incollection")
    fields = {
        "author": authors,
        "title": "{" + work.title + "}",
        **({} if work.is_book else {"booktitle": "{" + work.book + "}"}),
        "year": work.date[:4],
        "url": work.url,
        "note": f"版本 {work.version}，{work.date}，访问于 {TODAY}",
    }
    return "\n".join(
        [f"@{kind}{{{key},", *(f"  {k:<9} = {{{v}}}," for k, v in fields.items()), "}"]
    )


def apa(work: Work) -> str:
    """Seventh edition; Chinese names and corporate authors as they are."""
    names = [
        f"{last}, {' '.join(n[0] + '.' for n in given.split())}"
        if given.isascii() and given
        else last + given
        for last, given in map(_name, work.authors)
    ]
    who = names[0] if len(names) == 1 else ", ".join(names[:-1]) + ", & " + names[-1]
    who += "" if who.endswith(".") else "."
    where = work.title if work.is_book else f"{work.title}. In {work.book}"
    return f"{who} ({work.date[:4]}). {where} (Version {work.version}). {work.url}"


def ris(work: Work) -> str:
    rows = [("TY", "BOOK" if work.is_book else "CHAP")]
    rows += [("AU", ", ".join(filter(None, _name(p)))) for p in work.authors]
    rows += [("TI", work.title)]
    rows += [] if work.is_book else [("T2", work.book)]
    rows += [("PY", work.date[:4]), ("DA", work.date.replace("-", "/")), ("ET", work.version)]
    rows += [("UR", work.url), ("LA", "zh"), ("ER", "")]
    return "\n".join(f"{tag}  - {value}" for tag, value in rows)


FORMATS = (
    ("GB/T 7714—2025", "text", gbt7714),
    ("GB/T 7714—2015", "text", lambda work: gbt7714(work, 2015)),
    ("BibTeX", "bibtex", bibtex),
    ("APA", "text", apa),
    ("RIS", "text", ris),
)


def author(entry: dict) -> Person:
    """An author of CITATION.cff: a person, or an entity, whose name is kept whole."""
    if "name" in entry:
        return Person("{" + entry["name"] + "}")
    return Person(first=entry.get("given-names", ""), last=entry["family-names"])


def work_of(app, docname: str, title: str) -> Work:
    cff = yaml.safe_load(Path(app.srcdir, "CITATION.cff").read_text("utf8"))
    ids = {page: id_ for id_, page in app.book_permalinks.items()}
    root = docname == app.config.root_doc
    id_ = ids.get(docname, "")
    base = app.config.html_baseurl
    return Work(
        title=cff["title"] if root else title,
        book=cff["title"],
        authors=tuple(map(author, cff["authors"])),
        version=str(cff["version"]),
        date=str(cff["date-released"]),
        id=id_,
        url=f"{base}id/{id_}.html" if base else ADDRESS,
    )


def blocks(work: Work, formats=FORMATS) -> list[nodes.Node]:
    made: list[nodes.Node] = []
    for name, language, write in formats:
        text = write(work)
        code = nodes.literal_block(text, text, language=language, classes=["citation-text"])
        made += [nodes.paragraph("", "", nodes.strong("", name)), code]
    return made


class cite_this(nodes.General, nodes.Element):
    """Stands for the citations until the title of the page is known."""


class CiteThis(SphinxDirective):
    optional_arguments = 1  # book: the whole book instead of this page

    def run(self):
        if self.arguments not in ([], ["book"]):
            raise self.error(f"cite-this takes nothing or 'book', not {self.arguments[0]!r}")
        return [cite_this(book=bool(self.arguments))]


def _box(work: Work, *children: nodes.Node) -> nodes.container:
    return nodes.container("", *children, classes=["cite-this", f"id-{work.id}"])


def fill(app, doctree):
    docname = app.env.docname
    heading = next(iter(doctree.findall(nodes.title)), None)
    marks = list(doctree.findall(cite_this))
    if heading is None or not (marks or docname in app.book_permalinks.values()):
        return  # a page of the reference is named by its module
    work = work_of(app, docname, heading.astext())
    for mark in marks:
        work = work_of(app, app.config.root_doc if mark["book"] else docname, heading.astext())
        other = nodes.admonition(
            "", nodes.title("", "其他格式"), *blocks(work, FORMATS[1:]), classes=["dropdown"]
        )
        mark.replace_self(_box(work, *blocks(work, FORMATS[:1]), other))
    if not marks:
        fold = nodes.admonition(
            "", nodes.title("", "引用本页"), *blocks(work), classes=["dropdown"]
        )
        next(iter(doctree.findall(nodes.section))).append(_box(work, fold))


def setup(app):
    app.setup_extension("dsbook.permalinks")
    app.add_node(cite_this)
    app.add_directive("cite-this", CiteThis)
    app.connect("doctree-read", fill)
    app.add_js_file("citethis.js", loading_method="defer")
    return {"parallel_read_safe": True, "parallel_write_safe": True, "env_version": 1}
