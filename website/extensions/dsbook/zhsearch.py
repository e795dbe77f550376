"""Search that finds Chinese words inside a sentence, without a word list and without a server.

Sphinx's own index cuts the pages into the words of a dictionary, and asks that a page hold every
piece of a query. Here the text of every section goes into one script, ``searchdata.js``, and
``website/assets/search.js`` reads through it: a book is small enough that no index is needed
(``test_search.py`` of the browser tests holds it to 200 ms), and whatever stands in the text can be
found. A script instead of a request, so that searching also works in a book opened from a folder.

The script also holds the traditional form of every character of the book (OpenCC's table), so that
a query in traditional characters finds the simplified text.
"""

from __future__ import annotations

import json
import re
import unicodedata
from importlib import resources
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes

from dsbook import english, figuretext

DATA = "searchdata.js"
BEFORE = "var searchData = "
FOLD = "\nvar searchFold = "
# Where a mechanism is explained comes first: not its exercises, its errors, or what sums it up.
WEIGHT = {
    "book/appendix/glossary": 0.3,
    "book/appendix/notation": 0.2,
    "book/appendix/yarn": 1.0,  # explains
    "book/appendix": 0.15,
    "book/course": 0.05,  # asks and plans, explains nothing
    "book/index": 0.6,
    "book/papers": 0.6,
    # prerequisites, which are pages of their own
    "notebooks/floats": 0.7,
    "notebooks/pipelines": 0.7,
    "notebooks/policy_gradient": 0.7,
    "notebooks/rope_cache": 0.7,
    "notebooks": 0.4,
    "src": 0.1,
}
KINDS = {
    "动手": 0.4,
    "练习": 0.4,
    "常见错误": 0.4,
    "小结": 0.5,
    "对照": 0.5,
    "实验": 0.45,
    "参考文献": 0.1,
    "引用": 0.3,
    english.SUMMARY: 0.3,
}
SIGNS = {"times": "×", "cdot": "·", "to": "→", "le": "≤", "ge": "≥", "approx": "≈", "sum": "Σ"}
# Unicode writes LAMDA, and has other names for the second forms
GREEK = {
    "lambda": "λ",
    "Lambda": "Λ",
    "varepsilon": "ε",
    "vartheta": "θ",
    "varphi": "φ",
    "varrho": "ρ",
}
WORD = re.compile(r"\w{2,}|[Α-Ωα-ω]")  # a Greek letter is looked for by itself
SKIPPED = (
    nodes.citation,
    nodes.Invisible,
    nodes.raw,
    nodes.system_message,
    addnodes.toctree,
    english.english,  # a section by itself
    figuretext.figuretext,
)
LOOK = re.compile(
    r"\\(?:math(?:bf|rm|cal|bb|sf)|text(?:bf|rm|tt)?|operatorname\*?|vect|bm|left|right|big+[lrg]?|"
    r"displaystyle|tag\s*\{\d+\}|label\s*\{[^}]*\}|quad|qquad|s[abcd])(?![a-zA-Z])"
)


def plain_tex(tex: str) -> str:
    r"""A formula as one would type it to look for it.

    >>> plain_tex(r"\mathbf{c}_{t}^{KV} = \softmax(\alpha\,x)")
    'c_t^KV = softmax(α x)'
    """

    def letter(match: re.Match[str]) -> str:
        if known := SIGNS.get(match[1]) or GREEK.get(match[1]):
            return known
        case = "CAPITAL" if match[1][0].isupper() else "SMALL"
        try:
            return unicodedata.lookup(f"GREEK {case} LETTER {match[1].upper()}")
        except KeyError:
            return match[1]

    spaced = re.sub(r"\\[,;:! ]", " ", tex)
    text = re.sub(r"\\([a-zA-Z]+)", letter, LOOK.sub("", spaced))
    return " ".join(re.sub(r"[{}\\&$]", "", text).split())


def plain(node: nodes.Node) -> str:
    """The text of a paragraph, formulas as `plain_tex`."""
    if isinstance(node, nodes.math):
        return plain_tex(node.astext())
    if isinstance(node, nodes.Text):
        return node.astext()
    return "".join(plain(child) for child in node.children if not isinstance(child, SKIPPED))


def sections(document: nodes.document) -> list[dict[str, Any]]:
    """Every section: title, anchor, its own text (without sections inside), terms that it defines,
    code and formulas. The English of a page is a section as well."""
    found = []
    for section in filter(_is_section, document.findall(nodes.Element)):
        parts: dict[str, list[str]] = {"text": [], "terms": [], "code": []}
        _collect(section, parts)
        in_english = isinstance(section, english.english)
        title = f"{english.SUMMARY}: {section['title']}" if in_english else plain(section[0])
        found.append(
            {
                "title": " ".join(title.split()),
                "anchor": f"#{section['ids'][0]}" if found else "",  # the first is the page
                "text": " ".join(" ".join(parts["text"]).split()),
                "terms": parts["terms"],
                # each word once: code is found by its names, and would be most of the data
                "code": " ".join(dict.fromkeys(WORD.findall(" ".join(parts["code"])))),
            }
        )
    return found


def _is_section(node: nodes.Node) -> bool:
    """The body of an exercise is a section as well, but without a title: part of what is around."""
    titled = isinstance(node, nodes.section) and isinstance(node[0], nodes.title)
    return titled or isinstance(node, english.english)


def _collect(node: nodes.Element, parts: dict[str, list[str]]) -> None:
    for child in node.children:
        if _is_section(child) or isinstance(child, (nodes.title, *SKIPPED)):
            continue
        if "cite-this" in getattr(child, "attributes", {}).get("classes", []):
            continue
        if isinstance(child, nodes.literal_block):
            parts["code"].append(child.astext())
        elif isinstance(child, nodes.math_block):
            parts["code"].append(plain_tex(child.astext()))
        elif isinstance(child, nodes.TextElement):
            parts["text"].append(plain(child))
            parts["terms"] += defined(child)
        elif isinstance(child, nodes.Element):
            _collect(child, parts)


def defined(paragraph: nodes.TextElement) -> list[str]:
    """The terms in bold, as the book sets them where it defines them.

    What a paragraph begins with is its heading.
    """
    children = paragraph.children
    return [
        plain(child)
        for i, child in enumerate(children)
        if isinstance(child, nodes.strong) and any(plain(before) for before in children[:i])
    ]


def script(pages: dict[str, list[dict[str, Any]]]) -> str:
    """What the search page loads: every section of every page."""
    entries = [
        {"doc": doc, "page": page[0]["title"], "weight": weight(doc, section["title"]), **section}
        for doc, page in sorted(pages.items())
        for section in page
    ]
    data = json.dumps(entries, ensure_ascii=False, separators=(",", ":"))
    return f"{BEFORE}{data};{FOLD}{json.dumps(traditional(data), ensure_ascii=False)};"


def read(text: str) -> list[dict[str, Any]]:
    """The sections in what `script` has written."""
    return json.loads(text.removeprefix(BEFORE).partition(";" + FOLD)[0])


def weight(doc: str, title: str) -> float:
    """What a hit in a section is worth, by the page and the kind of the section.

    >>> weight("book/model/moe", "练习") < weight("book/model/moe", "V3 的路由")
    True
    """
    place = next((value for start, value in WEIGHT.items() if doc.startswith(start)), 1.0)
    return place * next((value for word, value in KINDS.items() if word in title), 1.0)


def traditional(text: str) -> tuple[str, str]:
    """Traditional characters and, place by place, the simplified ones of the text they stand for.

    >>> traditional("奖")
    ('奬獎', '奖奖')
    """
    table = resources.files("opencc") / "dictionary" / "TSCharacters.txt"
    there, pairs = set(text), {}
    for line in table.read_text("utf8").splitlines():
        old, _, new = line.partition("\t")
        if len(old) == 1 and ord(old) < 0x10000 and old != new[:1] and new[:1] in there:
            pairs[old] = new[0]
    return "".join(pairs), "".join(pairs.values())


def begin(app) -> None:
    """Sphinx's index is not built; its search page becomes ours."""
    if app.builder.format == "html":
        app.builder.search = False
        app.builder.searched = {}


def collect(app, pagename, templatename, context, doctree) -> None:
    if doctree is not None and (found := sections(doctree)):
        app.builder.searched[pagename] = found


def search_page(app):
    about = "在全书的正文、笔记本、代码与公式里搜索，边输边出结果。"
    metatags = f'<meta name="description" content="{about}">'
    yield "search", {"title": "搜索", "metatags": metatags}, "search.html"


def finish(app, exception) -> None:
    """Pages that were not written again keep their entries."""
    if exception or app.builder.format != "html":
        return
    path = Path(app.outdir, DATA)
    pages: dict[str, list[dict[str, Any]]] = {}
    if path.is_file():
        kept = app.env.found_docs - app.builder.searched.keys()
        for entry in read(path.read_text("utf8")):
            if entry["doc"] in kept:
                section = {key: entry[key] for key in ("title", "anchor", "text", "terms", "code")}
                pages.setdefault(entry["doc"], []).append(section)
    pages |= app.builder.searched
    path.write_text(script(pages), "utf8")


def setup(app):
    app.connect("builder-inited", begin)
    app.connect("html-page-context", collect)
    app.connect("html-collect-pages", search_page)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": False}
