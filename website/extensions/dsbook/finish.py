"""The last step of a build: every page is parsed once, taken through `STEPS`, and written.

A step is a function of the page's tree and its path that mends in place. Then the style sheets and
scripts of all pages become one of each (`bundle`), and every page is linked to the two, also one
that an earlier build has finished.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from lxml import etree, html

from dsbook import bundle, darkfigures, licence, polish

STEPS = (
    darkfigures.pair,
    polish.drop,
    polish.menus,
    polish.label,
    polish.theme,
    polish.citations,
    polish.code,
    polish.lazy,
    licence.lines,
)
ANCHOR = re.compile(r"(?<= href=\"#)(?:[\w-]|%[89A-F][0-9A-F])+")  # lxml writes 式 as %E5%BC%8F


def parse(page: str) -> etree.ElementBase:
    return html.document_fromstring(page.encode(), parser=html.HTMLParser(encoding="utf8"))


def serialize(tree: etree.ElementBase) -> str:
    text = html.tostring(tree, encoding="unicode", doctype="<!DOCTYPE html>") + "\n"
    return ANCHOR.sub(lambda match: unquote(match[0]), text)


def finish(app, exception):
    if exception or app.builder.format != "html":
        return
    static = Path(app.outdir, "_static")
    polish.files(static)
    old = {path: path.read_text("utf8") for path in sorted(Path(app.outdir).rglob("*.html"))}
    # a page of the theme knows the way to the top of the site; a redirect is finished as it is
    pages = {path: parse(text) for path, text in old.items() if "data-content_root" in text}
    for path, page in pages.items():
        if f"_static/{bundle.SHEET}?" not in old[path]:  # else finished by an earlier build
            for step in STEPS:
                step(page, path)
    bundled = bundle.write(static, pages.values())
    for path, page in pages.items():
        bundle.link(page, bundled)
        if (new := serialize(page)) != old[path]:
            path.write_text(new, "utf8")


def setup(app):
    app.connect("html-page-context", polish.describe, priority=900)
    app.connect("build-finished", finish, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
