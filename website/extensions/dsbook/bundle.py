"""One style sheet and one script for all pages, with only what the site uses.

The theme and the extensions bring a dozen style sheets, nine tenths of whose rules no page needs,
and as many scripts, most of which hold up the first paint. Once the pages are written they are
joined: ``_static/site.css`` is without the rules for classes and ids that occur neither in a page
nor in a script, without custom properties nobody reads, and has the few icons in use laid into
it; ``_static/site.js`` runs when the page has been parsed. Whatever is not named below stays a file
of its own, such as the script of an interactive figure or those of the search. (A part of
`finish`.)
"""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import posixpath
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import tinycss2
from fontTools import subset
from lxml.etree import ElementBase as Element
from lxml.html.builder import E
from sphinx.errors import ExtensionError

from dsbook.polish import remove

SHEETS = (  # in the order of the cascade; theme.css does nothing but import basic.css
    "styles/theme.css", "basic.css", "styles/pydata-sphinx-theme.css", "pygments.css",
    "styles/sphinx-book-theme.css", "togglebutton.css", "copybutton.css", "mystnb.*.css",
    "exercise.css", "sphinx-design.min.css", "katex/katex.min.css", "book.css", "labs.css",
)  # fmt: skip
SCRIPTS = (
    "doctools.js", "sphinx_highlight.js", "clipboard.min.js", "copybutton.js",
    "scripts/sphinx-book-theme.js", "togglebutton.js", "translations.js", "citethis.js",
    "print.js", "live.js", "copytex.js", "page.js", "scripts/pydata-sphinx-theme.js",
)  # fmt: skip
LAYOUT = '"complete"===document.readyState?I():window.addEventListener("load",I)'  # see page.js
OPTIONS = "documentation_options.js"  # a few constants, which scripts inside the pages add to
SHEET, SCRIPT = "site.css", "site.js"
READ = re.compile(r"var\(\s*(--[\w-]+)")
DECLARED = re.compile(r"(?<![\w-])(--[\w-]+)\s*:([^;{}]*)")

logging.getLogger("fontTools").setLevel(logging.WARNING)  # else a line for every table of a font


def words(text: str) -> set[str]:
    return set(re.findall(r"[\w-]+", text))


def names(page: Element) -> set[str]:
    """The classes and ids of a page, and the custom properties its own styles read."""
    named = " ".join(page.xpath("//@class | //@id"))
    styles = " ".join(page.xpath("//@style | //style/text()"))
    return set(named.split()) | set(READ.findall(styles))


def _selectors(prelude: list) -> Iterator[list]:
    part: list = []
    for token in prelude:
        if token == ",":
            yield part
            part = []
        else:
            part.append(token)
    yield part


def _occurs(selector: list, used: set[str]) -> bool:
    """Whether all its classes and ids are used; what stands in parentheses is not looked at."""
    before = None
    for token in selector:
        named = token.type == "hash" or (token.type == "ident" and before == ".")
        if named and token.value not in used:
            return False
        before = token
    return True


def _prune(rules: list, used: set[str], read: set[str] | None) -> Iterator[str]:
    for rule in rules:
        if rule.type == "qualified-rule":
            head = [
                tinycss2.serialize(s).strip() for s in _selectors(rule.prelude) if _occurs(s, used)
            ]
            body = [
                item.serialize()
                for item in tinycss2.parse_blocks_contents(rule.content, True, True)
                if item.type != "declaration"
                or not item.name.startswith("--")
                or read is None
                or item.name in read
            ]
            if head and body:
                yield f"{','.join(head)}{{{';'.join(body)}}}"
        elif rule.at_keyword in ("media", "supports"):
            inner = "".join(_prune(tinycss2.parse_rule_list(rule.content, True, True), used, read))
            if inner:
                yield f"@{rule.at_keyword}{tinycss2.serialize(rule.prelude)}{{{inner}}}"
        elif rule.at_keyword not in ("charset", "import"):
            yield rule.serialize()


def _kept(css: str, used: set[str], read: set[str] | None) -> str:
    rules = tinycss2.parse_stylesheet(css, skip_comments=True, skip_whitespace=True)
    return re.sub(r"\s+", " ", "".join(_prune(rules, used, read)))


def prune(css: str, used: set[str]) -> str:
    """The rules that can match something, and the custom properties that are read.

    >>> prune(".a, .b > i { top: var(--x); --y: 0 } @media print { .b { top: 0 } }", {"a"})
    '.a{top: var(--x)}'
    """
    css = _kept(css, used, None)
    read = used | set(READ.findall(DECLARED.sub("", css)))
    # what a property reads counts where the property does
    while (
        more := {
            name
            for declared, value in DECLARED.findall(css)
            if declared in read
            for name in READ.findall(value)
        }
        - read
    ):
        read |= more
    return _kept(css, used, read)


def read_sheet(static: Path, path: Path) -> str:
    """A style sheet with its addresses seen from ``_static``."""
    folder = path.parent.relative_to(static).as_posix()

    def moved(match: re.Match[str]) -> str:
        if match[1].startswith(("data:", "#")):
            return match[0]
        return f"url({posixpath.normpath(posixpath.join(folder, match[1]))})"

    return re.sub(r"url\(['\"]?([^)'\"]+)['\"]?\)", moved, path.read_text("utf8"))


def subset_font(path: Path, text: str) -> str:
    """The font with these characters only, as a data address; nothing when it has none of them."""
    options = subset.Options(flavor="woff", layout_features=[], notdef_outline=False)
    with subset.load_font(str(path), options) as font:
        if not font.getBestCmap().keys() & {ord(c) for c in text}:
            return ""
        cutter = subset.Subsetter(options)
        cutter.populate(text=text)
        cutter.subset(font)
        out = io.BytesIO()
        subset.save_font(font, out, options)
    return "data:font/woff;base64," + base64.b64encode(out.getvalue()).decode()


def with_icons(css: str, static: Path) -> str:
    """The icon fonts cut down to the characters that the style sheet asks for."""
    text = "".join(set(re.findall("[\ue000-\uf8ff]", css)))  # icons live in the private area

    def face(match: re.Match[str]) -> str:
        found = re.search(r"url\((vendor/fontawesome/[^)]+\.ttf)\)", match[0])
        if not found:
            return match[0]
        source = subset_font(static / found[1], text)
        return re.sub(r"src:[^;}]*", f"src:url({source})", match[0]) if source else ""

    return re.sub(r"@font-face\s*\{[^}]*\}", face, css)


def style_sheet(static: Path, used: set[str]) -> str:
    paths = [path for name in SHEETS for path in sorted(static.glob(name))]
    css = "".join(read_sheet(static, path) for path in paths)
    notices = re.findall(r"/\*!.*?\*/", css, re.DOTALL)
    return "\n".join([*notices, with_icons(prune(css, used), static)])


def script(static: Path) -> str:
    """The scripts behind one another; the first semicolon keeps them out of strict mode."""
    parts = [(static / name).read_text("utf8") for name in SCRIPTS if (static / name).is_file()]
    joined = ";" + re.sub(r"//# sourceMappingURL=.*", "", "\n;".join(parts))
    if joined.count(LAYOUT) != 1:
        raise ExtensionError("pydata-sphinx-theme.js has changed: adapt bundle.LAYOUT and page.js")
    return joined.replace(LAYOUT, "0")


@dataclass(frozen=True)
class Bundle:
    version: str
    options: str  # the script of a few constants, laid into each page


def link(page: Element, bundled: Bundle) -> None:
    """Put the two files in the place of the many; a script waits until the page is parsed."""
    seen = set()
    for element in page.xpath("//link[@href] | //script[@src]"):
        root, static, name = (element.get("href") or element.get("src")).partition("_static/")
        name = name.partition("?")[0]
        is_sheet = static and any(fnmatch(name, pattern) for pattern in (*SHEETS, SHEET))
        if static and name == OPTIONS:
            del element.attrib["src"]
            element.text = bundled.options
        if is_sheet or (static and name in (*SCRIPTS, SCRIPT)):
            if is_sheet in seen:
                remove(element)
                continue
            seen.add(is_sheet)
            address = f"{root}_static/{SHEET if is_sheet else SCRIPT}?v={bundled.version}"
            made = E.link(rel="stylesheet", href=address) if is_sheet else E.script(src=address)
            made.tail = element.tail
            element.getparent().replace(element, made)
            element = made
        if element.tag == "script" and "src" in element.attrib:
            element.set("defer", "")


def write(static: Path, pages: Iterable[Element]) -> Bundle:
    """Write the two files, from what the pages use."""
    js = script(static)
    scripts = [*static.glob("*.js"), *static.glob("labs/*.js")]
    own = "".join(path.read_text("utf8") for path in scripts)
    used = set().union(words(js), words(own), *map(names, pages))
    css = style_sheet(static, used)
    (static / SHEET).write_text(css, "utf8")
    (static / SCRIPT).write_text(js, "utf8")
    version = hashlib.sha256((css + js).encode()).hexdigest()[:8]
    return Bundle(version, (static / OPTIONS).read_text("utf8"))
