"""Addresses of pages that survive renames: ``id/<id>.html`` leads on to the page.

``book/permalinks.yml`` gives every page its id, and every former path (``moved``) the id of the
page that took its place. A page without an id, an id without a page, and a former path that is
still a page are warnings, so they fail the build. The pages that lead on are written by
sphinx-reredirects, from ``website/templates/redirect.html``. ``BOOK_URL``, when set, is the address
at which the book is served; it makes the addresses in citations absolute.
"""

from __future__ import annotations

import posixpath
from pathlib import Path

import yaml
from sphinx.util import logging

from dsbook.repo import address

log = logging.getLogger(__name__)
TEMPLATE = str(Path(__file__).parents[2] / "templates" / "redirect.html")


def load(srcdir) -> tuple[dict[str, str], dict[str, str]]:
    """(id → page, former path → id)."""
    data = yaml.safe_load(Path(srcdir, "book", "permalinks.yml").read_text("utf8"))
    return data["pages"], data.get("moved") or {}


def read(app, config):
    if url := address("BOOK_URL"):
        config.html_baseurl = f"{url}/"
    pages, moved = app.book_permalinks, app.book_moved = load(app.srcdir)
    jumps = {f"id/{id_}": page for id_, page in pages.items()}
    jumps |= {old: pages[id_] for old, id_ in moved.items() if id_ in pages}
    if config.root_doc != "index":  # in the place of the bare one of sphinx-external-toc
        jumps["index"] = config.root_doc
    config.redirects = {
        here: posixpath.relpath(page, posixpath.dirname(here)) + ".html"
        for here, page in jumps.items()
    }
    config.redirect_html_template_file = TEMPLATE


def check(app, env):
    place = {"location": "book/permalinks.yml", "type": "permalinks"}
    modules = {page for page in env.found_docs if page.startswith("src/")}  # named by their module
    for page in sorted(env.found_docs - modules - set(app.book_permalinks.values())):
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


def setup(app):
    app.setup_extension("sphinx_reredirects")
    app.connect("config-inited", read, priority=950)  # the root page is known
    app.connect("env-check-consistency", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
