"""Citations of our own pages, and addresses that survive renames (dsbook)."""

import re
import sys
import warnings
from io import StringIO
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
EXT = ROOT / "website" / "extensions"
sys.path.insert(0, str(EXT))

from bs4 import BeautifulSoup  # noqa: E402
from dsbook import citethis, permalinks  # noqa: E402
from pybtex.database import Person, parse_string  # noqa: E402

BOOK = "关键技术：一本书"
GROUP = (Person("{dsnotes contributors}"),)
PEOPLE = (Person("张, 三"), Person("Lovelace, Ada King"))


def work(title="混合专家模型 (MoE)", authors=GROUP, **changes) -> citethis.Work:
    fields = {"version": "0.1.0", "date": "2026-11-23", "id": "moe", "url": "https://e.org/id/moe"}
    return citethis.Work(title=title, book=BOOK, authors=authors, **(fields | changes))


def test_gbt7714_of_a_section_in_both_editions():
    assert citethis.gbt7714(work()) == (
        "dsnotes contributors. 混合专家模型 (MoE)[EB/OL]//关键技术：一本书. 版本 0.1.0."
        "（2026-11-23）[访问日期]. https://e.org/id/moe."
    )
    assert citethis.gbt7714(work(authors=PEOPLE), 2015) == (
        "张三, LOVELACE A K. 混合专家模型 (MoE)[EB/OL]//关键技术：一本书. 版本 0.1.0. "
        "(2026-11-23)[访问日期]. https://e.org/id/moe."
    )


def test_the_book_itself_is_not_in_itself():
    whole = work(title=BOOK)
    assert all("//关键" not in write(whole) for _, _, write in citethis.FORMATS)
    assert citethis.apa(whole) == (
        "dsnotes contributors. (2026). 关键技术：一本书 (Version 0.1.0). https://e.org/id/moe"
    )
    assert citethis.ris(whole).startswith("TY  - BOOK\n")
    assert citethis.bibtex(whole).startswith("@misc{dsnotes,")


def test_apa():
    assert citethis.apa(work(authors=PEOPLE)) == (
        "张三, & Lovelace, A. K. (2026). 混合专家模型 (MoE). In 关键技术：一本书 "
        "(Version 0.1.0). https://e.org/id/moe"
    )


@pytest.mark.parametrize("authors", [GROUP, PEOPLE])
def test_bibtex_is_read_back(authors):
    entry = parse_string(citethis.bibtex(work(authors=authors)), "bibtex").entries["dsnotes-moe"]
    assert entry.type == "incollection"
    assert entry.fields["title"] == "{混合专家模型 (MoE)}"
    assert entry.fields["booktitle"] == "{" + BOOK + "}"
    assert entry.fields["url"] == "https://e.org/id/moe"
    assert [p.last_names for p in entry.persons["author"]] == [p.last_names for p in authors]


def test_ris_has_one_tag_a_line_and_ends():
    lines = citethis.ris(work(authors=PEOPLE)).splitlines()
    assert all(re.fullmatch(r"[A-Z][A-Z0-9]  - .*", line) for line in lines)
    pairs = [tuple(line.split("  - ", 1)) for line in lines]
    assert [value for tag, value in pairs if tag == "AU"] == ["张, 三", "Lovelace, Ada King"]
    assert pairs[0] == ("TY", "CHAP")
    assert pairs[-1] == ("ER", "")
    assert ("T2", BOOK) in pairs


def test_every_page_of_the_book_has_a_permalink_and_none_is_lost():
    pages, moved = permalinks.load(ROOT)
    toc = re.findall(r"(?:root|file): ((?!src/)\S+)", (ROOT / "_toc.yml").read_text("utf8"))
    assert set(pages.values()) == set(toc)
    released = (ROOT / "tests/data/permalinks.txt").read_text().split()  # only ever grows
    assert set(released) <= set(pages)
    assert set(moved.values()) <= set(pages)


# --- a small site ---


CONF = """
import sys
sys.path.insert(0, {ext!r})
extensions = ["myst_nb", "dsbook.citethis"]
root_doc = "index"
"""


def build(root: Path, ledger: dict) -> str:
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace

    (root / "book").mkdir(parents=True)
    (root / "conf.py").write_text(CONF.format(ext=str(EXT)), "utf8")
    (root / "CITATION.cff").write_text((ROOT / "CITATION.cff").read_text("utf8"), "utf8")
    (root / "book/permalinks.yml").write_text(yaml.safe_dump(ledger), "utf8")
    (root / "index.md").write_text("# 扉页\n\n```{toctree}\nbook/new\n```\n", "utf8")
    page = "# 一 <节>\n\n正文。\n\n## 引用本节\n\n```{cite-this}\n```\n\n## 尾\n\n末。\n"
    (root / "book/new.md").write_text(page, "utf8")
    problems = StringIO()
    with warnings.catch_warnings(), docutils_namespace():
        warnings.simplefilter("ignore")  # Sphinx's and docutils' own deprecations are not ours
        out = root / "build"
        Sphinx(
            root, root, out / "html", out / "trees", "html", status=None, warning=problems
        ).build(force_all=True)
    return re.sub(r"\x1b\[[\d;]*m", "", problems.getvalue())


def test_pages_offer_five_formats_and_links_lead_on(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOK_URL", "https://book.example")
    ledger = {"pages": {"home": "index", "one": "book/new"}, "moved": {"book/old": "one"}}
    assert build(tmp_path, ledger) == ""
    html = tmp_path / "build/html"
    for page, id_, title in (("book/new", "one", "一 <节>"), ("index", "home", None)):
        soup = BeautifulSoup((html / f"{page}.html").read_text("utf8"), "html.parser")
        box = soup.select_one(f"div.cite-this.id-{id_}")
        texts = [pre.get_text() for pre in box.select("pre")]
        assert len(texts) == 5
        assert all(f"https://book.example/id/{id_}.html" in text for text in texts)
        assert title is None or all(title in text for text in texts)
    own = BeautifulSoup((html / "book/new.html").read_text("utf8"), "html.parser")
    assert (
        own.select_one("section .cite-this").find_parent("section").h2.get_text()[:4] == "引用本节"
    )
    for jump, target in (("id/one", "../book/new.html"), ("book/old", "new.html")):
        soup = BeautifulSoup((html / f"{jump}.html").read_text("utf8"), "html.parser")
        assert soup.select_one("a")["href"] == target
        assert soup.select_one("meta[http-equiv]")["content"] == f"0; url={target}"
        canonical = soup.select_one("link[rel=canonical]")["href"]
        assert canonical == target  # the page itself names its whole address


def test_a_lost_address_is_a_warning(tmp_path):
    problems = build(
        tmp_path, {"pages": {"home": "index", "gone": "book/old"}, "moved": {"index": "nobody"}}
    )
    for text in (
        "the page book/new has no permalink",
        "permalink gone: there is no page book/old",
        "moved page index: there is no permalink nobody",
        "moved page index: there is a page at its old path",
    ):
        assert text in problems
