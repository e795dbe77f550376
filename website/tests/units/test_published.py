"""The book with an address and without one: the same small site, built in both states (dsbook)."""

import json
import re
import shutil
import sys
import warnings
from io import StringIO
from pathlib import Path
from urllib.parse import urljoin

import nbformat
import pytest
import yaml
from lxml import etree

ROOT = Path(__file__).parents[3]
EXT = ROOT / "website" / "extensions"
sys.path.insert(0, str(EXT))

from bs4 import BeautifulSoup  # noqa: E402
from dsbook import published, repo  # noqa: E402
from sphinx.errors import ConfigError, ExtensionError  # noqa: E402

URL, REPO = "https://book.example/ds", "https://github.com/team/ds"
PAGES = {"home": "book/index", "moe": "book/model/moe", "nb-moe": "notebooks/moe"}
CONF = """
import sys
sys.path.insert(0, {ext!r})
extensions = ["myst_nb", "sphinxcontrib.bibtex", *("dsbook." + name for name in (
    "citethis", "codelink", "finish", "gbt7714", "published", "repo"))]
root_doc = "book/index"
language = "zh_CN"
html_title = "书"
bibtex_bibfiles = ["refs.bib"]
nb_execution_mode = "off"
exclude_patterns = ["build", "*.md", "book/course"]
templates_path = [{templates!r}]
html_theme = "sphinx_book_theme"
html_context = {{"default_mode": "auto"}}
"""
HOME = """---
myst:
  html_meta:
    description: 一本书，讲“甲”与 "乙"。
---
# 书 <一>

```{toctree}
model/moe
../notebooks/moe
```
"""
BIB = """@misc{v3, title={{DeepSeek-V3} </script> Report}, year={2024}, eprint={2412.19437},
  url={https://arxiv.org/abs/2412.19437}, author={{DeepSeek-AI} and Liu, Aixin and others}}"""
ROW = {"key": "v3", "name": "V3", "post": True, "brought": "一句话。", "used_in": ["moe"]}
CHANGES = """# 变更

## 未发布

- 还没有。

## [0.1.0] - 2026-11-23

- 第一版 <好>。
"""
ERRATA = """# 勘误

| 日期 | 在哪里 | 原来 | 现在 |
|---|---|---|---|
| 2026-11-25 | [混合专家](../model/moe.md) | 式 3 | {ref}`式 4 <eq>` |
| 2026-11-25 | 首页 | `甲` | 乙 |
"""


def write_site(root: Path) -> None:
    for name in ("book/model", "book/data", "book/course", "notebooks", "src/pkg"):
        (root / name).mkdir(parents=True)
    (root / "conf.py").write_text(
        CONF.format(ext=str(EXT), templates=str(EXT.parent / "templates")), "utf8"
    )
    shutil.copy(ROOT / "CITATION.cff", root)
    (root / "refs.bib").write_text(BIB, "utf8")
    (root / "CHANGELOG.md").write_text(CHANGES, "utf8")
    (root / "book/course/errata.md").write_text(ERRATA, "utf8")
    (root / "book/permalinks.yml").write_text(yaml.safe_dump({"pages": PAGES}), "utf8")
    (root / "book/data/papers.yml").write_text(yaml.safe_dump([ROW], allow_unicode=True), "utf8")
    (root / "book/index.md").write_text(HOME, "utf8")
    (root / "book/model/moe.md").write_text("# 混合专家 (MoE)\n\n短。\n", "utf8")
    (root / "src/pkg/__init__.py").write_text('"""Nothing."""\n')
    spec = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [nbformat.v4.new_markdown_cell("# 运行", id="title")]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=spec)
    nbformat.write(notebook, root / "notebooks/moe.ipynb")


def build(root: Path) -> None:
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace

    problems, out = StringIO(), root / "build"
    with warnings.catch_warnings(), docutils_namespace():
        warnings.simplefilter("ignore")  # Sphinx's and docutils' own deprecations are not ours
        app = Sphinx(
            root, root, out / "html", out / "trees", "html", status=None, warning=problems,
            freshenv=True,
        )  # fmt: skip
        app.build(force_all=True)
    assert problems.getvalue() == ""


VARIABLES = ("BOOK_URL", "BOOK_REPO_URL", "BOOK_REPO_BRANCH", "BOOK_COMMENTS")


def built(tmp_path_factory, **environment: str) -> Path:
    root = tmp_path_factory.mktemp("site")
    write_site(root)
    with pytest.MonkeyPatch.context() as patch:
        for name in VARIABLES:
            patch.delenv(name, raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        build(root)
    return root / "build" / "html"


@pytest.fixture(scope="module")
def with_address(tmp_path_factory) -> Path:
    return built(tmp_path_factory, BOOK_URL=URL, BOOK_REPO_URL=REPO)


@pytest.fixture(scope="module")
def without(tmp_path_factory) -> Path:
    return built(tmp_path_factory)


def soup(site: Path, page: str) -> BeautifulSoup:
    return BeautifulSoup((site / f"{page}.html").read_text("utf8"), "html.parser")


def linked(page: BeautifulSoup) -> dict:
    (script,) = page.select('script[type="application/ld+json"]')
    return json.loads(script.string)


# --- with an address ---


@pytest.mark.parametrize("page", PAGES.values())
def test_a_page_names_its_address_and_has_a_card(with_address: Path, page: str) -> None:
    here = soup(with_address, page)
    assert [a["href"] for a in here.select("link[rel=canonical]")] == [f"{URL}/{page}.html"]
    card = {tag["property"]: tag["content"] for tag in here.select('meta[property^="og:"]')}
    assert card["og:url"] == f"{URL}/{page}.html"
    assert card["og:site_name"] == "书"
    picture = card["og:image"]
    assert (with_address / picture.removeprefix(f"{URL}/")).is_file()
    feed = here.select_one('link[type="application/atom+xml"]')["href"]
    assert feed == f"{URL}/feed.xml"
    assert here.select_one('meta[name="twitter:card"]')["content"] == "summary_large_image"


def test_the_card_says_what_the_page_says_of_itself(with_address: Path) -> None:
    home = soup(with_address, "book/index")
    card = {tag["property"]: tag["content"] for tag in home.select('meta[property^="og:"]')}
    assert card["og:title"] == "书 <一>"
    assert card["og:description"] == '一本书，讲“甲”与 "乙"。'
    assert card["og:type"] == "book"


def test_the_picture_has_the_size_that_the_card_says() -> None:
    data = published.CARD.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert tuple(int.from_bytes(data[i : i + 4]) for i in (16, 20)) == published.SIZE


def test_search_engines_are_told_book_chapter_and_paper(with_address: Path) -> None:
    book = linked(soup(with_address, "book/index"))
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf8"))
    assert (book["@type"], book["name"], book["version"]) == ("Book", cff["title"], cff["version"])
    assert book["author"] == [{"@type": "Organization", "name": "dsnotes contributors"}]
    chapter = linked(soup(with_address, "book/model/moe"))
    assert (chapter["@type"], chapter["name"]) == ("Chapter", "混合专家 (MoE)")
    assert chapter["isPartOf"]["@id"] == book["@id"] == f"{URL}/book/index.html"
    (paper,) = chapter["about"]
    assert paper == {
        "@type": "ScholarlyArticle",
        "name": "DeepSeek-V3 </script> Report",
        "author": [
            {"@type": "Organization", "name": "DeepSeek-AI"},
            {"@type": "Person", "name": "Aixin Liu"},
        ],
        "datePublished": "2024-12",
        "url": "https://arxiv.org/abs/2412.19437",
    }


def test_the_sitemap_lists_every_page_and_robots_lead_to_it(with_address: Path) -> None:
    tree = etree.parse(with_address / "sitemap.xml")
    found = [loc.text for loc in tree.iter(f"{{{published.SITEMAP}}}loc")]
    assert sorted(found) == sorted(f"{URL}/{page}.html" for page in PAGES.values())
    assert all((with_address / loc.removeprefix(f"{URL}/")).is_file() for loc in found)
    assert f"\nSitemap: {URL}/sitemap.xml\n" in (with_address / "robots.txt").read_text("utf8")


def test_the_feed_tells_versions_and_corrections(with_address: Path) -> None:
    root = etree.parse(with_address / "feed.xml").getroot()
    name = {"a": published.ATOM}

    def texts(path: str) -> list[str]:
        return [element.text for element in root.findall(path, name)]

    assert root.tag == f"{{{published.ATOM}}}feed"
    assert texts("a:updated") == ["2026-11-25T00:00:00Z"]
    assert texts("a:entry/a:title") == ["勘误：混合专家", "勘误：首页", "版本 0.1.0"]
    assert texts("a:entry/a:content") == [
        "原来：式 3\n现在：式 4", "原来：甲\n现在：乙", "- 第一版 <好>。"
    ]  # fmt: skip
    assert texts("a:author/a:name") == ["dsnotes contributors"]
    ids = texts("a:entry/a:id")
    name_of = [id_.removeprefix(f"{URL}/feed.xml#") for id_ in ids]
    assert name_of == ["errata-2", "errata-1", "v0.1.0"]
    assert root.find("a:link[@rel='self']", name).get("href") == f"{URL}/feed.xml"


def test_models_get_a_list_of_the_pages(with_address: Path) -> None:
    text = (with_address / "llms.txt").read_text("utf8")
    assert text.startswith("# DeepSeek 关键技术")
    assert f"[混合专家 (MoE)]({URL}/book/model/moe.html)" in text


def test_the_page_of_a_lost_address_works_in_any_folder(with_address: Path) -> None:
    page = soup(with_address, "404")
    assert page.select_one("article h1").get_text() == "没有这一页"
    assert page.select_one('meta[name="robots"]')["content"] == "noindex"
    assert not page.select("link[rel=canonical]")
    asked = f"{URL}/no/such/page.html"
    links = [e.get(n) for n in ("href", "src", "action") for e in page.select(f"[{n}]")]
    own = {urljoin(asked, link).partition("#")[0].partition("?")[0] for link in links
           if link.strip("#") and not link.startswith("#")}  # fmt: skip
    own = {link for link in own if link.startswith(URL)}
    assert f"{URL}/book/index.html" in own
    assert f"{URL}/search.html" in own
    assert any(link.endswith("site.css") for link in own)
    missing = [link for link in own if not (with_address / link.removeprefix(f"{URL}/")).is_file()]
    assert missing == []
    assert page.html["data-content_root"] == "/ds/"


def test_buttons_lead_to_the_place_of_the_page(with_address: Path) -> None:
    links = {a["href"] for a in soup(with_address, "book/model/moe").select("a[href]")}
    assert f"{REPO}/edit/main/book/model/moe.md" in links
    assert any(link.startswith(f"{REPO}/issues/new?") and "model/moe" in link for link in links)
    assert not any("colab" in link or "mybinder" in link for link in links)
    links = {a["href"] for a in soup(with_address, "notebooks/moe").select("a[href]")}
    colab = "https://colab.research.google.com/github/team/ds/blob/colab/notebooks/moe.ipynb"
    assert colab in links
    binder = "https://mybinder.org/v2/gh/team/ds/main?urlpath=lab/tree/notebooks/moe.ipynb"
    assert binder in links


# --- without one, and from one state to the other ---


def test_without_an_address_there_is_none_of_this(without: Path) -> None:
    assert [name for name in published.MADE if (without / name).exists()] == []
    for path in without.rglob("*.html"):
        page = BeautifulSoup(path.read_text("utf8"), "html.parser")
        assert not page.select('meta[property^="og:"], meta[name^="twitter"], [type*=json]'), path
        assert not page.select("link[rel=alternate]"), path
        for link in page.select("link[rel=canonical]"):
            assert not re.match("[a-z]+:", link["href"]), path  # of a page that leads on
        links = [a["href"] for a in page.select("a[href]")]
        assert not [a for a in links if "colab" in a or "mybinder" in a or "/edit/" in a], path


def test_no_address_of_this_machine_leaks(with_address: Path, without: Path) -> None:
    """Not in what is read as an address, in either state, nor a folder of this machine."""
    leak = re.compile(r"(?:https?:)?//(?:localhost|127\.|0\.0\.0\.0|\[::1)|file://")
    for site in (with_address, without):
        for path in site.rglob("*"):
            if path.suffix in (".html", ".xml", ".txt") and "_static" not in path.parts:
                text = path.read_text("utf8")
                assert not leak.search(text), path
                assert str(site.parent.parent) not in text, path


def test_what_an_address_made_goes_with_it(tmp_path: Path, monkeypatch) -> None:
    write_site(tmp_path)
    monkeypatch.delenv("BOOK_REPO_URL", raising=False)
    monkeypatch.setenv("BOOK_URL", URL)
    build(tmp_path)
    site = tmp_path / "build" / "html"
    assert [name for name in published.MADE if not (site / name).is_file()] == []
    monkeypatch.delenv("BOOK_URL")
    build(tmp_path)
    assert [name for name in published.MADE if (site / name).exists()] == []
    assert "book.example" not in (site / "book/model/moe.html").read_text("utf8")


# --- comments, and wrong settings ---


@pytest.mark.parametrize(
    ("asked", "script"),
    [("hypothesis", "hypothes.is/embed.js"), ("utterances", "utteranc.es/client.js")],
)
def test_comments_only_where_they_are_asked_for(
    tmp_path_factory, with_address: Path, asked: str, script: str
) -> None:
    assert script not in (with_address / "book/model/moe.html").read_text("utf8")
    site = built(tmp_path_factory, BOOK_URL=URL, BOOK_REPO_URL=REPO, BOOK_COMMENTS=asked)
    (tag,) = soup(site, "book/model/moe").select(f'script[src*="{script}"]')
    assert tag.get("repo") == ("team/ds" if asked == "utterances" else None)
    assert script not in (site / "search.html").read_text("utf8")
    local = built(tmp_path_factory, BOOK_COMMENTS=asked)
    assert script not in (local / "book/model/moe.html").read_text("utf8")


@pytest.mark.parametrize("asked", ["disqus", "utterances"])
def test_comments_that_cannot_work_are_an_error(tmp_path_factory, asked: str) -> None:
    with pytest.raises(ConfigError, match=f"BOOK_COMMENTS is '{asked}'; expected"):
        built(tmp_path_factory, BOOK_URL=URL, BOOK_COMMENTS=asked)


@pytest.mark.parametrize("name", ["BOOK_URL", "BOOK_REPO_URL"])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("book.example", "expected an address such as"),
        ("ftp://book.example", "expected an address such as"),
        ("https://", "expected an address such as"),
        ("http://localhost:8000", "nobody can open"),
        ("http://127.0.0.1/x/", "nobody can open"),
    ],
)
def test_an_address_that_leads_nowhere_is_an_error(monkeypatch, name, given, said) -> None:
    monkeypatch.setenv(name, given)
    with pytest.raises(ConfigError, match=f"{name} is .*{said}"):
        repo.address(name)


def test_a_correction_that_lacks_something_is_an_error(tmp_path: Path) -> None:
    write_site(tmp_path)
    errata = tmp_path / "book/course/errata.md"
    errata.write_text(ERRATA + "| 2026-11-26 | 首页 | 甲 |\n", "utf8")
    app = type("App", (), {"srcdir": tmp_path})
    with pytest.raises(ExtensionError, match="expected date, place, before, after"):
        published.changes(app)


def test_the_version_being_written_is_in_the_feed_before_it_has_a_heading(tmp_path: Path) -> None:
    shutil.copy(ROOT / "CITATION.cff", tmp_path)
    (tmp_path / "CHANGELOG.md").write_text("# 变更\n\n## 未发布\n\n- 第一条。\n", "utf8")
    app = type("App", (), {"srcdir": tmp_path})
    ((id_, date, title, lines),) = published.changes(app)
    assert (id_, date, title) == ("v0.1.0", "2026-11-23", "版本 0.1.0")
    assert lines.strip() == "- 第一条。"
