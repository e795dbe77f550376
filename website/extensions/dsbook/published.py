"""What a book with an address has and a folder of pages has not; all of it comes from ``BOOK_URL``.

Every page gets the Open Graph card with its picture (``website/card.png``) and JSON-LD: a Book on
the home page, a Chapter on each other page of the book, about the papers (ScholarlyArticle) that
``book/data/papers.yml`` says it uses. Sphinx writes the canonical link. Beside the pages lie
``sitemap.xml``, ``robots.txt``, ``llms.txt``, ``404.html`` and ``feed.xml``, an Atom feed of the
versions in ``CHANGELOG.md`` and the corrections in ``book/course/errata.md``, where there is one.

``BOOK_COMMENTS=utterances`` (with a ``BOOK_REPO_URL`` on GitHub) or ``hypothesis`` adds comments,
which are loaded from there. Without ``BOOK_URL`` there is nothing of all this.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from lxml import etree
from lxml.builder import ElementMaker
from pybtex.database import parse_file
from sphinx.errors import ConfigError, ExtensionError

from dsbook import finish
from dsbook.citethis import author
from dsbook.gbt7714 import plain
from dsbook.papers import month

CARD = Path(__file__).parents[2] / "card.png"
SIZE = (1200, 630)
LICENSE = "https://creativecommons.org/licenses/by/4.0/"
MADE = ("sitemap.xml", "robots.txt", "llms.txt", "404.html", "feed.xml", "_static/card.png")
DESCRIPTION = re.compile(r"<meta (?=[^>]*name=\"description\")[^>]*content=\"([^\"]*)\"")
LOST = (
    "<h1>没有这一页</h1><p>地址也许写错了，也许这一页搬走了。"
    '可以从<a href="{home}">首页</a>找起，或者用<a href="search.html">搜索</a>。</p>'
)
ATOM = "http://www.w3.org/2005/Atom"
SITEMAP = "http://www.sitemaps.org/schemas/sitemap/0.9"


def base(app) -> str:
    """The address of the book with a slash at its end, or ""."""
    return app.config.html_baseurl or ""


def citation(app) -> dict:
    return yaml.safe_load(Path(app.srcdir, "CITATION.cff").read_text("utf8"))


# --- on a page ---


def who(person) -> dict:
    last = " ".join(person.prelast_names + person.last_names).strip("{}")
    given = " ".join(person.first_names + person.middle_names)
    name = f"{given} {last}" if given.isascii() else last + given
    return {"@type": "Person" if given else "Organization", "name": name.strip()}


def papers_of(app) -> dict[str, list[dict]]:
    """The papers that a page uses, by the last part of its name."""
    listed = Path(app.srcdir, "book", "data", "papers.yml")
    uses: dict[str, list[dict]] = {}
    if not listed.is_file():
        return uses
    entries: dict = {}
    for bib in app.config.bibtex_bibfiles:
        entries |= parse_file(str(Path(app.srcdir, bib)), bib_format="bibtex").entries
    for row in yaml.safe_load(listed.read_text("utf8")):
        entry = entries[row["key"]]
        people = [who(p) for p in entry.persons.get("author", ()) if str(p) != "others"]
        article = {
            "@type": "ScholarlyArticle",
            "name": plain(entry.fields["title"]),
            "author": people,
            "datePublished": month(row, entry) if len(month(row, entry)) > 4 else "",
            "url": entry.fields.get("url", ""),
        }
        for page in row["used_in"]:
            uses.setdefault(page, []).append({k: v for k, v in article.items() if v})
    return uses


def linked_data(app, page: str, title: str, description: str) -> dict:
    cff = citation(app)
    home = f"{base(app)}{app.config.root_doc}.html"
    authors = [who(author(a)) for a in cff["authors"]]
    book = {
        "@type": "Book",
        "@id": home,
        "name": cff["title"],
        "url": home,
        "author": authors,
        "inLanguage": "zh-CN",
    }
    about = {
        "description": description,
        "image": f"{base(app)}_static/card.png",
        "license": LICENSE,
        "datePublished": str(cff["date-released"]),
    }
    if page == app.config.root_doc:
        return {"@context": "https://schema.org", **book, "version": str(cff["version"]), **about}
    chapter = {
        "@context": "https://schema.org",
        "@type": "Chapter",
        "name": title,
        "url": f"{base(app)}{page}.html",
        "isPartOf": book,
        "author": authors,
        "inLanguage": "zh-CN",
        **about,
    }
    if articles := app.book_papers.get(page.rpartition("/")[2]):
        chapter["about"] = articles
    return chapter


def plain_title(text: str) -> str:
    return html.unescape(re.sub("<[^>]+>", "", text))


def head(app, page, template, context, doctree):
    if page == "404":
        context["pageurl"] = None  # it has no address of its own
    if not base(app) or doctree is None:
        return
    tags = context.get("metatags", "")
    found = DESCRIPTION.search(tags)
    description = html.unescape(found[1]) if found else ""
    title = plain_title(context["title"])
    home = page == app.config.root_doc
    card = {
        "og:type": "book" if home else "article",
        "og:site_name": app.config.html_title,
        "og:title": title,
        "og:description": description,
        "og:url": f"{base(app)}{page}.html",
        "og:locale": "zh_CN",
        "og:image": f"{base(app)}_static/card.png",
        "og:image:width": str(SIZE[0]),
        "og:image:height": str(SIZE[1]),
        "og:image:alt": "书名，与全书讲的模型的一张图",
    }
    lines = [
        f'<meta property="{name}" content="{html.escape(text)}">'
        for name, text in card.items()
        if text
    ]
    lines.append('<meta name="twitter:card" content="summary_large_image">')
    feed = f"{base(app)}feed.xml"
    lines.append(f'<link rel="alternate" type="application/atom+xml" title="更新" href="{feed}">')
    if page in app.book_permalinks.values():  # else a page of the reference
        app.book_listed[page] = (title, description)
        data = json.dumps(linked_data(app, page, title, description), ensure_ascii=False)
        data = data.replace("</", "<\\/")
        lines.append(f'<script type="application/ld+json">{data}</script>')
        context["body"] = context.get("body", "") + app.book_comments
    context["metatags"] = "\n".join([tags, *lines])


def comments(app) -> str:
    """The comments below a page; off unless they are asked for."""
    asked = os.environ.get("BOOK_COMMENTS", "")
    if not asked or not base(app):
        return ""
    if asked == "hypothesis":
        return '\n<script src="https://hypothes.is/embed.js" async></script>'
    repository = urlsplit(app.config.book_repo_url)
    if asked == "utterances" and repository.netloc == "github.com":
        return (
            '\n<script src="https://utteranc.es/client.js" async crossorigin="anonymous" repo="'
            f'{html.escape(repository.path.strip("/"))}" issue-term="pathname" '
            'theme="preferred-color-scheme"></script>'
        )
    raise ConfigError(
        f"BOOK_COMMENTS is {asked!r}; expected hypothesis, or utterances with a BOOK_REPO_URL on "
        "github.com"
    )


# --- beside the pages ---


def words(cell: str) -> str:
    """A cell of a table without its marks.

    >>> words(" [甲](a.md) 与 {ref}`乙 <b>`，`c` ")
    '甲 与 乙，c'
    """
    cell = re.sub(r"\{\w+\}`([^`<]*?) *(?:<[^>]*>)?`", r"\1", cell)
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", cell).replace("`", "").strip()


def changes(app) -> list[tuple[str, str, str, str]]:
    """(id, date, title, lines) of the versions and the corrections, the newest first."""
    cff, found = citation(app), []
    changelog = Path(app.srcdir, "CHANGELOG.md")
    text = changelog.read_text("utf8") if changelog.is_file() else ""
    parts = re.split(r"^## +", text, flags=re.M)[1:]
    for part in parts:
        if dated := re.match(r"\[?(\d[\w.]*)\]? +[-—–] +(\d{4}-\d\d-\d\d)", part):
            found.append((f"v{dated[1]}", dated[2], f"版本 {dated[1]}", part.partition("\n")[2]))
    version, date = str(cff["version"]), str(cff["date-released"])
    if f"v{version}" not in {id_ for id_, *_ in found}:  # what it holds is still under "未发布"
        lines = parts[0].partition("\n")[2] if parts else ""
        found.append((f"v{version}", date, f"版本 {version}", lines))
    errata = Path(app.srcdir, "book", "course", "errata.md")
    if errata.is_file():
        rows = re.findall(r"^\| *(\d{4}-\d\d-\d\d) *\|(.*)\|$", errata.read_text("utf8"), re.M)
        for number, (date, row) in enumerate(rows):
            cells = [words(cell) for cell in row.split("|")]
            if len(cells) != 3:
                raise ExtensionError(f"errata.md: expected date, place, before, after; got {row!r}")
            where, old, new = cells
            told = f"原来：{old}\n现在：{new}"
            # new ones are put on top, so that the number of one never changes
            found.append((f"errata-{len(rows) - number}", date, f"勘误：{where}", told))
    return sorted(found, key=lambda entry: entry[1], reverse=True)


def feed(app) -> bytes:
    make = ElementMaker(namespace=ATOM, nsmap={None: ATOM})
    cff, entries = citation(app), changes(app)
    home = f"{base(app)}{app.config.root_doc}.html"
    root = make.feed(
        make.id(base(app)),
        make.title(cff["title"]),
        make.updated(f"{entries[0][1]}T00:00:00Z"),
        make.link(rel="self", type="application/atom+xml", href=f"{base(app)}feed.xml"),
        make.link(rel="alternate", type="text/html", href=home),
        *(make.author(make.name(who(author(a))["name"])) for a in cff["authors"]),
    )
    root.set("{http://www.w3.org/XML/1998/namespace}lang", "zh-CN")
    for id_, date, title, lines in entries:
        page = f"{base(app)}book/course/errata.html" if id_.startswith("errata") else home
        entry = make.entry(
            make.id(f"{base(app)}feed.xml#{id_}"),
            make.title(title),
            make.updated(f"{date}T00:00:00Z"),
            make.link(rel="alternate", type="text/html", href=page),
            make.content(lines.strip() or title, type="text"),
        )
        root.append(entry)
    return xml(root)


def sitemap(app) -> bytes:
    make = ElementMaker(namespace=SITEMAP, nsmap={None: SITEMAP})
    pages = sorted(app.env.found_docs)
    return xml(make.urlset(*(make.url(make.loc(f"{base(app)}{page}.html")) for page in pages)))


def xml(root) -> bytes:
    return etree.tostring(root, encoding="utf8", xml_declaration=True, pretty_print=True)


def for_models(app) -> str:
    """llms.txt: what the book is, and its pages with a line each."""
    title, about = app.book_listed.get(app.config.root_doc, (app.config.html_title, ""))
    lines = [f"# {citation(app)['title']}", "", f"> {about or title}", "", "## 各页", ""]
    for page in app.book_permalinks.values():
        if page in app.book_listed and page != app.config.root_doc:
            name, text = app.book_listed[page]
            line = f"- [{name}]({base(app)}{page}.html)"
            lines.append(f"{line}: {text}" if text else line)
    return "\n".join(lines) + "\n"


def lost_page(app):
    if base(app) and app.builder.name == "html":
        robots = '<meta name="robots" content="noindex">'
        home = f"{app.config.root_doc}.html"
        context = {"title": "没有这一页", "body": LOST.format(home=home), "metatags": robots}
        yield "404", context, "page.html"


def from_anywhere(path: Path, root: str) -> None:
    """A lost address may lie in any folder, so the links of its page begin at the root."""
    page = finish.parse(path.read_text("utf8"))
    page.rewrite_links(
        lambda link: link if re.match(r"[a-z]+:|[/#]", link) else root + link.removeprefix("./")
    )
    page.set("data-content_root", root)
    path.write_text(finish.serialize(page), "utf8")


def start(app):
    app.book_listed = {}  # page → (title, description), of the pages written in this build
    app.book_papers = papers_of(app) if base(app) else {}
    app.book_comments = comments(app)


def write(app, exception):
    if exception or app.builder.name != "html":
        return
    out = Path(app.outdir)
    if not base(app):
        for name in MADE:  # an earlier build may have had an address
            (out / name).unlink(missing_ok=True)
        return
    shutil.copy(CARD, out / "_static" / "card.png")
    (out / "sitemap.xml").write_bytes(sitemap(app))
    (out / "feed.xml").write_bytes(feed(app))
    (out / "robots.txt").write_text(
        f"User-agent: *\nAllow: /\n\nSitemap: {base(app)}sitemap.xml\n", "utf8"
    )
    # where only some pages were written again, the list of all stays as it is
    if set(app.book_permalinks.values()) <= set(app.book_listed):
        (out / "llms.txt").write_text(for_models(app), "utf8")
    from_anywhere(out / "404.html", urlsplit(base(app)).path)


def setup(app):
    app.setup_extension("dsbook.permalinks")
    app.setup_extension("dsbook.repo")
    app.connect("builder-inited", start)
    app.connect("html-page-context", head, priority=950)  # the description is there
    app.connect("html-collect-pages", lost_page)
    app.connect("build-finished", write, priority=950)  # the pages are finished
    return {"parallel_read_safe": True, "parallel_write_safe": True}
