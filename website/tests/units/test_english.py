"""The English door: every page and every labelled figure and table has its English, none is stale;
and how it comes onto a page."""

import re
import sys
import warnings
from io import StringIO
from pathlib import Path

import pytest
import yaml
from bs4 import BeautifulSoup

ROOT = Path(__file__).parents[3]
EXT = ROOT / "website" / "extensions"
sys.path.insert(0, str(EXT))

from dsbook import english, zhsearch  # noqa: E402

HAN = re.compile("[\u3400-\u9fff]")
# what may be quoted: the titles and words that a figure is about
QUOTED = re.compile("“[^”]*”")


@pytest.fixture(scope="module")
def door():
    return english.Door(ROOT)


# --- the book ---


def test_every_page_and_label_has_its_english_and_none_is_stale(door):
    assert len(door.labels) > 70
    assert sum(map(len, door.labels.values())) > 200
    assert door.complaints() == []


def test_every_label_of_a_figure_or_table_is_seen(door):
    """A name that the parser of captions does not find would be asked of nobody."""
    seen = {label for labels in door.labels.values() for label in labels}
    named = set()
    for doc in door.labels:
        if (path := ROOT / f"{doc}.md").is_file():
            named |= set(re.findall(r"^\s*:name: ((?:fig|tab)-\S+)", path.read_text("utf8"), re.M))
    assert named == seen


def test_every_part_of_the_book_has_its_english():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf8"))
    assert {part["caption"] for part in toc["parts"]} == english.PARTS.keys()


def test_it_is_english_and_plain(door):
    texts = []
    for doc, entry in door.pages.items():
        texts += [(doc, entry["title"]), (doc, entry["abstract"])]
        texts += list((entry.get("captions") or {}).items())
        sentences = re.findall(r"[.?!](?=\s|$)", entry["abstract"])
        assert 1 <= len(sentences) <= 5, (doc, len(sentences))
    for where, text in texts:
        assert not HAN.search(QUOTED.sub("", text)), where
        assert not re.search("[，。；：（）！]", text), where
        assert text.count("$") % 2 == 0, where
        assert text.count("`") % 2 == 0, where
        assert "{" not in english.INLINE.sub("", text), where  # no roles: they are not read
        assert text[-1] in ".?)" or text == door.pages.get(where, {}).get("title"), where


def test_abstracts_of_sections_have_three_to_five_sentences(door):
    for doc, labels in door.labels.items():
        if doc.startswith("book/") and "appendix" not in doc and labels:
            assert len(re.findall(r"[.?!](?=\s|$)", door.pages[doc]["abstract"])) >= 3, doc


# --- units ---


def small(tmp_path, page="# 一页\n\n:::{table} 表题\n:name: tab-a\n\n| a |\n|---|\n| 1 |\n:::\n"):
    """A book of two pages and its door."""
    for name in ("book/data", "notebooks"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "_toc.yml").write_text(
        "root: book/page\nparts:\n  - caption: 正文\n    chapters:\n      - file: book/english\n"
        "      - glob: src/*\n"
    )
    (tmp_path / "book/page.md").write_text(page, "utf8")
    (tmp_path / "book/english.md").write_text("# In English\n\n```{english}\n```\n", "utf8")
    (tmp_path / english.DATA).write_text(
        yaml.safe_dump(
            {
                "book/page": {
                    "title": "One page",
                    "abstract": "It has one table of $k$ rows.",
                    "captions": {"tab-a": "The caption with `code`."},
                },
                "book/english": {"title": "In English", "abstract": "All pages."},
            }
        ),
        "utf8",
    )
    return tmp_path


def test_what_has_changed_or_is_missing_is_named(tmp_path):
    root = small(tmp_path)
    english.Door(root).write_stamps()
    assert english.Door(root).complaints() == []
    page = root / "book/page.md"
    page.write_text(page.read_text("utf8").replace("表题", "另一个表题"), "utf8")
    assert english.Door(root).complaints() == [
        "tab-a: the Chinese has changed, see whether the English still fits"
    ]
    page.write_text(page.read_text("utf8").replace("tab-a", "tab-b"), "utf8")
    found = english.Door(root).complaints()
    assert "book/page: no caption for tab-b" in found
    assert "book/page: no label tab-a" in found
    with (root / "_toc.yml").open("a") as toc:
        toc.write("      - file: book/new\n")
    (root / "book/new.md").write_text("# 新\n", "utf8")
    assert "book/new: no abstract" in english.Door(root).complaints()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("```{nbfigure} /n.ipynb::fig\n:name: fig-x\n:alt: 图\n\n图题。\n```", {"fig-x": "图题。"}),
        (":::{lab} moe\n:name: fig-x\n图题。\n\n说明。\n:::", {"fig-x": "图题。"}),
        ("```{datatable} a.csv\n:name: tab-x\n:hide: b\n\n表题\n```", {"tab-x": "表题"}),
        (":::{list-table} 表题\n:name: tab-x\n\n* - a\n:::", {"tab-x": "表题"}),
        (":::{table} 没有名字\n\n| a |\n:::", {}),
        (
            "::::{dropdown} x\n:::{table} 里面\n:name: tab-x\n\n| a |\n:::\n::::",
            {"tab-x": "里面"},
        ),
    ],
)
def test_captions_are_found(text, found):
    assert english.labelled(text) == found


# --- on a page ---


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace

    root = small(tmp_path_factory.mktemp("english"))
    (root / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(EXT)!r})\n"
        "extensions = ['myst_nb', 'sphinx.ext.mathjax', 'dsbook.english', 'dsbook.zhsearch']\n"
        "myst_enable_extensions = ['colon_fence', 'dollarmath']\nnumfig = True\n"
        f"templates_path = [{str(EXT.parent / 'templates')!r}]\n"
        "exclude_patterns = ['build']\nnb_execution_mode = 'off'\n"
        "root_doc = 'book/page'\nlanguage = 'zh_CN'\n"
    )
    page = root / "book/page.md"
    page.write_text(page.read_text("utf8") + "\n```{toctree}\nenglish\n```\n", "utf8")
    problems = StringIO()
    with warnings.catch_warnings(), docutils_namespace():
        warnings.simplefilter("ignore")
        Sphinx(
            root, root, root / "build", root / "trees", "html", status=None, warning=problems
        ).build(force_all=True)
    assert problems.getvalue() == ""
    return root / "build"


def soup_of(path):
    return BeautifulSoup(path.read_text("utf8"), "html.parser")


def test_the_fold_is_the_last_of_its_page_closed_and_in_english(built):
    page = soup_of(built / "book/page.html")
    [fold] = page.select("details.english")
    assert fold["lang"] == "en"
    assert fold["id"] == english.ANCHOR
    assert not fold.has_attr("open")
    assert fold.summary.get_text() == "In English"
    assert fold.find_parent("section").find_all(recursive=False)[-1] is fold
    assert page.html["lang"] == "zh-CN"


def test_a_caption_leads_to_its_table_by_its_number(built):
    fold = soup_of(built / "book/page.html").select_one("details.english")
    item = fold.select_one("li")
    assert item.get_text().strip() == "Table 1. The caption with code."
    assert item.a["href"] == "#tab-a"
    assert "It has one table of" in fold.p.get_text()


def test_the_list_names_every_page_and_leads_to_its_fold(built):
    page = soup_of(built / "book/english.html")
    assert page.select_one("section#in-english")["lang"] == "en"
    assert not page.select("details.english")
    [link] = page.select("dt a")
    assert link["href"].removesuffix("#in-english") == "page.html"
    assert "It has one table of" in page.select_one("dd").get_text()


def test_the_search_has_the_english_once(built):
    found = zhsearch.read((built / "searchdata.js").read_text("utf8"))
    page = [s for s in found if s["doc"] == "book/page"]
    assert [(s["title"], s["anchor"]) for s in page] == [
        ("一页", ""),
        ("In English: One page", "#in-english"),
    ]
    assert "one table of k rows" in page[1]["text"]
    assert "The caption with code" in page[1]["text"]
    assert "one table" not in page[0]["text"]
    assert zhsearch.weight("book/page", page[1]["title"]) < 1
