"""A door for readers of English: title, abstract and captions of every page, folded at its end.

All of it stands in one file, ``book/data/english.yml``::

    book/model/moe:
      title: Mixture of experts (MoE)
      abstract: Three to five sentences.
      captions:
        fig-moe-idea: Routing of one token. The bars are affinities $s$.

Captions are called by the label of the figure or table; in a text stand only formulas in dollars
and `code`. At the end of the file, under ``translated``, is a hash of the Chinese that each text
translates: ``python website/english.py`` names what is missing or has changed since, and after the
text was looked at, ``--stamp`` writes the hashes anew (`Door`).

The fold is the last of its page, in Chinese pages nothing else is added; the search finds its words
(zhsearch.py). ``{english}`` lists all pages with their abstracts.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective

DATA = "book/data/english.yml"
ANCHOR = "in-english"
SUMMARY = "In English"
CLASS = "language-en"  # docutils makes lang="en" of it
PARTS = {
    "开篇": "Opening",
    "预备知识": "Prerequisites",
    "正文": "Main text",
    "教学": "Teaching",
    "附录": "Appendix",
    "接口": "API",
}
IN_ARGUMENT = ("table", "list-table", "csv-table")  # caption in the line of the directive
KINDS = "|".join((*IN_ARGUMENT, "figure", "nbfigure", "lab", "datatable"))
OPEN = re.compile(rf"\s*(:{{3,}}|`{{3,}})\{{({KINDS})\}}\s*(.*)")
OPTION = re.compile(r"\s*:([a-z-]+):\s*(.*)")
INLINE = re.compile(r"\$([^$]+)\$|`([^`]+)`")


def labelled(text: str) -> dict[str, str]:
    """The labelled figures and tables of a page, and the Chinese caption of each.

    >>> labelled(":::{table} 四种取法\\n:name: tab-x\\n\\n| a |\\n:::")
    {'tab-x': '四种取法'}
    >>> labelled("```{figure} a.svg\\n:name: fig-x\\n:alt: 图\\n\\n图题\\n在此。\\n\\n说明。\\n```")
    {'fig-x': '图题 在此。'}
    """
    found, lines = {}, text.split("\n")
    for i, line in enumerate(lines):
        if not (opened := OPEN.match(line)):
            continue
        fence, kind, argument = opened.groups()
        options, caption = {}, []
        for inside in lines[i + 1 :]:
            if inside.strip() == fence or (caption and not inside.strip()):
                break
            if not caption and (option := OPTION.match(inside)):
                options[option[1]] = option[2]
            elif inside.strip():
                caption.append(inside.strip())
        if name := options.get("name"):
            found[name] = argument if kind in IN_ARGUMENT else " ".join(caption)
    return found


def heading(path: Path) -> str:
    """The title of a page, with the description that it gives of itself."""
    text = path.read_text("utf8")
    if path.suffix == ".ipynb":
        cells = (c for c in json.loads(text)["cells"] if c["cell_type"] == "markdown")
        text = "".join(next(cells)["source"])
    title = re.search(r"^# (.+)$", text, re.MULTILINE)
    about = re.search(r"^\s+description: (.+)$", text, re.MULTILINE)
    return "\n".join(found[1].strip() for found in (title, about) if found)


def chapters(toc: dict[str, Any]) -> list[tuple[str, list[tuple[int, str]]]]:
    """Parts of ``_toc.yml`` and their pages with the level of each; not the pages of source code,
    which are in English."""
    parts = [("", [(0, toc["root"])])]

    def walk(entries: list[dict[str, Any]], level: int) -> list[tuple[int, str]]:
        pages = []
        for entry in entries:
            if not entry.get("file", "src/").startswith("src/"):
                pages += [(level, entry["file"]), *walk(entry.get("sections", []), level + 1)]
        return pages

    parts += [(part["caption"], walk(part["chapters"], 0)) for part in toc["parts"]]
    return parts


def stamp(text: str) -> str:
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()[:8]


class Door:
    """What is translated and what there is to translate, of a book in `root`."""

    def __init__(self, root: Path) -> None:
        self.path = root / DATA
        data = yaml.safe_load(self.path.read_text("utf8"))
        self.stamps: dict[str, str] = data.pop("translated", None) or {}
        self.pages: dict[str, dict[str, Any]] = data
        toc = yaml.safe_load((root / "_toc.yml").read_text("utf8"))
        self.sources: dict[str, str] = {}  # page or label → Chinese
        self.labels: dict[str, list[str]] = {}  # page → its labels
        for doc in (doc for _, pages in chapters(toc) for _, doc in pages):
            path = next(p for end in (".md", ".ipynb") if (p := root / f"{doc}{end}").is_file())
            captions = labelled(path.read_text("utf8")) if path.suffix == ".md" else {}
            self.sources |= {doc: heading(path), **captions}
            self.labels[doc] = list(captions)

    def complaints(self) -> list[str]:
        """What is missing, belongs to nothing, or translates a text that has changed."""
        found = [f"{doc}: no such page" for doc in self.pages.keys() - self.labels.keys()]
        for doc, labels in self.labels.items():
            entry = self.pages.get(doc, {})
            found += [f"{doc}: no {key}" for key in ("title", "abstract") if not entry.get(key)]
            captions = entry.get("captions") or {}
            found += [f"{doc}: no caption for {label}" for label in labels if label not in captions]
            found += [f"{doc}: no label {label}" for label in captions if label not in labels]
        for key, chinese in self.sources.items():
            if self.stamps.get(key) != stamp(chinese):
                found.append(f"{key}: the Chinese has changed, see whether the English still fits")
        return found

    def write_stamps(self) -> None:
        written, _, _ = self.path.read_text("utf8").partition("\ntranslated:")
        rows = "".join(f"  {key}: '{stamp(text)}'\n" for key, text in self.sources.items())
        self.path.write_text(f"{written.rstrip()}\n\ntranslated:\n{rows}", "utf8")


def inline(text: str) -> list[nodes.Node]:
    """A text with formulas and code.

    >>> [node.astext() for node in inline("with $k$ of `n`")]
    ['with ', 'k', ' of ', 'n']
    """
    made: list[nodes.Node] = []
    end = 0
    for match in INLINE.finditer(text):
        tex, code = match.groups()
        made.append(nodes.Text(text[end : match.start()]))
        made.append(nodes.math(tex, tex) if tex else nodes.literal(code, code))
        end = match.end()
    made.append(nodes.Text(text[end:]))
    return [node for node in made if node.astext()]


class english(nodes.General, nodes.Element):
    """The fold at the end of a page; `title` is the title in English."""


def number_of(label: str, doc: str) -> addnodes.pending_xref:
    """“Figure 1.2”, which leads to it."""
    word = "Table" if label.startswith("tab-") else "Figure"
    link = addnodes.pending_xref(
        "", refdomain="std", reftype="numref", reftarget=label, refexplicit=True, refdoc=doc
    )
    link["refwarn"] = True
    link += nodes.inline("", f"{word} %s", classes=["std", "std-numref"])
    return link


def fold(entry: dict[str, Any], doc: str) -> english:
    made = english("", title=entry["title"], ids=[ANCHOR], classes=[CLASS])
    title = nodes.strong("", entry["title"])
    made += nodes.paragraph("", "", title, nodes.Text(". "), *inline(entry["abstract"]))
    if captions := entry.get("captions"):
        items = (
            nodes.list_item(
                "", nodes.paragraph("", "", number_of(label, doc), nodes.Text(". "), *inline(text))
            )
            for label, text in captions.items()
        )
        made += nodes.bullet_list("", *items)
    return made


def add_fold(app, doctree) -> None:
    doc = app.env.docname
    path = Path(app.srcdir) / DATA
    section = doctree.next_node(nodes.section)
    if not path.is_file() or section is None:
        return
    data = getattr(app, "english_pages", None)
    if data is None:
        data = app.english_pages = yaml.safe_load(path.read_text("utf8"))
    if next(doctree.findall(whole_list), None):
        section["classes"].append(CLASS)
    elif entry := data.get(doc):
        app.env.note_dependency(str(path))
        section += fold(entry, doc)


class whole_list(nodes.General, nodes.Element):
    """All pages with their abstracts."""


class English(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        root = Path(self.env.srcdir)
        for name in (DATA, "_toc.yml"):
            self.env.note_dependency(str(root / name))
        data = yaml.safe_load((root / DATA).read_text("utf8"))
        toc = yaml.safe_load((root / "_toc.yml").read_text("utf8"))
        made = whole_list()
        for caption, pages in chapters(toc):
            listed = [doc for _, doc in pages if doc in data and doc != self.env.docname]
            if caption and listed:
                made += nodes.rubric("", PARTS[caption])
            made += nodes.definition_list("", *(self.item(doc, data[doc]) for doc in listed))
        return [made]

    def item(self, doc: str, entry: dict[str, Any]) -> nodes.definition_list_item:
        link = nodes.reference("", entry["title"], internal=True, refuri="", to_english=doc)
        term = nodes.term("", "", link)
        text = nodes.definition("", nodes.paragraph("", "", *inline(entry["abstract"])))
        return nodes.definition_list_item("", term, text)


def lead(app, doctree, docname) -> None:
    """The addresses of the list lead to the fold of each page."""
    for link in doctree.findall(lambda n: isinstance(n, nodes.reference) and "to_english" in n):
        uri = app.builder.get_relative_uri(docname, link["to_english"])
        link["refuri"] = f"{uri}#{ANCHOR}"


def visit_html(self, node):
    self.body.append(self.starttag(node, "details", CLASS="fold english"))
    self.body.append(f"<summary>{SUMMARY}</summary>\n")


def depart_html(self, node):
    self.body.append("</details>\n")


def visit_list(self, node):
    """Only holds its children."""


def skip(self, node):
    raise nodes.SkipNode


def setup(app):
    app.add_node(english, html=(visit_html, depart_html), latex=(skip, None), text=(skip, None))
    plain = (visit_list, visit_list)
    app.add_node(whole_list, html=plain, latex=plain, text=plain)
    app.add_directive("english", English)
    app.connect("doctree-read", add_fold, priority=450)  # behind the folds of folds.py
    app.connect("doctree-resolved", lead)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "env_version": 1}
