"""Addresses of pages that survive renames: ``id/<id>.html`` leads on to the page.

``book/permalinks.yml`` gives every page its id, and every former path (``moved``) the id of the
page that took its place. A page without an id, an id without a page, and a former path that is
still a page are warnings, so they fail the build. ``BOOK_URL``, when set, is the address at which
the book is served; it makes the links absolute.
"""

from __future__ import annotations

import html
import json
import os
import posixpath
from pathlib import Path

import yaml
from sphinx.util import logging

log = logging.getLogger(__name__)

PAGE = """<!doctype html>
<html lang="zh-CN">
<head>
<meta charset="utf-8">
<title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="description" content="固定链接，指向“{title}”现在的位置。">
<meta http-equiv="refresh" content="0; url={target}">
<link rel="canonical" href="{canonical}">
<script>if (location.hash) location.replace({script} + location.hash);</script>
</head>
<body><main><h1>{title}</h1><p>本页现在的位置：<a href="{target}">{title}</a></p></main></body>
</html>
"""


def load(srcdir) -> tuple[dict[str, str], dict[str, str]]:
    """(id → page, former path → id)."""
    data = yaml.safe_load(Path(srcdir, "book", "permalinks.yml").read_text("utf8"))
    return data["pages"], data.get("moved") or {}


def read(app, config):
    config.html_baseurl = os.environ.get("BOOK_URL", config.html_baseurl or "")
    if config.html_baseurl and not config.html_baseurl.endswith("/"):
        config.html_baseurl += "/"
    app.book_permalinks, app.book_moved = load(app.srcdir)


def check(app, env):
    place = {"location": "book/permalinks.yml", "type": "permalinks"}
    for page in sorted(env.found_docs - set(app.book_permalinks.values())):
        log.warning("the page %s has no permalink", page, **place)
    for id_, page in app.book_permalinks.items():
        if page not in env.found_docs:
            log.warning("permalink %s: there is no page %s", id_, page, **place)
    if len(set(app.book_permalinks.values())) < len(app.book_permalinks):
        log.warning("two permalinks lead to one page", **place)
    for old, id_ in app.book_moved.items():
        if id_ not in app.book_permalinks:
            log.warning("moved page %s: there is no permalink %s", old, id_, **place)
        if old in env.found_docs:
            log.warning("moved page %s: there is a page at its old path", old, **place)


def write(app, exception):
    if exception or app.builder.format != "html":
        return
    jumps = {f"id/{id_}": page for id_, page in app.book_permalinks.items()}
    jumps |= {old: app.book_permalinks.get(id_, "") for old, id_ in app.book_moved.items()}
    if app.config.root_doc != "index":  # in the place of the bare one of sphinx-external-toc
        jumps["index"] = app.config.root_doc
    for here, page in jumps.items():
        if page not in app.env.titles:
            continue
        path = Path(app.outdir, here + ".html")
        path.parent.mkdir(parents=True, exist_ok=True)
        target = posixpath.relpath(page, posixpath.dirname(here)) + ".html"
        text = PAGE.format(
            title=html.escape(app.env.titles[page].astext()),
            target=html.escape(target),
            script=json.dumps(target),  # a refresh forgets what stands behind the #
            canonical=html.escape(
                app.config.html_baseurl + page + ".html" if app.config.html_baseurl else target
            ),
        )
        path.write_text(text, "utf8")


def setup(app):
    app.connect("config-inited", read, priority=2)
    app.connect("env-check-consistency", check)
    app.connect("build-finished", write, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
